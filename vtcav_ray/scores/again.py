"""Choose cells of a finished run, and check that the config and the model are still the run's."""

from __future__ import annotations

from typing import Any

from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.models import describe
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.choose import CellKey, Wanted, choose

# Sections in which the command's config may differ from the run's: they do not change which clips a cell compares.
_FREE = {"model", "scores", "resources", "out", "out_storage_options"}


def choose_again(run: Run, config: Config, wanted: Wanted) -> tuple[CellKey, ...]:
    """Return the wanted cells of a run's scores in one order, however they were chosen: by layer, then by name.

    Args:
        run: a run with finished scores.
        config: the run's, which may have other `resources`, `scores` and addresses of the same model.
        wanted: the cells.

    Raises:
        ConfigError: no such cell, another model than the run's, another config, or a run whose cells choose clips by
            their label.
    """
    _check_config(run, config)
    if chosen := run.config.clips.chosen_labels:
        raise ConfigError(
            f"The run has clips.{chosen}: {getattr(run.config.clips, chosen)}, and this command compares clips of any "
            f"label. Use a run with clips.{chosen}: any; it uses the same clips and activations."
        )
    cells = choose(run, wanted)
    tag, now = run.manifest("activations")["notes"]["model"], describe(config.model, seed=config.seed).tag
    if now != tag:
        raise ConfigError(
            f"The run was made with the model {tag}, and {config.model.checkpoint} is now {now}. Restore the old "
            "weights, or run again."
        )
    place = {layer: i for i, layer in enumerate(config.activations.layers)}
    return tuple(sorted(cells, key=lambda cell: (place[cell.layer], cell)))


def _check_config(run: Run, config: Config) -> None:
    own, given = (_compared(one) for one in (run.config, config))
    if other := [name for name in own if own[name] != given[name]]:
        raise ConfigError(
            f"`{other[0]}` differs from the run's. --set can change {', '.join(sorted(_FREE))} here, and nothing else: "
            "the rest determines the run's tables. Start another run for that."
        )


def _compared(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=_FREE)
