"""Import a package's names on first use, so that importing one of its modules does not import all the others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a module `__getattr__` (PEP 562) that imports names on first use.

    A name must differ from the names of the package's modules: an imported module is also an attribute of its package.

    Args:
        package: `__name__` of the package.
        modules: name of each module in the package -> the names that the package exports from it.

    Returns:
        A function to assign to `__getattr__` in the package's `__init__.py`.
    """
    home = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # later lookups do not call this function
        return value

    return __getattr__
