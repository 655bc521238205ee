"""Write the digests of the containers' base images into cluster/images.env: `make pin-images`.

The file has lines `NAME=IMAGE:TAG` or `NAME=IMAGE:TAG@DIGEST`; the files cluster/Containerfile.* take NAME as a build
argument. A tag may be moved to another image, a digest can't. This asks the images' registry for the digest that each
tag has now, with the first client found of skopeo, crane, and docker with buildx. `--check` changes nothing, contacts
no registry, and ends with 1 if an image has no digest.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parents[1] / "cluster" / "images.env"
LINE = re.compile(r"(?P<name>[A-Z][A-Z0-9_]*)=(?P<tagged>[a-z0-9./:_-]+:[\w.-]+)(?:@(?P<digest>sha256:[0-9a-f]{64}))?")
# Of an image for several platforms, each of these gives the digest of the list, so that one line serves all.
CLIENTS = {
    "skopeo": ("skopeo", "inspect", "--no-tags", "--format", "{{.Digest}}", "docker://{image}"),
    "crane": ("crane", "digest", "{image}"),
    "docker": ("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", "{image}"),
}
SECONDS = 120


class PinError(Exception):
    """A digest can't be found. The message says why and what to do."""


def main(arguments: list[str], file: Path = FILE) -> int:
    try:
        text = file.read_text(encoding="utf-8")
        if arguments == ["--check"]:
            check(text)
        elif arguments:
            raise PinError(f"Unknown argument {arguments[0]!r}. There is `--check`, or none.")
        else:
            file.write_text(pin(text), encoding="utf-8")
    except PinError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def images(text: str) -> list[re.Match[str]]:
    """Read the lines of the file that name an image.

    Raises:
        PinError: a line is neither empty, nor a comment, nor `NAME=IMAGE:TAG[@DIGEST]`.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith("#"):
            match = LINE.fullmatch(line)
            if match is None:
                raise PinError(f"cluster/images.env, line {number}: write NAME=IMAGE:TAG@sha256:DIGEST, not {line!r}.")
            found.append(match)
    return found


def check(text: str) -> None:
    """Raise PinError if an image has no digest."""
    loose = [match["tagged"] for match in images(text) if match["digest"] is None]
    if loose:
        raise PinError(
            f"No digest in cluster/images.env for: {', '.join(loose)}. Run `make pin-images` on a machine that reaches "
            "the registry, look at what changed, and commit it."
        )


def pin(text: str) -> str:
    """Return the text with each image's current digest. Comments stay."""
    client = next((name for name in CLIENTS if shutil.which(name)), None)
    if client is None:
        raise PinError(f"Install one of {', '.join(CLIENTS)} (with buildx) first: none is on the PATH.")
    lines = text.splitlines()
    for match in images(text):
        tagged = match["tagged"]
        digest = ask(client, tagged)
        print(f"{tagged}: {digest}{'' if digest == match['digest'] else ' (new)'}")
        lines[lines.index(match[0])] = f"{match['name']}={tagged}@{digest}"
    return "\n".join(lines) + "\n"


def ask(client: str, image: str) -> str:
    """Ask the image's registry for the tag's current digest."""
    command = [word.replace("{image}", image) for word in CLIENTS[client]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise PinError(f"{client} had no answer about {image} in {SECONDS} s. Nothing was written.") from error
    digest = done.stdout.strip()
    if done.returncode != 0 or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        why = (done.stderr.strip() or digest or "it printed nothing").splitlines()[-1]
        raise PinError(f"{client} could not find the digest of {image}: {why}. Nothing was written.")
    return digest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
