"""The result of a preflight: one row per check, and one row per label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from vtcav_ray.errors import EXIT_DONE, ConfigError, VtcavError

Verdict = Literal["ok", "warn", "stop"]
MOST_LISTED = 12  # names in one message


@dataclass(frozen=True)
class Check:
    """One row.

    Attributes:
        subject: what was checked: `model`, `layers`, `detector`, `tracks`, `concepts`, `labels`, `classes`, `videos`,
            `output`, `opencv`.
        verdict: `ok`; `warn`: the run goes on, with a weaker result; `stop`: it would fail, or could score nothing.
        message: what was found; with `warn` and `stop` also what to type.
        error: the error that the run would raise for this row; None: `ConfigError`.
    """

    subject: str
    verdict: Verdict
    message: str
    error: VtcavError | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, subject: str, error: VtcavError) -> Check:
        """Return the row that stops a run for an error."""
        return cls(subject, "stop", str(error), error)


@dataclass(frozen=True)
class LabelRow:
    """One label of the videos.

    Attributes:
        label: as the folder or the list spells it; None: the videos that have none.
        videos: number of videos with it.
        match: the model's class; None: the model has no such class.
        nearest: the model's class with the most similar name, if there is no match; None: no class is similar.
    """

    label: str | None
    videos: int
    match: str | None
    nearest: str | None = None

    @property
    def sentence(self) -> str:
        """The row as text: `gestures: 20 videos, no such class`."""
        count = f"{self.videos:,} video{'' if self.videos == 1 else 's'}"
        if self.label is None:
            return f"(no label): {count}"
        if self.match is not None:
            return f"{self.label}: {count}, matched{'' if self.match == self.label else f' to {self.match!r}'}"
        near = f", nearest {self.nearest!r}" if self.nearest is not None else ""
        return f"{self.label}: {count}, no such class{near}"


@dataclass(frozen=True)
class Preflight:
    """All rows of a preflight.

    Attributes:
        checks: in the order in which they were made.
        labels: labels without a class first, then by number of videos; empty: the labels were not compared.
    """

    checks: tuple[Check, ...]
    labels: tuple[LabelRow, ...] = ()

    @property
    def stops(self) -> tuple[Check, ...]:
        """The rows that stop a run."""
        return tuple(check for check in self.checks if check.verdict == "stop")

    @property
    def exit_status(self) -> int:
        """The exit status of a run that these rows stop; 0: none does."""
        try:
            self.stop()
        except VtcavError as error:
            return error.exit_status
        return EXIT_DONE

    def stop(self) -> None:
        """Raise an error if a row stops the run.

        Raises:
            VtcavError: the row's own error, if only one row stops the run; otherwise a ConfigError with all messages.
        """
        stops = self.stops
        if len(stops) == 1:
            raise stops[0].error or ConfigError(stops[0].message)
        if stops:
            lines = "\n".join(f"- {check.subject}: {check.message}" for check in stops)
            raise ConfigError(f"The run can't start, for {len(stops)} reasons:\n{lines}")


def listed(names: Sequence[str], *, most: int = MOST_LISTED, sep: str = ", ") -> str:
    """Return names as text; after `most` of them, how many more there are."""
    more = f"{sep}and {len(names) - most:,} more" if len(names) > most else ""
    return f"{sep.join(names[:most])}{more}"
