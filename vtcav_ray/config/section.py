"""What every section of the config has in common: closed to unknown keys, and what its programs may do."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

# Which of the programs that a config names may run: none, those on this machine, or also those on a URL.
Code = Literal["nowhere", "here", "anywhere"]
# May hold credentials: never shown, and never dumped into a key, a manifest or run.json.
StorageOptions = Annotated[dict[str, Any], Field(repr=False, exclude=True)]


class ConfigSection(BaseModel):
    """A part of the config: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def recorded(self) -> dict[str, Any]:
        """Return the section as JSON, from which it can be read again. Null is left out where it is the default."""
        # A null that replaces a default, e.g. `clips.quality.copy_distance: null`, is among the changed values alone.
        full = self.model_dump(mode="json", exclude_none=True)
        merged: dict[str, Any] = _merged(full, self.model_dump(mode="json", exclude_defaults=True))
        return merged


class NamesCode(ConfigSection):
    """A section whose files may be programs. Whether they may run is not a key, so no config file can allow it."""

    _code: Code = PrivateAttr("here")

    @property
    def code(self) -> Code:
        """Which of the programs that this section names may run. `model_copy` and pickle keep this."""
        return self._code

    def trusting(self, code: Code) -> Self:
        """Return a copy of the section that allows these programs."""
        copied = self.model_copy()
        copied._code = code
        return copied


def _merged(full: Any, changed: Any) -> Any:
    """Return `full` with the values of `changed`, of which dictionaries and lists may lack what is a default."""
    if isinstance(full, dict) and isinstance(changed, dict):
        return {**full, **{name: _merged(full.get(name), value) for name, value in changed.items()}}
    if isinstance(full, list) and isinstance(changed, list):
        return [_merged(*both) for both in zip(full, changed, strict=True)]
    return changed
