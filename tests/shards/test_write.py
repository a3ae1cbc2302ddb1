import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import finished_keys, open_manifest
from insvie_lightning.shards.read import iterate_samples
from insvie_lightning.shards.write import ShardWriter, list_tar

Maker = Callable[..., Triplet]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_tar_has_its_manifest_and_nothing_else_is_left(dataset: Path) -> None:
    tars = [f"shard-00000{number}.{suffix}" for number in (0, 1) for suffix in ("parquet", "tar")]
    assert names(dataset) == tars
    assert list(list_tar(dataset / "shard-000001.tar")) == ["s3.source.mp4", "s3.edited.mp4", "s3.json"]


def test_same_samples_give_the_same_bytes(tmp_path: Path, make_triplet: Maker) -> None:
    for folder in ("one", "two"):
        with ShardWriter(tmp_path / folder) as writer:
            writer.write(make_triplet("a"))
    for name in ("shard-000000.tar", "shard-000000.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_exception_leaves_only_finished_shards(tmp_path: Path, make_triplet: Maker) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, shard_size=2) as writer:
        for index in range(3):
            writer.write(make_triplet(f"s{index}"))
        raise RuntimeError
    assert names(tmp_path) == ["shard-000000.parquet", "shard-000000.tar"]
    assert finished_keys(tmp_path) == {"s0", "s1"}


def test_next_writer_appends(tmp_path: Path, make_triplet: Maker) -> None:
    for key in ("a", "b"):
        with ShardWriter(tmp_path) as writer:
            writer.write(make_triplet(key))
    assert open_manifest(tmp_path).query(columns=["key", "shard"]).to_pylist() == [
        {"key": "a", "shard": "shard-000000.tar"},
        {"key": "b", "shard": "shard-000001.tar"},
    ]


def test_finished_shard_is_not_overwritten(dataset: Path) -> None:
    with pytest.raises(InputError, match=r"already holds shard-000001\.tar; the next free number is 2"):
        ShardWriter(dataset, first_shard=1)


def test_a_folder_has_one_writer_at_a_time_whatever_becomes_of_him(tmp_path: Path, make_triplet: Maker) -> None:
    first = ShardWriter(tmp_path)
    first.write(make_triplet("a"))
    with pytest.raises(InputError, match="is being written by another job; wait for it"):
        ShardWriter(tmp_path)
    first.discard()
    second = ShardWriter(tmp_path)
    second.write(make_triplet("b"))
    second.close()
    with ShardWriter(tmp_path) as third:
        third.write(make_triplet("c"))
    lost = ShardWriter(tmp_path)
    del lost
    ShardWriter(tmp_path).close()
    named = [ShardWriter(tmp_path, first_shard=number, writer=str(number)) for number in (7, 8)]  # of a ledger's units
    assert len(named) == 2 and names(tmp_path) == [
        f"shard-00000{number}.{suffix}" for number in (0, 1) for suffix in ("parquet", "tar")
    ]


def test_writer_without_samples_writes_nothing(tmp_path: Path) -> None:
    with ShardWriter(tmp_path):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a b", "ä"])
def test_illegal_key(tmp_path: Path, make_triplet: Maker, key: str) -> None:
    with ShardWriter(tmp_path) as writer, pytest.raises(InputError, match="is not legal"):
        writer.write(make_triplet(key))


def test_key_is_taken_once(dataset: Path, make_triplet: Maker) -> None:
    with ShardWriter(dataset) as writer:
        writer.write(make_triplet("new"))
        for key in ("new", "s0", "bad"):
            with pytest.raises(InputError, match=f"{key!r} is already in"):
                writer.write(make_triplet(key))


def test_clips_of_different_length(tmp_path: Path, make_triplet: Maker) -> None:
    a = make_triplet("a")
    short = type(a.edited)(a.edited.frames[:4], 7.0)
    with ShardWriter(tmp_path) as writer, pytest.raises(InputError, match="'a': source and edited clip differ"):
        writer.write(Triplet("a", a.source, short, "x"))


def test_latents_travel_with_the_record_of_their_sample(dataset: Path, tmp_path: Path) -> None:
    row = open_manifest(dataset).query("key = 's1'").to_pylist()[0]
    with ShardWriter(tmp_path / "latents") as writer:
        writer.write_members(row, {"latents.safetensors": b"abc"})
    (record, members), *rest = iterate_samples(tmp_path / "latents")
    assert not rest
    assert members["latents.safetensors"] == b"abc"
    assert json.loads(members["json"]) == record
    assert record["scores"] == {"judge": 2.0, "epe_px": 0.5}
    assert record["lineage"] == {"seed": 1}


def test_rejected_sample_has_a_reason_and_no_members(dataset: Path) -> None:
    rows = open_manifest(dataset).query("not accepted", accepted_only=False).to_pylist()
    assert [(row["key"], row["reason"], row["members"], row["judge"]) for row in rows] == [
        ("bad", "flow is 12.5 px", [], 5.0)
    ]


def test_shard_of_rejected_samples_alone(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.reject("a", "too dark")
    assert len(open_manifest(tmp_path).query(accepted_only=False)) == 1
    assert list_tar(tmp_path / "shard-000000.tar") == {}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"origin": "statics"}, "did you mean 'static'"),
        ({"scores": {"frames": 1.0}}, "'frames' is no score"),
        ({"scores": {"a b": 1.0}}, "'a b' is no score"),
        ({"scores": {}, "colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_illegal_record(tmp_path: Path, fields: dict[str, object], sentence: str) -> None:
    with ShardWriter(tmp_path) as writer, pytest.raises(InputError, match=sentence):
        writer.write_members({"key": "a", **fields}, {})


def test_failed_score_is_absent_rather_than_not_a_number(tmp_path: Path, make_triplet: Maker) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(make_triplet("a", scores={"judge": float("nan"), "epe_px": 1.0}))
    assert len(open_manifest(tmp_path).query("epe_px = 1")) == 1
    record, members = next(iterate_samples(tmp_path))
    assert record["scores"] == json.loads(members["json"])["scores"] == {"epe_px": 1.0}


def test_disk_that_lies_is_found_before_the_shard_counts(
    tmp_path: Path, make_triplet: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = tarfile.TarFile.close

    def close_and_damage(tar: tarfile.TarFile) -> None:
        close(tar)
        if tar.mode == "w":
            data = bytearray(Path(str(tar.name)).read_bytes())
            data[600] ^= 1
            Path(str(tar.name)).write_bytes(data)

    monkeypatch.setattr(tarfile.TarFile, "close", close_and_damage)
    with pytest.raises(OSError, match=r"a\.source\.mp4 does not read back"), ShardWriter(tmp_path) as writer:
        writer.write(make_triplet("a"))
    assert finished_keys(tmp_path) == set()


def test_webdataset_reads_the_tars(dataset: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(dataset.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["s0", "s1", "s2", "s3"]
    assert {"source.mp4", "edited.mp4", "json"} <= samples[0].keys()
