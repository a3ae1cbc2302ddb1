"""The scores of many edits as tables: one row an edit, means by edit type, and the published rows above ours."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from insvie_lightning.errors import InputError
from insvie_lightning.files import read_json
from insvie_lightning.report.published import EDITS, TITLES, Dataset, notes, other_model, published_rows
from insvie_lightning.report.values import counted, number, show

SCORES, TASKS, SHEET = "scores.csv", "tasks.csv", "score_table.json"
ALL, UNKNOWN = "all", "unknown"
OURS, SOURCE = "this run", "source"


@dataclass(frozen=True, slots=True)
class ScoredEdit:
    """The values of one edit.

    Attributes:
        key: Of the sample.
        edit_type: What means are grouped by; empty if unknown.
        instruction: The sentence.
        shape: Frames, height and width in pixels of the edit as it was scored; None where there is no edit.
        values: Column -> value; nan and what is absent are missing.
    """

    key: str
    edit_type: str
    instruction: str
    shape: tuple[int, int, int] | None
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as it is shown; the first cell of each row is its name."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ScoreSheet:
    """What a test found.

    Attributes:
        title: Of what, and of how many edits.
        published: Published methods, then this run; None where nothing is published.
        tasks: A row a metric that has any value, a column an edit type.
        notes: What the numbers may be compared with.
    """

    title: str
    published: Grid | None
    tasks: Grid
    notes: tuple[str, ...]


def mean_by_type(edits: Sequence[ScoredEdit], columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return edit type -> column -> mean of the values that there are (nan of none); `all` comes last.

    Args:
        edits: Of any types; one of no type counts as `unknown` where others have one.
        columns: Which values.
    """
    types = dict.fromkeys(edit.edit_type or UNKNOWN for edit in edits)
    groups = {} if list(types) == [UNKNOWN] else {name: [e for e in edits if _type(e) == name] for name in types}
    return {
        name: {column: _mean(edit.values.get(column, math.nan) for edit in group) for column in columns}
        for name, group in {**groups, ALL: list(edits)}.items()
    }


def write_scores(folder: Path, edits: Sequence[ScoredEdit], columns: Sequence[str]) -> None:
    """Write `scores.csv`, a row an edit, and `tasks.csv`, a row an edit type; a missing value is an empty cell."""
    head = ("key", "edit_type", "instruction", "frames", "height", "width")
    rows = [
        [edit.key, edit.edit_type, edit.instruction, *(edit.shape or ("",) * 3), *_cells(edit.values, columns)]
        for edit in edits
    ]
    _write(folder / SCORES, _csv([*head, *columns], rows))
    means = mean_by_type(edits, columns)
    members = {name: [edit for edit in edits if name in (ALL, _type(edit))] for name in means}
    missing = {name: sum(edit.shape is None for edit in group) for name, group in members.items()}
    tasks = [[name, len(members[name]), missing[name], *_cells(means[name], columns)] for name in means]
    _write(folder / TASKS, _csv(["edit_type", "edits", "missing", *columns], tasks))


def make_sheet(
    edits: Sequence[ScoredEdit], columns: Sequence[str], dataset: Dataset | None, models: Mapping[str, str]
) -> ScoreSheet:
    """Make the tables to show.

    Args:
        edits: All of the test.
        columns: Which values, in their order.
        dataset: Whose published rows to show.
        models: Column -> the model that gave it, where there is one.
    """
    means = mean_by_type(edits, columns)
    counts = {name: sum(name in (ALL, _type(edit)) for edit in edits) for name in means}
    missing = sum(edit.shape is None for edit in edits)
    known = [column for column in columns if not math.isnan(means[ALL][column])]
    tasks = Grid(
        ("", *(f"{name} ({number(counts[name])})" for name in means)),
        tuple((column, *(_show(column, mean[column]) for mean in means.values())) for column in known),
    )
    said = notes(known)
    shapes = sorted({edit.shape for edit in edits if edit.shape})
    if shapes:
        ranges = (_range(sizes) for sizes in zip(*shapes, strict=True))
        said.append("scored at {} frames of {} x {}".format(*ranges))
    if missing:
        said.append(f"{number(missing)} of {number(len(edits))} edits are missing and left out of every mean")
    title, published = counted(len(edits), "edit"), None
    if dataset:
        published, warnings = _beside_published(dataset, means[ALL], models)
        title = f"{TITLES[dataset]}, {title}"
        if len(edits) - missing != EDITS[dataset]:
            warnings.insert(0, f"published means are of all {number(EDITS[dataset])} edits, these are not")
        said = warnings + said
    return ScoreSheet(title, published, tasks, tuple(said))


def write_sheet(folder: Path, sheet: ScoreSheet) -> None:
    """Keep the tables as they are shown, for the page of the run."""
    _write(folder / SHEET, json.dumps(asdict(sheet), indent=1, ensure_ascii=False))


def read_sheet(folder: Path) -> ScoreSheet | None:
    """Return the tables of a run's folder; None where there are none.

    Raises:
        InputError: The file is not what `write_sheet` writes.
    """
    path = folder / SHEET
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        published = content["published"]
        return ScoreSheet(
            title=str(content["title"]),
            published=None if published is None else _grid(published),
            tasks=_grid(content["tasks"]),
            notes=tuple(str(note) for note in content["notes"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no table of scores as a test writes it: {error!r}") from None


def _beside_published(dataset: Dataset, ours: Mapping[str, float], models: Mapping[str, str]) -> tuple[Grid, list[str]]:
    rows = published_rows(dataset)
    columns = list(dict.fromkeys(column for row in rows for column in row.scores))
    others = {column: other_model(column, models.get(column, "")) for column in columns if column in ours}
    marks = {column: "*" if others.get(column) else "" for column in columns}
    cells = [_show(column, ours[column]) + marks[column] if column in ours else "" for column in columns]
    listed = [(row.method, *(row.scores.get(column, "") for column in columns), row.source) for row in rows]
    grid = Grid(("", *columns, SOURCE), (*listed, (OURS, *cells, "")))
    return grid, [
        f"* {column} is by {models.get(column) or 'an unnamed model'}, the published numbers by {other}"
        for column, other in others.items()
        if other
    ]


def _type(edit: ScoredEdit) -> str:
    return edit.edit_type or UNKNOWN


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _cells(values: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    cells = (values.get(column, math.nan) for column in columns)
    return ["" if math.isnan(value) else repr(float(value)) for value in cells]


def _show(column: str, value: float) -> str:
    return "" if math.isnan(value) else show(column, value)


def _range(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low} to {high}"


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _grid(content: Any) -> Grid:
    return Grid(tuple(map(str, content["columns"])), tuple(tuple(map(str, row)) for row in content["rows"]))
