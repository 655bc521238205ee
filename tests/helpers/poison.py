"""Make the decoder fail by a video's name, in every process that starts with `folder` on its PYTHONPATH.

Real files that crash one FFmpeg would work in the next. The tests check that the harm stays with the video.
"""

from __future__ import annotations

from pathlib import Path

SITECUSTOMIZE = """
import av, ctypes, time

_open = av.open

def _harmful(file, *args, **kwargs):
    name = str(file).rsplit("/", 1)[-1]
    if "segv" in name:
        ctypes.string_at(0)  # a real segmentation fault
    if "hang" in name:
        time.sleep(1e5)
    if "lock" in name:
        ctypes.PyDLL(None).sleep(100_000)  # hangs and holds the interpreter's lock
    if "eats" in name:
        eaten = []
        while True:
            eaten.append(b"x" * 2**26)
    return _open(file, *args, **kwargs)

av.open = _harmful
"""


def install(folder: Path) -> str:
    """Write the module that Python imports at its start; return the folder, for PYTHONPATH."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return str(folder)
