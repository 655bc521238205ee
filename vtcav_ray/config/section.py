"""What every section of the config has in common: closed to unknown keys, and what its programs may do."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

# Which programs may be run that a config names: none, those on this machine, those on a URL, too.
Code = Literal["nowhere", "here", "anywhere"]
# May hold credentials: never shown, and never dumped into a key, a manifest or run.json.
StorageOptions = Annotated[dict[str, Any], Field(repr=False, exclude=True)]


class ConfigSection(BaseModel):
    """A part of the config: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class NamesCode(ConfigSection):
    """A section whose files may be programs. Whether they may be run is no key of it: no file can say so of itself."""

    _code: Code = PrivateAttr("here")

    @property
    def code(self) -> Code:
        """Which of the programs that this section names may be run. Kept by `model_copy` and by pickle."""
        return self._code

    def trusting(self, code: Code) -> Self:
        """The same section with other programs allowed."""
        copied = self.model_copy()
        copied._code = code
        return copied
