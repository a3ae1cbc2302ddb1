"""Scores of edits as tables."""

import csv
import json
import math
from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.report.score_sheet import (
    ScoredEdit,
    make_sheet,
    mean_by_type,
    read_sheet,
    write_scores,
    write_sheet,
)

SHAPE = (32, 480, 480)
EDITS = [
    ScoredEdit("a", "style", "paint it", SHAPE, {"clip_frame": 0.5, "psnr_db": 10.0}),
    ScoredEdit("b", "object", 'a "dog", please', SHAPE, {"clip_frame": 0.75, "psnr_db": math.nan}),
    ScoredEdit("c", "style", "draw it", (25, 480, 480), {"clip_frame": 1.0, "psnr_db": 30.0}),
    ScoredEdit("d", "object", "gone", None, {}),
]
COLUMNS = ("clip_frame", "psnr_db")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_means_leave_out_what_is_missing() -> None:
    means = mean_by_type(EDITS, COLUMNS)
    assert list(means) == ["style", "object", "all"]
    assert means["style"] == {"clip_frame": 0.75, "psnr_db": 20.0}
    assert means["object"]["clip_frame"] == 0.75 and math.isnan(means["object"]["psnr_db"])
    assert means["all"] == {"clip_frame": 0.75, "psnr_db": 20.0}


def test_edits_without_types_make_one_row_and_some_without_are_unknown() -> None:
    plain = [ScoredEdit("a", "", "x", SHAPE, {"psnr_db": 1.0})]
    assert list(mean_by_type(plain, COLUMNS)) == ["all"]
    assert list(mean_by_type([*plain, EDITS[0]], COLUMNS)) == ["unknown", "style", "all"]


def test_the_files_hold_every_edit_and_every_type(tmp_path: Path) -> None:
    write_scores(tmp_path / "run", EDITS, COLUMNS)
    edits, tasks = rows(tmp_path / "run/scores.csv"), rows(tmp_path / "run/tasks.csv")
    assert [list(row.values()) for row in edits] == [
        ["a", "style", "paint it", "32", "480", "480", "0.5", "10.0"],
        ["b", "object", 'a "dog", please', "32", "480", "480", "0.75", ""],
        ["c", "style", "draw it", "25", "480", "480", "1.0", "30.0"],
        ["d", "object", "gone", "", "", "", "", ""],
    ]
    assert [list(row.values()) for row in tasks] == [
        ["style", "2", "0", "0.75", "20.0"], ["object", "2", "1", "0.75", ""], ["all", "4", "1", "0.75", "20.0"],
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["scores.csv", "tasks.csv"]


def test_the_published_rows_stand_above_ours_with_what_keeps_them_apart() -> None:
    models = {"clip_frame": "toy"}
    sheet = make_sheet(EDITS, COLUMNS, "tgve", models)
    assert sheet.title == "TGVE, 4 edits" and sheet.published is not None
    assert sheet.published.columns == (
        "",
        "pick_score",
        "clip_frame",
        "viclip_dir",
        "viclip_out",
        "clip_text",
        "source",
    )
    *_, paper, ours = sheet.published.rows
    assert paper == ("InsViE", "20.90", "0.941", "0.242", "0.278", "", "InsViE Table 6")
    assert ours == ("this run", "", "0.75*", "", "", "", "")
    first, second, *others = sheet.notes
    assert first == "published means are of all 304 edits, these are not"
    assert second.startswith("* clip_frame is by toy, the published numbers by clip-vit-large-patch14")
    assert "scored at 25 to 32 frames of 480 x 480" in others
    assert "1 of 4 edits are missing and left out of every mean" in others
    assert make_sheet(EDITS, (*COLUMNS, "absent"), None, {}).tasks == sheet.tasks
    assert sheet.tasks.columns == ("", "style (2)", "object (2)", "all (4)")
    assert sheet.tasks.rows == (("clip_frame", "0.75", "0.75", "0.75"), ("psnr_db", "20 dB", "", "20 dB"))


def test_all_edits_by_the_published_model_need_no_warning() -> None:
    edits = [ScoredEdit(str(i), "style", "x", SHAPE, {"clip_frame": 0.9}) for i in range(304)]
    sheet = make_sheet(edits, ("clip_frame",), "tgve", {"clip_frame": "openai/clip-vit-large-patch14"})
    assert sheet.published is not None and sheet.published.rows[-1][2] == "0.9"
    assert [note.partition(":")[0] for note in sheet.notes] == ["clip_frame", "scored at 32 frames of 480 x 480"]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert read_sheet(tmp_path) is None
    for dataset in ("tgve_plus", None):
        sheet = make_sheet(EDITS, COLUMNS, dataset, {})  # type: ignore[arg-type]
        write_sheet(tmp_path, sheet)
        assert read_sheet(tmp_path) == sheet


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", json.dumps({"title": "", "published": 3, "tasks": {}, "notes": []})]
)
def test_a_broken_table_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "score_table.json").write_text(content)
    with pytest.raises(InputError, match=r"score_table\.json is no table of scores"):
        read_sheet(tmp_path)
