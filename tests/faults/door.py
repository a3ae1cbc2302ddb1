"""A way by which files come in, and what came through it."""

import contextlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from insvie_lightning.batch import Clip
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError

Between = Callable[[], None]
"""Called when everything is listed and nothing is read yet."""
NAMES = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Found:
    """What came through a door: the keys that are good, and key -> reason of those set aside."""

    good: set[str]
    bad: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Door:
    """A way in.

    Attributes:
        kind: Kind of the spoilt file, one of `corrupter.DAMAGES`.
        name: What the user does.
        fill: Lays good files into a folder that is not there yet; of real files, `fill(folder, real)`.
        victim: The file to spoil.
        use: Does what a user does with the folder.
        neighbours: Keys that come through whatever is done to the victim.
        shared: Whether the others hang on the victim, as the rows on their table: then all may be refused.
        refused: Faults for which all may be refused, though nothing hangs on the victim.
        legal: Faults that are none here.
        files: Who made the good files: this project, or the world.
    """

    kind: str
    name: str
    fill: Callable[..., None]
    victim: str
    use: Callable[[Path, Between], Found]
    neighbours: frozenset[str] = frozenset()
    shared: bool = False
    refused: frozenset[str] = frozenset()
    legal: frozenset[str] = frozenset()
    files: Literal["toy", "real"] = "toy"


def clip(number: int = 0, frames: int = 9, size: tuple[int, int] = (32, 48)) -> Clip:
    """A moving gradient."""
    height, width = size
    pixels = np.zeros((frames, 3, height, width), np.uint8)
    pixels[:, 0] = 5 * np.arange(width) % 256
    pixels[:, 1] = 7 * np.arange(height)[:, None] % 256
    pixels[:, 2] = (25 * (np.arange(frames) + number) % 256)[:, None, None]
    return Clip(pixels, 8.0)


def from_inputs(data: Any, between: Between) -> Found:
    """What a builder is fed."""
    inputs = data.inputs()
    between()
    read = [inputs[number] for number in range(len(inputs.keys))]
    bad = {each.sample.key: each.bad for each in read if each.bad}
    return Found({each.sample.key for each in read if not each.bad}, bad)


def from_loader(loader: Iterable[Any], between: Between) -> Found:
    """What an editor is fed; without a trainer, what is bad is listed where the process is."""
    from insvie_lightning.quarantine import read_quarantine

    between()
    good = {key for batch in loader for key in batch.keys}
    return Found(good, read_quarantine(Path("quarantine-data-rank0.jsonl")))


def command(*arguments: str) -> Found:
    """Run `insvie`; exit 2 with `error: SENTENCE` is a refusal."""
    said, shown = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
        status = main(arguments)
    lines = said.getvalue().strip().splitlines()
    if status == 2:
        assert lines[-1].startswith("error: ") and "Traceback" not in said.getvalue(), said.getvalue()
        raise InputError(lines[-1].removeprefix("error: "))
    problems = {line: line for line in shown.getvalue().splitlines()} if status else {}
    return Found(set(), problems)
