"""Several data sets become one: what is copied, how a rerun goes on, and what is refused."""

from pathlib import Path

import pytest

from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.shards.join import join
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.verify import verify
from insvie_lightning.shards.write import ShardWriter

MEMBERS = {"source.mp4": b"before", "edited.mp4": b"after"}


def data_set(folder: Path, *keys: str, **scores: float) -> Path:
    """Samples of some keys; those that start with `bad` are rejected."""
    with ShardWriter(folder) as writer:
        for key in keys:
            record = {"key": key, "instruction": f"make {key}", "origin": "real", "scores": scores, "lineage": {"a": 1}}
            if key.startswith("bad"):
                writer.reject(record.pop("key"), "judge 1 is below 3", **record)
            else:
                writer.write_members(record, MEMBERS)
    return folder


def test_all_samples_come_along_with_scores_lineage_and_reasons(tmp_path: Path, capsys) -> None:
    first = data_set(tmp_path / "first", "a", "bad1", judge=4.0)
    second = data_set(tmp_path / "second", "b", epe_px=1.0)
    assert main(["shards", "join", str(first), str(second), str(tmp_path / "both")]) == 0
    assert f"2 samples in {tmp_path / 'both'}" in capsys.readouterr().out
    assert not verify(tmp_path / "both").problems
    rows = open_manifest(tmp_path / "both").query(accepted_only=False).to_pylist()
    told = [(row["key"], row["accepted"], row["reason"], row["judge"], row["epe_px"]) for row in rows]
    assert told == [("a", True, "", 4, None), ("bad1", False, "judge 1 is below 3", 4, None), ("b", True, "", None, 1)]
    assert all(row["lineage"] == '{"a": 1}' and row["instruction"] == f"make {row['key']}" for row in rows)


def test_a_rerun_goes_on_after_the_last_shard(tmp_path: Path) -> None:
    first, second = data_set(tmp_path / "first", "a", "bad1", "b"), data_set(tmp_path / "second", "c", "d")
    whole = tmp_path / "whole"
    assert join([first, second], whole, shard_size=2) == 4
    expected = {path.name: path.read_bytes() for path in whole.glob("shard-*")}
    for path in whole.glob("shard-00000[12].*"):
        path.unlink()
    assert join([first, second], whole, shard_size=2) == 4
    assert {path.name: path.read_bytes() for path in whole.glob("shard-*")} == expected
    assert join([first, second], whole, shard_size=2) == 4  # nothing is left to do


def test_a_sample_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    first = data_set(tmp_path / "first", "a", "b")
    tar = first / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"after", b"AFTER", 1))
    assert join([first], tmp_path / "one") == 1
    (bad,) = open_manifest(tmp_path / "one").query("NOT accepted", accepted_only=False).to_pylist()
    assert bad["key"] == "a" and "edited.mp4 of 'a' is not the file that was written" in bad["reason"]


def test_a_rejected_sample_without_a_reason_stays_rejected(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "first") as writer:
        writer.reject("a", "")
    assert join([tmp_path / "first"], tmp_path / "one") == 0
    assert open_manifest(tmp_path / "one").query(accepted_only=False)["accepted"].to_pylist() == [False]


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    first, second = data_set(tmp_path / "first", "a"), data_set(tmp_path / "second", "b", "a")
    with pytest.raises(InputError, match="the key 'a' is in two of the data sets"):
        join([first, second], tmp_path / "both")
    with pytest.raises(InputError, match="first is one of the data sets to join"):
        join([second, first], first)
    with pytest.raises(InputError, match="both holds 1 other samples, such as 'z'"):
        join([first], data_set(tmp_path / "both", "z"))
    with pytest.raises(InputError, match="none is no folder of shards"):
        join([first, tmp_path / "none"], tmp_path / "new")
    (first / "job.json").write_text('{"step": "filter", "shard_size": 1, "input": {"samples": 2}}')
    with pytest.raises(InputError, match="first is not finished: 1 of 2 shards are missing; run filter again"):
        join([first], tmp_path / "new")
    assert not (tmp_path / "new").exists()
