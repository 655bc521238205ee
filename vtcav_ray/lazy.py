"""Names of a package that are imported on first use, so that one module of it does not bring all the others along."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Make a module's `__getattr__` (PEP 562) that imports names where they are asked for.

    A name must differ from those of the package's modules: an imported module is an attribute of its package too.

    Args:
        package: `__name__` of the package.
        modules: name of each module in the package -> the names that the package offers from it.

    Returns:
        To be assigned to `__getattr__` in the package's `__init__.py`.
    """
    home = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return __getattr__
