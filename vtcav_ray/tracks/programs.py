"""Files of a config that are programs: which may run."""

from __future__ import annotations

import logging

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.store.urls import scheme_of
from vtcav_ray.text.url_text import shown

logger = logging.getLogger(__name__)


def check_may_run(config: TracksConfig, key: str, url: str, what: str, instead: str) -> None:
    """Check that a program may run: it must lie on this machine and be named by the user, or be trusted.

    Args:
        key: of the config, for the message.
        url: of the file.
        what: it is, with its article.
        instead: a file that is no program and does as well.

    Raises:
        ConfigError: it may not.
    """
    on_url = "://" in url and scheme_of(url) not in ("file", "local")
    if config.code == "nowhere" or (on_url and config.code != "anywhere"):
        place = "named by the record of a run (run.json)" if config.code == "nowhere" else "on a URL"
        raise ConfigError(
            f"`{key}`: {url} is {what}, which is compiled code, and it is {place}. Give --trust-code if you trust it, "
            f"or {instead}."
        )
    logger.info("%s is %s, and is run", shown(url), what)
