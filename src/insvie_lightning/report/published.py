"""Published scores, and what ours may be compared with."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Dataset = Literal["tgve", "tgve_plus"]
TITLES: dict[Dataset, str] = {"tgve": "TGVE", "tgve_plus": "TGVE+"}
EDITS: dict[Dataset, int] = {"tgve": 304, "tgve_plus": 1417}
"""How many edits a published mean is of: 76 videos x 4, and the rows of TGVE+ (VideoCoF, supplement)."""
MODELS = {
    "clip_frame": "clip-vit-large-patch14",
    "clip_text": "clip-vit-large-patch14",
    "pick_score": "PickScore_v1",
}
"""Column -> the model behind its published numbers (TGVE's `run_eval.py`); which ViCLIP it was no paper says."""
NOTES = (
    (
        ("clip_frame", "clip_text", "pick_score"),
        "comparable with the tables of EVE, InstructVEdit and InsViE, which share TGVE's public script, if taken of "
        "all edits at 480 x 480",
    ),
    (
        ("viclip",),
        "comparable only approximately, since no paper says how ViCLIP's pixels were prepared and its frames chosen",
    ),
    (
        ("clip_temporal",),
        "V2VBench's definition; the CLIP temporal of TGVE's tables is clip_frame",
    ),
    (
        ("epe",),
        "in pixels, so comparable only with runs by the same flow network at the same size and number of frames "
        "(V2VBench: GMFlow)",
    ),
    (
        ("dover",),
        "comparable only with values by the same code at the same size and number of frames; of clips of less than 32 "
        "frames the aesthetic branch sees the first one only",
    ),
    (("judge",), "not comparable across judges"),
    (
        ("source_",),
        "the unedited source's own value: what an editor gets that changes nothing",
    ),
)
"""Beginnings of columns, and what is to be said of them (`docs/evaluation.md`)."""


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A method's published scores.

    Attributes:
        method: Its name.
        source: Papers and tables.
        scores: Column -> value as printed there.
    """

    method: str
    source: str
    scores: Mapping[str, str]


def published_rows(dataset: Dataset) -> list[PublishedRow]:
    """Return the published rows of a data set in the order in which they are shown, InsViE last."""
    assert dataset in get_args(Dataset)
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return [
            PublishedRow(row.pop("method"), row.pop("source"), {name: text for name, text in row.items() if text})
            for row in csv.DictReader(file)
            if row.pop("dataset") == dataset
        ]


def notes(columns: Iterable[str]) -> list[str]:
    """Return what is to be said of columns, those of one sentence together."""
    named = [(sentence, [name for name in columns if name.startswith(starts)]) for starts, sentence in NOTES]
    return [f"{', '.join(names)}: {sentence}" for sentence, names in named if names]


def other_model(column: str, model: str) -> str:
    """Return the model behind a column's published numbers where `model`, a path or a hub id, is another; else ''."""
    expected = MODELS.get(column, "")
    return expected if expected and model.rstrip("/").rpartition("/")[2] != expected else ""
