import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.report.dataset import read_dataset
from insvie_lightning.report.media import Budget
from insvie_lightning.report.page import write_report
from insvie_lightning.shards.latents import LATENTS
from insvie_lightning.shards.read import iterate_samples
from insvie_lightning.shards.write import ShardWriter


def test_counts_funnel_and_clips(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    found = read_dataset(make_dataset(tmp_path / "data", 12), Budget())
    assert (found.rows, found.accepted, found.shards) == (18, 12, 3)
    assert found.seconds == pytest.approx(12 * 9 / 8)
    assert {bar.label: bar.count for bar in found.counts["origin"]} == {"real": 6, "static": 3, "pair": 3}
    assert {bar.label: bar.count for bar in found.counts["edit type"]} == {"recolour": 8, "remove": 4}
    assert [(bar.label, bar.count) for bar in found.funnel] == [
        ("accepted", 12),
        ("judge \u2026 is below \u2026", 4),
        ("epe_px \u2026 is above \u2026", 2),
    ]
    assert "bad-001: judge 2 is below 4" in found.funnel[1].note
    assert [bar.label for bar in found.counts["clip"]] == ["9 frames, 64 x 96, 8 fps"]
    assert {chart.title for chart in found.scores} == {"judge", "EPE"}
    assert found.gallery.total == len(found.gallery.samples) == 12


def test_rare_groups_are_among_the_first_clips(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    samples = read_dataset(make_dataset(tmp_path / "data", 24), Budget()).gallery.samples
    assert {sample.tags for sample in samples[:6]} == {
        (origin, edit) for origin in ("real", "static", "pair") for edit in ("recolour", "remove")
    }


def test_cut_tar_is_told_in_place_of_its_clips(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(tmp_path / "data", 4)
    tar = folder / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    sample = read_dataset(folder, Budget()).gallery.samples[-1]
    assert "cut" in sample.clips["source"]


def test_videos_beside_latents_are_not_shown_again(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    with ShardWriter(tmp_path / "latents") as writer:
        for record, members in iterate_samples(make_dataset(tmp_path / "data", 4)):
            writer.write_members(record, {LATENTS: b"latents", "edited.mp4": members["edited.mp4"]})
    found = read_dataset(tmp_path / "latents", Budget())
    assert found.accepted == 4 and not found.gallery.samples and found.gallery.total == 4


def test_composition_by_origin(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(tmp_path / "data", 12)
    found = read_dataset(folder, Budget())
    assert [(part.origin, part.samples) for part in found.composition] == [
        ("real", 6),
        ("pair", 3),
        ("static", 3),
        ("all", 12),
    ]
    page = write_report(folder).read_text()
    table = page[page.index("Composition of the accepted") :].partition("</table>")[0]
    assert f"<td>static</td><td>3</td><td>\u2013</td><td>64 x 96</td><td>{found.composition[2].judge:.2f}</td>" in table


def test_the_guidance_that_the_judge_picked_is_a_histogram(tmp_path: Path) -> None:
    clip = Clip(np.full((2, 3, 16, 16), 90, np.uint8), 7.0)
    with ShardWriter(tmp_path / "data") as writer:
        for index, scale in enumerate((3, 5, 5, 6, 8, 5)):
            writer.write(Triplet(f"k{index}", clip, clip, "x", scores={"edit_guidance_scale": scale}))
    (chart,) = read_dataset(tmp_path / "data", Budget()).scores
    assert chart.title == "edit guidance scale"
    assert {line.name: line.last for line in chart.lines} == {"median": "5", "lowest": "3", "highest": "8"}
    ticks = [int(text) for text in re.findall(r">(\d+)</text>", str(chart.svg))]
    assert ticks[:4] == [3, 5, 6, 8]  # a bar for each scale, not 24 bins


def test_the_funnel_over_the_steps_is_drawn(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(tmp_path / "data")
    assert read_dataset(folder, Budget()).steps == ()
    steps = [
        {"step": "BuildX", "inputs": 8, "accepted": 10, "rejected": {"judge N is below N": 2}},
        {"step": "Filter", "inputs": 10, "accepted": 4, "rejected": {"too still": 5, "cut": 1}},
    ]
    (folder / "funnel.json").write_text(json.dumps({"steps": steps}))
    bars = read_dataset(folder, Budget()).steps
    assert [(bar.label, bar.count, bar.percent, bar.note) for bar in bars] == [
        ("into BuildX", 8, 80.0, ""),
        ("out of BuildX", 10, 100.0, "2 x judge N is below N"),
        ("out of Filter", 4, 40.0, "5 x too still; 1 x cut"),
    ]
    (folder / "funnel.json").write_text("{")
    with pytest.raises(InputError, match="no readable funnel"):
        read_dataset(folder, Budget())
