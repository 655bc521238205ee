"""Files of the folders that Hugging Face's `save_pretrained` writes, and whether they are complete."""

from __future__ import annotations

import fsspec

from vtcav_ray.text.bounded_text import MOST_CHARACTERS, UnreadableText, read_json

CONFIG = "config.json"
SUFFIX = ".safetensors"
WEIGHTS = f"model{SUFFIX}"
INDEX = f"{WEIGHTS}.index.json"


def is_whole_folder(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Return whether a folder has all its files with weights, each complete. Reads their headers.

    Raises:
        FileNotFoundError: a file is missing.
    """
    names = [WEIGHTS]
    if not fs.exists(f"{path}/{WEIGHTS}"):
        with fs.open(f"{path}/{INDEX}", "rb") as file:
            try:
                names = sorted(set(read_json(file.read(MOST_CHARACTERS).decode())["weight_map"].values()))
            except (UnreadableText, UnicodeDecodeError, LookupError, TypeError, AttributeError):
                return False  # half of an index
    return all(_whole_safetensors(fs, f"{path}/{name}") for name in names)


def _whole_safetensors(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Return whether a file is as long as its header says: 8 bytes with the header's length, the header, the data."""
    size = int(fs.info(path)["size"])
    with fs.open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, MOST_CHARACTERS):
            return False
        try:
            header = read_json(file.read(length).decode())
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (UnreadableText, UnicodeDecodeError, LookupError, TypeError, AttributeError):
            return False
    return bool(size == 8 + length + end)
