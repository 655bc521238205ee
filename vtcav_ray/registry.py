"""The registries: every kind of thing that can be added, its built-in names, and the modules that hold them.

A module adds an entry with a decorator: `@SOLVERS.register("mine")`. An installed package can instead list it as an
entry point, for example in the group `vtcav_ray.solvers`; it is loaded when a config names it. Names are checked
without importing anything: the built-in ones are listed below, by module. docs/extending.md has an example of each.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vtcav_ray.errors import ConfigError

T = TypeVar("T")
_NAME = re.compile(r"\w[\w.-]*(:[a-z])?")
_NUMBER = re.compile(r"[1-9][0-9]*")


class UnknownName(ConfigError, ValueError):
    """A registry has no such name. `known` is the end of the message: all names, and the nearest."""

    def __init__(self, message: str, known: str = "") -> None:
        super().__init__(f"{message} {known}".rstrip())
        self.known = known


@functools.cache
def installed(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Return the entry points of a group, by name. Reads the metadata of every installed package, once per process."""
    points = importlib.metadata.entry_points(group=group)
    return {point.name: point for point in sorted(points, key=lambda point: point.name)}


class Registry:
    """Named functions or classes of one kind.

    Args:
        what: the kind, in words, for messages.
        group: of the entry points that add to it.
        built_in: module -> the names that it registers when it is imported. A name `grid:n` takes a positive number.
    """

    def __init__(self, what: str, group: str, built_in: Mapping[str, Sequence[str]]) -> None:
        self.what, self.group = what, group
        self._home = {name: module for module, names in built_in.items() for name in names}
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Add the decorated function or class under `name`.

        Raises:
            ValueError: another module has registered the name, or it is not made of letters, digits, `_`, `.` and `-`.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} can't name a {self.what}: use letters, digits, `_`, `.` and `-`")

        def add(entry: T) -> T:
            before = self._entries.get(name)
            owner = self._home.get(name) or getattr(before, "__module__", None)
            if owner not in (None, getattr(entry, "__module__", None)):
                raise ValueError(f"{owner} has registered the {self.what} {name!r} already: choose another name")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> Any:
        """Return the entry, importing the module that registers it.

        Raises:
            UnknownName: there is none of that name. ConfigError: its entry point can't be loaded.
        """
        if name not in self._entries:
            if home := self._home.get(name):
                importlib.import_module(home)
            else:
                point = self.entry_point(self.check(name))
                assert point is not None, f"{name} is known"
                try:
                    entry = point.load()
                except (ImportError, AttributeError) as error:
                    raise ConfigError(
                        f"The entry point `{point.value}` of {self.group} can't be loaded: {error}. Repair or remove "
                        "the package that has it."
                    ) from error
                self._entries.setdefault(name, entry)  # loading may have registered it
        return self._entries[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the entry, or `default` if there is none of that name."""
        return self[name] if name in self else default  # noqa: SIM401 - this is that method

    def __contains__(self, name: object) -> bool:
        return any(name == known for known in self)

    def __iter__(self) -> Iterator[str]:
        """Yield every name, built-in ones first. Read the installed packages only after this process's own entries."""
        seen = [*self._home, *(name for name in self._entries if name not in self._home)]
        yield from seen
        yield from (name for name in installed(self.group) if name not in seen)

    def check(self, name: str) -> str:
        """Return `name`.

        Raises:
            UnknownName: the registry has no such name.
        """
        if name not in self:
            raise self._unknown(name)
        return name

    def resolve(self, spec: str) -> tuple[str, tuple[int, ...]]:
        """Split a config's value into a name and its number: `grid:4` into `grid:n` and 4, `mean` into `mean`.

        Raises:
            UnknownName: the registry has no such name, or the number is missing, superfluous or not positive.
        """
        base, colon, number = spec.partition(":")
        for name in self:
            if name.partition(":")[0] != base or bool(colon) != (":" in name):
                continue
            if not colon:
                return name, ()
            if _NUMBER.fullmatch(number):
                return name, (int(number),)
        raise self._unknown(spec)

    def entry_point(self, name: str) -> importlib.metadata.EntryPoint | None:
        """Return the entry point of an installed package that adds `name`, if there is one."""
        return installed(self.group).get(name)

    def added(self) -> dict[str, Any]:
        """Return the entries that other packages have added in this process."""
        return {name: entry for name, entry in self._entries.items() if name not in self._home}

    def versions(self, names: Iterable[str]) -> dict[str, dict[str, str | None]]:
        """Return what identifies the code of the names that are not built in: name -> its place and its version.

        The version is the entry's attribute `version`, or else that of the package whose entry point it is.
        """
        found = {}
        for name in sorted({name for name in names if name not in self._home}):
            entry, point = self[name], self.entry_point(name)
            version = getattr(entry, "version", None) or (point.dist.version if point and point.dist else None)
            where = f"{getattr(entry, '__module__', '')}:{getattr(entry, '__qualname__', name)}"
            found[name] = {"entry": where, "version": None if version is None else str(version)}
        return found

    def _unknown(self, name: str) -> UnknownName:
        names = list(self)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        known = f"There are {', '.join(names)}, and any entry point of the group `{self.group}`.{hint}"
        return UnknownName(f"No {self.what} `{name}`.", known)


def added_code(used: Mapping[Registry, Iterable[str]]) -> dict[str, Any]:
    """Return a stage's addition to its key for names that are not built in, so that a new version changes the key.

    Args:
        used: registry -> names that the stage's output depends on.

    Returns:
        Empty if all are built in.
    """
    found = {registry.group: versions for registry, names in used.items() if (versions := registry.versions(names))}
    return {"added": found} if found else {}


@dataclass(frozen=True)
class _WithAdded:
    """A function that creates a worker in another process, with the names that were added here. See `with_added`."""

    make: Callable[[], Any]
    added: Mapping[str, Mapping[str, Any]]

    def __call__(self) -> Any:
        for registry in REGISTRIES:
            for name, entry in self.added.get(registry.group, {}).items():
                registry._entries.setdefault(name, entry)
        return self.make()


def with_added(make: Callable[[], T]) -> Callable[[], T]:
    """Return `make` in a form that, pickled and called in another process, finds the entries added in this one."""
    added = {registry.group: entries for registry in REGISTRIES if (entries := registry.added())}
    return _WithAdded(make, added) if added else make


# fmt: off
SOLVERS = Registry("solver", "vtcav_ray.solvers", {
    "vtcav_ray.cavs.solvers": ("logistic", "ridge", "svm", "pattern"),
    "vtcav_ray.cavs.sgd": ("sgd",),
})
PROJECTIONS = Registry("projection", "vtcav_ray.projections", {
    "vtcav_ray.activations.projections": ("mean", "time", "space", "flat", "moving", "still", "grid:n", "sketch:k"),
})
FRAMEWORKS = Registry("framework", "vtcav_ray.recognisers", {
    "vtcav_ray.models.mmaction": ("mmaction2",),
    "vtcav_ray.models.transformers_models": ("transformers",),
    "vtcav_ray.models.python_module": ("python",),
    "vtcav_ray.models.torchvision_swin": ("torchvision",),
})
FAMILIES = Registry("recogniser family", "vtcav_ray.families", {  # by the name of the backbone's or the network's class
    "vtcav_ray.models.families": (
        "SwinTransformer3D", "TimeSformer", "VisionTransformer", "UniFormerV2", "MViT", "UniFormer", "C3D", "X3D",
        "MobileNetV2", "MobileNetV2TSM", "ResNet", "ResNetTSM", "ResNetTIN", "OmniResNet", "TANet", "C2D",
        "ResNet2Plus1d", "ResNet3d", "ResNet3dCSN", "ResNet3dSlowOnly", "ResNet3dSlowFast",
    ),
    "vtcav_ray.models.transformers_families": (
        "VideoMAEForVideoClassification", "VivitForVideoClassification", "TimesformerForVideoClassification",
        "VJEPA2ForVideoClassification", "VideoPrismForVideoClassification",
    ),
})
CONCEPT_KINDS = Registry("concept kind", "vtcav_ray.concept_kinds", {
    "vtcav_ray.clips.kinds": ("spatial", "spatiotemporal", "tracked", "context", "given", "still"),
})
MOTION_CONTROLS = Registry("motion control", "vtcav_ray.motion_controls", {
    "vtcav_ray.clips.kinds": ("frozen", "shuffled", "reversed", "padding"),
})
TRACK_SOURCES = Registry("track source", "vtcav_ray.track_sources", {
    "vtcav_ray.tracks.sources": ("ultralytics",),
})
TRACK_FORMATS = Registry("track format", "vtcav_ray.track_formats", {
    "vtcav_ray.tracks.formats.parquet": ("parquet",),
    "vtcav_ray.tracks.formats.mot": ("mot",),
    "vtcav_ray.tracks.formats.cvat": ("cvat",),
    "vtcav_ray.tracks.formats.coco_video": ("coco-video",),
    "vtcav_ray.tracks.formats.csv_file": ("csv",),
})
REPORT_SECTIONS = Registry("report section", "vtcav_ray.report_sections", {  # in the page's order
    "vtcav_ray.report.sections": ("summary", "matrix", "class", "concepts", "mistakes", "run"),
    "vtcav_ray.report.explained": ("examples",),
    "vtcav_ray.report.composition": ("labels",),
    "vtcav_ray.report.faithfulness": ("checks",),
})
# fmt: on
REGISTRIES = (
    SOLVERS,
    PROJECTIONS,
    FRAMEWORKS,
    FAMILIES,
    CONCEPT_KINDS,
    MOTION_CONTROLS,
    TRACK_SOURCES,
    TRACK_FORMATS,
    REPORT_SECTIONS,
)  # fmt: skip
