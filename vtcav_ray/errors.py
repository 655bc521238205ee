"""The three ways in which things go wrong, and what each does to a run.

- `ConfigError`: the config or the arguments are wrong. Nothing was started. Exit status 2.
- `StageError`: a stage could not be completed (no access, no space, a model that does not load). Exit status 3.
- `InputError`: ONE input can't be used. The run goes on; the input becomes a row of the `failures` table.
"""

from __future__ import annotations

from vtcav_ray.text.url_text import cleaned

EXIT_DONE = 0
EXIT_CONFIG = 2
EXIT_STAGE = 3
EXIT_TOO_MANY_FAILED = 4
EXIT_STOPPED = 130  # Ctrl-C, as shells have it


class VtcavError(Exception):
    """Base of the errors that are told to the user in one paragraph, without a traceback.

    Messages quote other libraries' errors, which quote URLs: what may be a credential is taken out of every message.
    """

    exit_status = EXIT_STAGE

    def __init__(self, *args: object) -> None:
        super().__init__(*(cleaned(a) if isinstance(a, str) else a for a in args))


class ConfigError(VtcavError):
    """A key, a value or an argument is wrong. The message names it, what is allowed, and the mend."""

    exit_status = EXIT_CONFIG


class RefusedURL(ConfigError):
    """A URL may not be read: it, or where it redirects to, is not allowed, or its body has no end.

    Args:
        kind: `refused`, `too_large` or `timeout`, as `InputError.kind` has them.
        message: one sentence that names the URL and the mend.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[RefusedURL], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class StageError(VtcavError):
    """A stage could not be completed. The message says what to mend; `run` again goes on from there."""

    exit_status = EXIT_STAGE


class EnvironmentFault(StageError):
    """A stage could not be completed, and neither videos nor model are to blame: there is no cluster, or storage
    refuses, is full or does not answer. That may pass, so nothing is marked as bad for it.
    """


class InputError(VtcavError):
    """One video or clip can't be used.

    Args:
        kind: a short, stable word for counting: `empty`, `not_video`, `no_video_stream`, `truncated`, `too_short`,
            `too_large`, `decode`, `missing`, `changed`, `permission`, `unreadable`, `refused` (its address may not be
            read), `label`, `non_finite`, `no_track`, `memory`, `timeout`, `crashed`.
        message: one sentence for a person; it names what is wrong and, where there is one, the mend.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = cleaned(message)

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str]]:
        return type(self), (self.kind, self.message)
