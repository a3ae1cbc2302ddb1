"""The composition of a data set: counts, sizes and means by origin, told and written."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.composition import Part, as_table, read_composition, write_composition
from insvie_lightning.shards.write import ShardWriter


@pytest.fixture
def composed(tmp_path: Path, make_triplet: Callable[..., Triplet]) -> tuple[Part, ...]:
    sizes = [[1080, 1920], [720, 1280], [1080, 1920]]
    with ShardWriter(tmp_path / "set", lossless=True) as writer:
        for index, size in enumerate(sizes):
            scores = {"judge": index + 2.0, "epe_px": index / 2} if index else {"epe_px": 0.0}
            lineage = {"RawVideos": {"file": "a.mp4", "source_size": size}, "filter": {}}
            writer.write(make_triplet(f"r{index}", scores=scores, lineage=lineage))
        writer.write(make_triplet("s", origin="static", scores={"judge": 5.0}))
        writer.reject("bad", "judge 1 is below 3", scores={"judge": 1.0, "epe_px": 9.0})
    return read_composition(tmp_path / "set")


def test_a_part_for_each_origin_and_for_all_accepted_samples(composed: tuple[Part, ...]) -> None:
    assert composed == (
        Part("real", 3, "1080 x 1920 (67%)", "32 x 48", 3.5, 0.5),
        Part("pair", 0, "", "", None, None),
        Part("static", 1, "", "32 x 48", 5.0, None),
        Part("all", 4, "1080 x 1920 (67%)", "32 x 48", 4.0, 0.5),
    )


def test_scores_that_no_sample_has_are_empty(tmp_path: Path, make_triplet: Callable[..., Triplet]) -> None:
    with ShardWriter(tmp_path / "set", lossless=True) as writer:
        writer.write(make_triplet("a"))
    assert read_composition(tmp_path / "set")[0] == Part("real", 1, "", "32 x 48", None, None)


def test_of_sizes_that_are_as_common_the_smallest_is_told(tmp_path: Path) -> None:
    sizes = [(height, width) for height in (96, 64, 128) for width in (80, 48)]
    with ShardWriter(tmp_path) as writer:
        for number, (height, width) in enumerate(sizes * 2):
            writer.write_members({"key": f"s{number}", "scores": {}, "height": height, "width": width}, {})
    assert read_composition(tmp_path)[-1].output_size == "64 x 48 (17%)"


def test_it_is_written_as_csv_and_as_json(composed: tuple[Part, ...], tmp_path: Path) -> None:
    for suffix in ("csv", "json"):
        write_composition({"a": composed, "b": composed[:1]}, tmp_path / "new" / f"it.{suffix}")
    rows = json.loads((tmp_path / "new" / "it.json").read_text())
    assert [(row["set"], row["origin"]) for row in rows] == [
        *(("a", part.origin) for part in composed),
        ("b", "real"),
    ]
    assert rows[0] | {"set": ""} == {
        "set": "",
        "origin": "real",
        "samples": 3,
        "source_size": "1080 x 1920 (67%)",
        "output_size": "32 x 48",
        "judge": 3.5,
        "epe_px": 0.5,
    }
    with (tmp_path / "new" / "it.csv").open(newline="") as file:
        told = [{name: text or None for name, text in row.items()} for row in csv.DictReader(file)]
    assert told == [{name: None if value in (None, "") else str(value) for name, value in r.items()} for r in rows]
    with pytest.raises(InputError, match=r"ends with '\.txt'; a composition is written as \.csv or \.json"):
        write_composition({"a": composed}, tmp_path / "it.txt")


def test_the_table_shows_every_part(composed: tuple[Part, ...]) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(as_table({"mine": composed}))
    lines = [line for line in console.export_text().splitlines() if "mine" in line]
    assert len(lines) == 4 and "3.50" in lines[0] and "1080 x 1920" in lines[0] and "0.50" in lines[3]
