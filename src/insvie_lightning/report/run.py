"""What a run left in its folder: metrics, results, samples, configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insvie_lightning.errors import InputError
from insvie_lightning.files import read_json
from insvie_lightning.report.curves import Metrics, last_step, read_metrics
from insvie_lightning.report.media import Budget, Gallery, Sample, preview
from insvie_lightning.report.score_sheet import SHEET, ScoreSheet, read_sheet
from insvie_lightning.report.values import is_share, number, show, title

BASELINES = {
    "source_": "unedited source",
    "copy_": "copy of the source",
    "untrained_": "untrained",
    "wrong_text_": "wrong text",
    "no_source_": "no source",
}
PARTS = ("source", "edited", "target")
MAX_SAMPLES = 12
MAX_EARLIER = 4


@dataclass(frozen=True, slots=True)
class Cell:
    """A value as shown, empty where the run has none, and the length of its bar in percent where it is a share."""

    text: str = ""
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """The results of a run: those with baselines as a table, the rest as pairs.

    Attributes:
        columns: `edited`, then the baselines that occur.
        rows: Title of the score and one cell per column.
        others: Title and value of what has no baseline.
    """

    run: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    others: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder as it was read.

    Attributes:
        name: Of the folder.
        metrics: Columns of `metrics.csv`.
        summary: Content of `summary.json`.
        config: Text of `config.yaml`.
        steps: Folders of samples, the latest first.
        sheet: The tables that a test's `ScoreTable` wrote.
    """

    name: str
    metrics: Metrics
    summary: Mapping[str, float | str]
    config: str
    steps: tuple[Path, ...]
    sheet: ScoreSheet | None = None


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds anything that a run leaves and a page can show."""
    return any((folder / name).is_file() for name in ("metrics.csv", "summary.json", SHEET)) or bool(
        _sample_steps(folder)
    )


def read_run(folder: Path) -> Run:
    """Read a run folder, all but its samples; what is missing is empty.

    Raises:
        InputError: A file of it is broken.
    """
    metrics, config = folder / "metrics.csv", folder / "config.yaml"
    summary = _read_json(folder / "summary.json", dict)
    return Run(
        name=folder.name,
        metrics=read_metrics(metrics) if metrics.is_file() else {},
        summary={name: value for name, value in summary.items() if isinstance(value, int | float | str)},
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        steps=_sample_steps(folder),
        sheet=read_sheet(folder),
    )


def steps_made(run: Run) -> int:
    """Return how many optimizer steps a run made: one more than the last that was logged, since the first is 0.

    The last step that was logged may be an earlier one than the last that was made, which the summary has.
    """
    told = run.summary.get("steps", 0)
    return max(last_step(run.metrics) + 1, 0 if isinstance(told, str) else int(told))


def scores(run: Run) -> Scores:
    """Sort the summary: a name with a baseline's prefix stands beside the same name without."""
    prefixes = [prefix for prefix in BASELINES if any(name.startswith(prefix) for name in run.summary)]
    rows, others = [], []
    for name in dict.fromkeys(_without_prefix(name) for name in run.summary):
        values = [run.summary.get(prefix + name) for prefix in ("", *prefixes)]
        if any(value is not None for value in values[1:]):
            rows.append((title(name), tuple(_cell(name, value) for value in values)))
        else:
            others.append((title(name), show(name, values[0])))
    columns = ("edited", *(BASELINES[prefix] for prefix in prefixes))
    return Scores(run.name, columns, tuple(rows), tuple(others))


def galleries(run: Run, budget: Budget) -> list[Gallery]:
    """Return the latest samples, then a few of some earlier steps, as far as the budget goes."""
    if not run.steps:
        return []
    latest, *earlier = run.steps
    stride = max(1, -(-len(earlier) // MAX_EARLIER))
    shown = [(latest, MAX_SAMPLES), *((folder, MAX_EARLIER) for folder in earlier[::stride])]
    return [_gallery(run.name, folder, limit, budget) for folder, limit in shown]


def _gallery(run: str, folder: Path, limit: int, budget: Budget) -> Gallery:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.mp4"))}
    listed = _read_json(folder / "samples.json", list) or [{"key": key} for key in _keys(files)]
    step = int(folder.name.removeprefix("step-"))
    samples = budget.take(_sample(entry, files, folder / "samples.json") for entry in listed[:limit])
    return Gallery(f"{run}, step {number(step)}", samples, len(listed))


def _sample(entry: Any, files: Mapping[str, Path], path: Path) -> Sample:
    key, values = (entry.get("key"), entry.get("scores", {})) if isinstance(entry, dict) else (None, None)
    if not (isinstance(key, str) and isinstance(values, dict)):
        raise InputError(f"{path}: an entry is not {{key: text, instruction: text, scores: {{name: number}}}}")
    # Only names that the folder lists are opened, so a key cannot point outside it.
    clips = {part: files[f"{key}.{part}.mp4"] for part in PARTS if f"{key}.{part}.mp4" in files}
    return Sample(
        key=key,
        instruction=str(entry.get("instruction", "")),
        clips={part: preview(clip, clip.name) for part, clip in clips.items()},
        scores={title(name): show(name, value) for name, value in values.items()},
    )


def _keys(files: Mapping[str, Path]) -> list[str]:
    return list(dict.fromkeys(name.split(".")[0] for name in files))


def _sample_steps(folder: Path) -> tuple[Path, ...]:
    steps = [path for path in folder.glob("samples/step-*") if path.name.removeprefix("step-").isdecimal()]
    return tuple(sorted(steps, key=lambda path: int(path.name.removeprefix("step-")), reverse=True))


def _cell(name: str, value: float | str | None) -> Cell:
    if value is None:
        return Cell()
    return Cell(show(name, value), 100 * value if not isinstance(value, str) and is_share(name, value) else None)


def _without_prefix(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in BASELINES if name.startswith(prefix)), name)


def _read_json(path: Path, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    """Return the content of a JSON file, an empty one where there is none."""
    if not path.is_file():
        return kind()
    return read_json(path, kind)
