"""Turn names of classes, layers and concepts into valid, distinct file names. Only this module does that."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

MOST_CHARACTERS = 80


def clean(text: str, also: str = ".-", most: int = MOST_CHARACTERS) -> str:
    """Keep letters, digits, `_` and `also`; replace everything else by `_`. Different texts may become the same.

    Args:
        also: further characters to keep.
        most: maximum number of characters.
    """
    kept = re.sub(rf"[^\w{re.escape(also)}]+", "_", unicodedata.normalize("NFC", text))
    return kept.strip("._")[:most].strip("._") or "_"


def distinct_names(texts: Iterable[str], also: str = ".-", most: int = MOST_CHARACTERS) -> dict[str, str]:
    """Return a distinct file name for each text, also on file systems that ignore case.

    A text with a unique clean name gets that name. Texts that share one (`a/b`, `a b`, `a_b`) each get the text's
    digest appended, independent of their order.
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
