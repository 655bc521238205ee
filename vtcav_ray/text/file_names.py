"""Names of classes, layers and concepts as names of files: the one place that cleans them, and keeps them apart."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

MOST_CHARACTERS = 80


def clean(text: str, also: str = ".-", most: int = MOST_CHARACTERS) -> str:
    """Letters, digits, `_` and the characters of `also`; anything else is a `_`. Different texts may become the same.

    Args:
        also: further characters that are kept.
        most: characters of the name.
    """
    kept = re.sub(rf"[^\w{re.escape(also)}]+", "_", unicodedata.normalize("NFC", text))
    return kept.strip("._")[:most].strip("._") or "_"


def distinct_names(texts: Iterable[str], also: str = ".-", most: int = MOST_CHARACTERS) -> dict[str, str]:
    """A file name for each text, each different from all others, also where upper and lower case are the same.

    A text whose clean name nobody shares gets that name. Those that share one (`a/b`, `a b`, `a_b`) each get a digest
    of the text at its end, whatever their order.
    """
    names = {text: clean(text, also, most) for text in texts}
    for digits in range(8, 65, 8):
        shared = Counter(_same_file(name) for name in names.values())
        if len(shared) == len(names):
            break
        for text, name in names.items():
            if shared[_same_file(name)] > 1:
                digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
                names[text] = f"{clean(text, also, most)}-{digest[:digits]}"
    return names


def _same_file(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
