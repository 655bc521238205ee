"""Formats for numbers and lists. Templates use these functions as filters of the same names."""

from __future__ import annotations

import math


def signed(value: float) -> str:
    """Write an effect with its sign.

    Use two decimals, two significant digits below 0.095, and no decimals from 1000 on. Below 0.00001, use an exponent:
    an early layer's effect can be that small and still significant, so only zero is written as zero. NaN and infinity
    give an en dash.
    """
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size == 0:
        return "0.00"
    if size < 0.00001:
        digits, exponent = f"{value:+.1e}".split("e")
        return f"{digits}e{int(exponent)}".replace("-", "−")
    decimals = 0 if size >= 1000 else 2 if size >= 0.095 else min(6, 1 - math.floor(math.log10(size)))
    return f"{value:+,.{decimals}f}".replace("-", "−")


def probability(value: float) -> str:
    """Write a p or q value."""
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def equals(value: float) -> str:
    """Write a p or q value with its relation sign: `= 0.003`, `< 0.001`."""
    text = probability(value)
    return text if text.startswith("<") else f"= {text}"


def share(value: float) -> str:
    """Write a number in [0, 1]."""
    return f"{value:.2f}" if math.isfinite(value) else "–"


def percent(value: float) -> str:
    """Write a share of any size and sign as a percentage: `14 %`, `0.4 %`, `−3.0 %`; one decimal below 10 %."""
    if not math.isfinite(value):
        return "–"
    return f"{100 * value:.{1 if abs(value) < 0.0995 else 0}f}\u00a0%".replace("-", "−")


def whole(value: float) -> str:
    """Write a number without decimals: `12,346`."""
    return f"{value:,.0f}" if math.isfinite(value) else "–"


def metric(value: float) -> str:
    """Write a metric: without decimals if it is whole or at least 1000, else with four digits."""
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.4g}"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: `1 cell`, `2 cells`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def rate(number: float, seconds: float | None) -> str:
    """Write items per second."""
    if not seconds or not number:
        return "–"
    value = number / seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Write a duration: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(number: float) -> str:
    """Write a number of bytes, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def between(items: int, *, more: bool) -> list[str]:
    """Return the separator after each of `items` names in a list. `more`: further text follows the last name."""
    last = " and " if more else ""
    return ["" if k == items - 1 and not more else last if k == items - 1 else ", " for k in range(items)]


def layer_and_places(layer: str) -> tuple[str, str]:
    """Split `early@moving` into (`early`, `where things move`); any other layer into (its name, ``)."""
    name, _, projection = layer.partition("@")
    places = {"moving": "where things move", "still": "where nothing moves"}.get(projection)
    return (name, places) if places else (layer, "")
