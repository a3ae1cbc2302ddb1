from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.shards import select as module
from insvie_lightning.shards.index import index
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import iterate_samples, read_members
from insvie_lightning.shards.select import select
from insvie_lightning.shards.verify import verify
from insvie_lightning.shards.write import list_tar


def test_selection_copies_records_and_bytes(dataset: Path, tmp_path: Path) -> None:
    assert select(dataset, tmp_path / "good", "judge >= 3 and epe_px <= 2") == 2
    expected = [sample for sample in iterate_samples(dataset) if sample[0]["key"] in ("s2", "s3")]
    assert list(iterate_samples(tmp_path / "good")) == expected
    assert expected[1][0]["lineage"] == {"seed": 3}
    assert verify(tmp_path / "good").problems == ()


def test_keys_only(dataset: Path, tmp_path: Path) -> None:
    assert select(dataset, tmp_path / "list", "judge < 3", keys_only=True) == 2
    assert [path.name for path in (tmp_path / "list").iterdir()] == ["keys.txt"]
    assert (tmp_path / "list" / "keys.txt").read_text() == "s0\ns1\n"


def test_rerun_continues(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_at_s3(folder: Path, row: dict[str, object]) -> dict[str, bytes]:
        if row["key"] == "s3":
            raise KeyboardInterrupt
        return read_members(folder, row)

    dst = tmp_path / "dst"
    monkeypatch.setattr(module, "read_members", stop_at_s3)
    with pytest.raises(KeyboardInterrupt):
        select(dataset, dst, "true", shard_size=2)
    first = (dst / "shard-000000.tar").stat().st_mtime_ns
    monkeypatch.undo()
    for _ in range(2):
        assert select(dataset, dst, "true", shard_size=2) == 4
    assert open_manifest(dst).query()["key"].to_pylist() == ["s0", "s1", "s2", "s3"]
    assert (dst / "shard-000000.tar").stat().st_mtime_ns == first
    assert len(list(dst.glob("*.tar"))) == 2


def test_damaged_sample_is_rejected_with_its_reason(dataset: Path, tmp_path: Path) -> None:
    offset, _ = list_tar(dataset / "shard-000000.tar")["s1.source.mp4"]
    data = bytearray((dataset / "shard-000000.tar").read_bytes())
    data[offset] ^= 1
    (dataset / "shard-000000.tar").write_bytes(data)
    select(dataset, tmp_path / "dst", "true")
    (row,) = open_manifest(tmp_path / "dst").query("not accepted", accepted_only=False).to_pylist()
    assert (row["key"], row["instruction"], row["judge"]) == ("s1", "edit s1", 2.0)
    assert "is not the file that was written" in row["reason"]


def test_nothing_selected(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'judge > 9' keeps none of the 5 samples"):
        select(dataset, tmp_path / "dst", "judge > 9")
    assert not (tmp_path / "dst").exists()


def test_destination_of_another_selection(dataset: Path, tmp_path: Path) -> None:
    select(dataset, tmp_path / "dst", "judge > 3")
    with pytest.raises(InputError, match="1 other samples, such as 's3'"):
        select(dataset, tmp_path / "dst", "judge < 3")


def test_destination_is_the_source(dataset: Path) -> None:
    with pytest.raises(InputError, match="needs a folder of its own"):
        select(dataset, dataset, "true")


def test_an_index_is_no_destination(videos: Path, tmp_path: Path) -> None:
    (videos / "train.csv").write_text("video,instruct\na.mp4,make it red\nb.mp4,make it blue\n")
    index(videos, tmp_path / "one")
    index(videos, tmp_path / "other")
    with pytest.raises(InputError, match=r"other holds the index of train\.csv, not shards of its own"):
        select(tmp_path / "one", tmp_path / "other", "true")
