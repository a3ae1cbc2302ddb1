"""How numbers are shown: the unit is read from the end of the name, as the project's names carry it."""

from __future__ import annotations

import math

SHARES = ("_accuracy", "_share")
ACRONYMS = ("psnr", "ssim", "epe", "clip", "lpips", "mse", "fvd")
UNITS = {
    "_db": " dB",
    "_ms": " ms",
    "_mib": " MiB",
    "_px": " px",
    "_per_second": " /s",
    "_seconds": " s",
    "_fps": " fps",
}


def show(name: str, value: object) -> str:
    """Return a value for the reader: `0.971` of a name in `_accuracy` is `97.1 %`, of one in `_db` is `0.971 dB`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if is_share(name, value):
        return f"{100 * value:.3g} %"
    unit = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
    return number(value) + unit


def is_share(name: str, value: float) -> bool:
    """Tell whether a value in 0..1 is a part of a whole."""
    return name.endswith(SHARES) and 0 <= value <= 1


def number(value: float) -> str:
    """Return four significant digits, or all digits of a whole number, in groups of three."""
    if not math.isfinite(value):
        return str(value)
    if value == round(value) and abs(value) < 1e15:
        return f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:,.1f}".replace(",", "\N{NARROW NO-BREAK SPACE}") if abs(value) >= 1000 else f"{value:.4g}"


def counted(count: int, noun: str) -> str:
    """Return `1 shard`, `2 shards`."""
    return f"{number(count)} {noun}{'s' * (count != 1)}"


def title(name: str) -> str:
    """Return a name for a heading: `psnr_db` is `PSNR`, without the unit that `show` adds."""
    for ending in UNITS:
        if ending != "_per_second":
            name = name.removesuffix(ending)
    return " ".join(word.upper() if word in ACRONYMS else word for word in name.split("_"))
