"""The three kinds of errors, and their effect on a run.

- `ConfigError`: the config or the arguments are wrong. Nothing was started. Exit status 2.
- `StageError`: a stage could not be completed (no access, no space, a model that does not load). Exit status 3.
- `InputError`: ONE input can't be used. The run continues; the input becomes a row of the `failures` table.
"""

from __future__ import annotations

from vtcav_ray.text.url_text import cleaned

EXIT_DONE = 0
EXIT_CONFIG = 2
EXIT_STAGE = 3
EXIT_TOO_MANY_FAILED = 4
EXIT_STOPPED = 130  # Ctrl-C, as in shells


class VtcavError(Exception):
    """Base class of errors that users see as one paragraph, without a traceback.

    Messages quote other libraries' errors, which quote URLs. Possible credentials are removed from every message.
    """

    exit_status = EXIT_STAGE

    def __init__(self, *args: object) -> None:
        super().__init__(*(cleaned(a) if isinstance(a, str) else a for a in args))


class ConfigError(VtcavError):
    """A key, a value or an argument is wrong. The message names it, what is allowed, and how to fix it."""

    exit_status = EXIT_CONFIG


class RefusedURL(ConfigError):
    """A URL may not be read: the URL or its redirect is not allowed, or its body exceeds the limit of size or time.

    Args:
        kind: `refused`, `too_large` or `timeout`, as in `InputError.kind`.
        message: one sentence that names the URL and how to fix it.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[RefusedURL], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class StageError(VtcavError):
    """A stage could not be completed. The message says what to fix; the next `run` resumes from there."""

    exit_status = EXIT_STAGE


class EnvironmentFault(StageError):
    """A stage could not be completed because of its environment: no cluster, or storage refuses, is full or is silent.

    Neither videos nor model are to blame and the fault may pass, so no input is marked as bad.
    """


class InputError(VtcavError):
    """One video or clip can't be used.

    Args:
        kind: a short, stable word for counting: `empty`, `not_video`, `no_video_stream`, `encrypted`, `truncated`,
            `too_short`, `too_large`, `decode`, `annotation` (given tracks that can't be read, or do not fit the
            video), `missing`, `changed`, `permission`, `unreadable`, `refused` (its address may not be read), `label`,
            `non_finite`, `no_track`, `no_mask`, `memory`, `timeout`, `crashed`.
        message: one sentence for people; it names the problem and, if there is one, the fix.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = cleaned(message)

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str]]:
        return type(self), (self.kind, self.message)
