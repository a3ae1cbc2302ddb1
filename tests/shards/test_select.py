from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards import select as module
from insvie_lightning.shards.index import index
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import iterate_samples, read_members
from insvie_lightning.shards.select import Selection, choose, select
from insvie_lightning.shards.verify import verify
from insvie_lightning.shards.write import ShardWriter, list_tar


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
    assert select(dataset, tmp_path / "dst", "true") == 3  # of 4
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


# ---------------------------------------------------------------- a ratio of origins


@pytest.fixture
def mixed(tmp_path: Path, make_triplet: Callable[..., Triplet]) -> Path:
    """Seven static samples, three real ones and a pair, each with its number as `judge`."""
    origins = [*["static"] * 7, *["real"] * 3, "pair"]
    with ShardWriter(tmp_path / "mixed", lossless=True) as writer:
        for index, origin in enumerate(origins):
            writer.write(make_triplet(f"k{index}", origin=origin, scores={"judge": index}))
    return tmp_path / "mixed"


@pytest.mark.parametrize(
    ("ratio", "static", "real"),
    [("1:1", 4, 4), ("5:1", 5, 1), ("3:2", 6, 4), (0.5, 2, 4), ("0:1", 0, 4), ("1:0", 7, 0)],
)
def test_a_ratio_holds_exactly_with_as_many_samples_as_can_be(
    mixed: Path, ratio: str | float, static: int, real: int
) -> None:
    origins = Counter(choose(mixed, static_to_real=ratio)["origin"].to_pylist())
    assert (origins["static"], origins["real"] + origins["pair"]) == (static, real)


def test_what_a_ratio_leaves_out_depends_on_the_seed_and_on_keys_alone(mixed: Path) -> None:
    kept = [choose(mixed, static_to_real="1:1", seed=seed)["key"].to_pylist() for seed in (0, 0, 1, 2, 3)]
    assert kept[0] == kept[1] and len({tuple(keys) for keys in kept}) >= 3
    assert all(keys == sorted(keys, key=lambda key: int(key[1:])) for keys in kept)  # in storage order
    fewer = choose(mixed, "judge > 0", static_to_real="1:1")["key"].to_pylist()
    assert set(kept[0]) - {"k0"} <= set(fewer)


def test_a_ratio_is_copied_as_chosen(mixed: Path, tmp_path: Path) -> None:
    assert select(mixed, tmp_path / "dst", "judge != 8", static_to_real="1:1") == 6
    expected = choose(mixed, "judge != 8", "1:1")["key"].to_pylist()
    assert open_manifest(tmp_path / "dst").query()["key"].to_pylist() == expected
    assert Selection("s", mixed, "judge != 8", "1:1").rows()["key"].to_pylist() == expected


def test_a_ratio_that_cannot_be_held(mixed: Path) -> None:
    with pytest.raises(InputError, match="5:1 cannot be held: the clause 'judge > 5' keeps 1 static and 4 real of"):
        choose(mixed, "judge > 5", "5:1")
    with pytest.raises(InputError, match="is not a ratio"):
        choose(mixed, "true", "5:x")
