"""Words of the code that no reader should meet: in pages, in the terminal, in helps."""

from __future__ import annotations

import re

INSIDE = re.compile(r"\b(twins?|rest of its kind|cells?|looks?|looking|looked)\b", re.IGNORECASE)
