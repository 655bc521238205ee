"""Output of `vtcav plan` and `vtcav run --dry-run`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vtcav_ray.cli.preflight import preflight_json, print_preflight
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.pages.wording import duration, size
from vtcav_ray.planning.counts import Range
from vtcav_ray.planning.dry_run import PlannedStage, check, dry_run
from vtcav_ray.planning.estimate import Plan, estimate
from vtcav_ray.planning.sample import measure
from vtcav_ray.store.folder import Folder


def plan(config: Config, *, sample: int, rates: Sequence[str], as_json: bool, console: Console) -> None:
    """Measure `sample` videos and print the estimated cost of the whole run.

    Raises:
        ConfigError: a rate that can't be read.
    """
    from vtcav_ray.models import describe, with_layers
    from vtcav_ray.planning.dry_run import corpus, own_clips

    chosen = read_rates(rates, config)
    config = with_layers(config)
    videos = corpus(config)
    if not as_json:
        console.print(
            f"{videos.num_rows:,} videos. Measuring {min(sample, videos.num_rows)} of them ...", highlight=False
        )
    known = describe(config.model, seed=config.seed).class_names
    given = own_clips(config, videos, Folder(config.run_url, config.out_storage_options))
    found = estimate(config, videos, measure(config, videos, sample, given), known, chosen, given)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
    else:
        print_plan(found, console)


def print_plan(found: Plan, console: Console) -> None:
    """Print a plan: its stages as a table, then its totals and notes."""
    console.print(_plan_table(found))
    for line in plan_sentences(found):
        console.print(Text(line), soft_wrap=True)


def read_rates(rates: Sequence[str], config: Config) -> dict[str, object]:
    """Parse `gpu=2.5`, `cpu=0.04`, `currency=EUR`. They override the config's `resources.rates`.

    Raises:
        ConfigError: another name, or not a number.
    """
    found: dict[str, object] = config.resources.rates.model_dump()
    for text in rates:
        name, _, value = text.partition("=")
        if name == "currency" and value:
            found["currency"] = value
            continue
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in ("gpu", "cpu") or not number >= 0:
            raise ConfigError(f"--rate {text!r}: write gpu=PRICE or cpu=PRICE (per hour) or currency=NAME.")
        found[f"{name}_hour"] = number
    return found


def plan_sentences(found: Plan) -> list[str]:
    """Return the main figures as sentences."""
    share = {name: s.estimate for name, s in found.worker_seconds.items()}
    part = share[found.dominates] / (sum(share.values()) or 1)
    price = (
        "no price: give --rate gpu=..., --rate cpu=..., or resources.rates"
        if found.price is None
        else f"{_range(found.price, _money)} {found.currency}"
    )
    return [
        f"CPU hours {_range(found.cpu_hours, lambda v: f'{v:,.3g}')}, "
        f"GPU hours {_range(found.gpu_hours, lambda v: f'{v:,.3g}')}, "
        f"stored {_range(found.bytes, size)}; {price}.",
        f"`{found.dominates}` dominates: {part:.0%} of the workers' time.",
        *found.notes,
    ]


def _money(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.2g}"


def _plan_table(found: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("stage")
    table.add_column("how many", justify="right")
    table.add_column("workers' time", justify="right")
    table.add_column("about 95 % of the time between", justify="right")
    clips = _range(found.clips, lambda v: f"{v:,.0f}") + " clips"
    many = {
        "tracks": f"{found.videos:,} videos",
        "clips": clips,
        "activations": f"{clips}, {found.gradients.estimate:,.0f} gradients",
        "responses": _range(found.passes, lambda v: f"{v:,.0f}") + " passes",
        "cavs": f"{found.cavs:,} CAVs",
        "scores": f"{found.cells:,} comparisons",
    }
    for name, seconds in found.worker_seconds.items():
        between = f"{duration(seconds.low)} and {duration(seconds.high)}"
        table.add_row(name, many[name], duration(seconds.estimate), between)
    return table


def _range(value: Range, words: object) -> str:
    assert callable(words)
    low, middle, high = (words(v) for v in (value.low, value.estimate, value.high))
    return str(middle) if low == middle == high else f"{middle} ({low} to {high})"


def print_dry_run(config: Config, *, until: str | None, fresh: bool, as_json: bool, console: Console) -> None:
    """Print the preflight, and what `vtcav run` with the same options would do now, stage by stage.

    Raises:
        typer.Exit: with the run's exit status, if a row of the preflight would stop it.
        VtcavError: with `as_json`, the run's error instead.
    """
    found = check(config, until=until)
    stages = [] if found.stops else dry_run(config, until=until, fresh=fresh)
    if as_json:
        print(json.dumps({"out": config.run_url, "stages": [dataclasses.asdict(stage) for stage in stages],
                          **preflight_json(found)}))  # fmt: skip
        found.stop()
        return
    console.print(f"Run folder: {config.run_url}", soft_wrap=True, highlight=False, markup=False)
    print_preflight(found, console)
    if found.stops:  # the rows above say why
        console.print("The run can't start. Nothing was run.", style="bold red")
        raise typer.Exit(found.exit_status)
    for stage in stages:
        console.print(_line(stage), soft_wrap=True)
    console.print("Nothing was run. `vtcav plan` estimates the cost.")


def _line(stage: PlannedStage) -> Text:
    return Text.assemble((f"{stage.name:<12}", "bold"), f" {stage.state}")
