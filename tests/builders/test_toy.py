"""The toy world as shards: what is written, what is rejected and why, and what a crash leaves."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insvie_lightning.batch import Rejected
from insvie_lightning.builders.toy import BuildToy
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import decode_triplet, iterate_samples
from insvie_lightning.shards.verify import verify
from insvie_lightning.toy.edits import example_of_key, to_triplet
from insvie_lightning.toy.scene import render

SCORES = {"": (5, 0), "misplaced": (4, 2), "late": (3, 0), "wrong": (1, 0)}


def rows(shards: Path) -> list[dict[str, Any]]:
    """All rows of the manifest, each with its flaw."""
    found = open_manifest(shards).query(accepted_only=False).to_pylist()
    return [{**row, "flaw": json.loads(row["lineage"])["BuildToy"]["flaw"]} for row in found]


def hashes(shards: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(shards.glob("shard-*"))}


def test_the_recipe_makes_whole_shards(build_toy: Any, tmp_path: Path) -> None:
    shards = build_toy(tmp_path, "--data.samples=40")
    found = rows(shards)
    assert [row["key"] for row in found] == [f"toy-train-{index:07d}" for index in range(40)]
    report = verify(shards)
    assert (report.shards, report.samples, report.problems) == (1, sum(row["accepted"] for row in found), ())
    assert 1 <= sum(row["flaw"] != "" for row in found) <= 8  # a tenth of 40


def test_every_flaw_has_its_share(tmp_path: Path) -> None:
    scenes = [to_triplet(example_of_key(f"toy-train-{i:07d}"), 3, 16, 24) for i in range(400)]
    built = BuildToy(tmp_path, flawed=0.6).make(scenes)
    made = [result.sample if isinstance(result, Rejected) else result for result in built]
    counts = Counter(triplet.lineage["BuildToy"]["flaw"] for triplet in made)
    # 160 without a flaw and 80 of each kind are expected; the limits are three standard deviations away.
    assert 130 <= counts[""] <= 190
    assert all(56 <= counts[flaw] <= 104 for flaw in ("misplaced", "late", "wrong"))
    # A filter of flaws must not be one of edit types: each has its share of flaws, within four standard deviations.
    for edit_type, number in Counter(triplet.edit_type for triplet in made).items():
        flawed = sum(t.lineage["BuildToy"]["flaw"] != "" for t in made if t.edit_type == edit_type)
        assert abs(flawed / number - 0.6) < 4 * (0.24 / number) ** 0.5, edit_type


def test_scores_tell_the_flaw_and_only_wrong_edits_are_rejected(toy_shards: Path) -> None:
    found = rows(toy_shards)
    assert {row["flaw"] for row in found} == set(SCORES)
    for row in found:
        assert (row["judge"], row["epe_px"]) == SCORES[row["flaw"]], row["key"]
        assert row["accepted"] == (row["flaw"] != "wrong")
        assert row["reason"] == (
            "" if row["accepted"] else "judge 1 is below 3: the clip shows another edit than asked for"
        )
        sample = example_of_key(row["key"])
        assert (row["instruction"] == sample.instruction) == row["accepted"]
        assert (row["origin"], row["edit_type"], row["dataset"]) == (sample.origin, sample.edit_type, "toy")


def test_the_second_stages_clause_selects_perfect_and_misplaced_edits(toy_shards: Path) -> None:
    selected = open_manifest(toy_shards).query("judge >= 4 and epe_px <= 2", ["key"])["key"].to_pylist()
    assert selected == [row["key"] for row in rows(toy_shards) if row["flaw"] in ("", "misplaced")]
    assert 0 < len(selected) < 40
    exact = open_manifest(toy_shards).query("judge >= 4 and epe_px < 2", ["key"])["key"].to_pylist()
    assert exact == [row["key"] for row in rows(toy_shards) if row["flaw"] == ""]
    assert 0 < len(exact) < len(selected)


def test_clips_read_back_as_they_were_drawn_flaws_included(toy_shards: Path) -> None:
    flaws = {row["key"]: row["flaw"] for row in rows(toy_shards)}
    seen = Counter[str]()
    for record, members in iterate_samples(toy_shards):
        triplet = decode_triplet(record, members["source.mp4"], members["edited.mp4"])
        sample, flaw = example_of_key(triplet.key), flaws[triplet.key]
        source, edited = render(sample.source), render(sample.edited)
        if flaw == "misplaced":
            edited[..., 2:] = edited[..., :-2].copy()
            edited[..., :2] = render(sample.edited)[..., :2]
        elif flaw == "late":
            edited[:3] = source[:3]
        np.testing.assert_array_equal(triplet.source.frames, source)
        np.testing.assert_array_equal(triplet.edited.frames, edited)
        seen[flaw] += 1
    assert set(seen) == {"", "misplaced", "late"}


def test_a_rerun_adds_nothing_and_other_scenes_are_refused(
    build_toy: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = ["--data.samples=6", "--model.shard_size=4"]
    before = hashes(build_toy(tmp_path, *small))
    assert len(before) == 4
    assert hashes(build_toy(tmp_path, *small)) == before
    grown = ["predict", "-c", "build_toy", f"--model.output={tmp_path / 'shards'}", "--data.samples=7"]
    assert main([*grown, "--model.shard_size=4", f"--trainer.default_root_dir={tmp_path}"]) == 2
    assert "holds another job: its input.samples is 6, this one's 7;" in capfd.readouterr().err.splitlines()[-1]
    assert hashes(tmp_path / "shards") == before


def test_a_killed_job_ends_in_the_shards_of_a_straight_one(
    build_toy: Any, toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["--data.samples=40", "--data.batch_size=5", "--model.shard_size=8", "--model.flawed=0.6"]
    make = BuildToy.make
    calls = iter(range(100))

    def cut(builder: BuildToy, drafts: Any) -> Any:
        if next(calls) == 7:
            raise RuntimeError("power cut")
        return make(builder, drafts)

    monkeypatch.setattr(BuildToy, "make", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        build_toy(tmp_path, *sizes)
    # Two batches a shard: the eighth of them would have finished the fourth.
    assert len([name for name in hashes(tmp_path / "shards") if name.endswith(".parquet")]) == 3
    monkeypatch.setattr(BuildToy, "make", make)
    shards = build_toy(tmp_path, *sizes)
    assert hashes(shards) == hashes(toy_shards)
    assert verify(shards).problems == ()


def test_an_illegal_share_is_bad_input(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"flawed is 1.5; legal are shares from 0 to 1"):
        BuildToy(tmp_path, flawed=1.5)
    assert main(["predict", "-c", "build_toy", f"--model.output={tmp_path}", "--model.flawed=-1"]) == 2
    assert "flawed is -1" in capfd.readouterr().err.splitlines()[-1]


def test_wrong_edits_may_be_kept_for_trainings_without_a_filter() -> None:
    triplets = [to_triplet(example_of_key(f"toy-train-{index:07d}"), 3, 16, 24) for index in range(24)]
    strict, kept = (BuildToy(Path("unused"), 0.6, keep_wrong=keep).make(triplets) for keep in (False, True))
    rejected = [index for index, made in enumerate(strict) if isinstance(made, Rejected)]
    assert 2 <= len(rejected) < 24
    for index, made in enumerate(kept):
        before = strict[index]
        assert not isinstance(made, Rejected)
        same = before.sample if isinstance(before, Rejected) else before
        assert (made.scores, made.instruction) == (same.scores, same.instruction)
        assert (made.scores["judge"] == 1) == (index in rejected)
        assert (made.instruction == triplets[index].instruction) == (index not in rejected)
