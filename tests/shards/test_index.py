import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.compact import compact
from insvie_lightning.shards.index import index
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import decode_triplet, iterate_samples, read_members
from insvie_lightning.shards.select import select
from insvie_lightning.shards.stats import stats
from insvie_lightning.shards.verify import Problem, verify
from insvie_lightning.shards.write import ShardWriter

ROWS = "video,instruct\na.mp4,make it red\nb.mp4,make it blue\npexel-static-c.mp4,add snow\n"


@pytest.fixture
def release(videos: Path) -> Path:
    """Return a folder with train.csv, source/0.zip and edited/0.zip."""
    for side in ("source", "edited"):
        files = sorted((videos / side).iterdir())
        with zipfile.ZipFile(videos / side / "0.zip", "w") as archive:
            for path in files:
                archive.write(path, f"inner/{path.name}")
                path.unlink()
    (videos / "train.csv").write_text(ROWS)
    return videos


def test_zips_become_a_data_set_where_they_lie(release: Path, make_triplet: Callable[..., Triplet]) -> None:
    before = {path.name for path in release.rglob("*")}
    result = index(release / "train.csv")
    assert (result.samples, result.rejected) == (3, {})
    assert {path.name for path in release.rglob("*")} - before == {"shard-000000.parquet"}
    samples = {record["key"]: (record, members) for record, members in iterate_samples(release)}
    assert list(samples) == ["a", "b", "pexel-static-c"]
    record, members = samples["b"]
    assert list(members) == ["source.mp4", "edited.mp4"]
    assert record["lineage"]["builder"] == "index" and record["origin"] == "real" and record["dataset"] == "raw"
    triplet = decode_triplet(record, members["source.mp4"], members["edited.mp4"])
    assert triplet.source.frames.shape == (5, 3, 32, 48) and triplet.instruction == "make it blue"
    wanted = make_triplet("b").source.frames.astype(int)
    assert abs(triplet.source.frames - wanted).mean() < abs(triplet.edited.frames - wanted).mean()


def test_a_manifest_elsewhere_names_videos_in_full(release: Path, tmp_path: Path) -> None:
    index(release, tmp_path / "set")
    assert [record["key"] for record, _ in iterate_samples(tmp_path / "set")] == ["a", "b", "pexel-static-c"]
    assert open_manifest(tmp_path / "set").query()["shard"][0].as_py() == str(release / "edited" / "0.zip")


def test_a_manifest_beside_its_zips_moves_with_them(release: Path, tmp_path: Path) -> None:
    index(release)
    shutil.move(release, tmp_path / "moved")
    assert len(list(iterate_samples(tmp_path / "moved"))) == 3


def test_plain_files_too(videos: Path) -> None:
    (videos / "train.csv").write_text(ROWS)
    index(videos)
    _, members = next(iterate_samples(videos))
    assert members["edited.mp4"] == (videos / "edited" / "a.mp4").read_bytes()


def test_missing_videos_are_rejected_and_counted(release: Path) -> None:
    with (release / "train.csv").open("a") as file:
        file.write("d.mp4,x\ne.mp4,x\n")
    result = index(release)
    assert (result.samples, result.rejected) == (3, {"source clip: no such file": 2})
    assert stats(release).reasons == {"source clip: no such file": 2}
    with pytest.raises(
        InputError, match=r"stopped: 2 bad rows are more than 10% of 5; commonest: source clip: no such"
    ):
        index(release, max_bad_rate=0.1)


def test_a_rerun_makes_the_manifest_anew(release: Path) -> None:
    index(release)
    with (release / "train.csv").open("a") as file:
        file.write("a.mp4,make it pink\n")
    assert index(release).samples == 4
    assert len(open_manifest(release).query()) == 4


def test_the_manifest_of_another_table_is_not_replaced(release: Path, tmp_path: Path) -> None:
    (release / "test.csv").write_text("video,instruct\nb.mp4,make it grey\n")
    index(release / "train.csv")
    with pytest.raises(InputError, match=r"raw holds the index of train\.csv already; .* of test\.csv .*, DST$"):
        index(release / "test.csv")
    assert len(open_manifest(release).query()) == 3
    assert index(release / "test.csv", tmp_path / "test").samples == 1


def test_a_folder_is_its_table(release: Path) -> None:
    """Named either way it is the same table, so that a rerun replaces its manifest."""
    for src in (release, release / "train.csv", release):
        assert index(src).samples == 3


def test_shards_are_never_replaced(release: Path, make_triplet: Callable[..., Triplet]) -> None:
    with ShardWriter(release) as writer:
        writer.write(make_triplet("mine"))
    with pytest.raises(InputError, match=r"raw holds shards already, such as shard-000000\.tar; choose another folder"):
        index(release)


def test_every_verb_works_on_it(release: Path, tmp_path: Path) -> None:
    index(release)
    compact(release)
    assert verify(release).problems == ()
    assert stats(release).origins == {"real": 2, "static": 1}
    assert select(release, tmp_path / "static", "origin = 'static'") == 1
    assert verify(tmp_path / "static").problems == ()
    record, members = next(iterate_samples(tmp_path / "static"))
    assert record["key"] == "pexel-static-c" and set(members) == {"source.mp4", "edited.mp4", "json"}


def test_verify_names_the_member_that_is_damaged(release: Path) -> None:
    index(release)
    archive = release / "edited" / "0.zip"
    data = bytearray(archive.read_bytes())
    data[100] ^= 1
    archive.write_bytes(data)
    sentence = f"edited.mp4: {archive}: the member at byte 0 is damaged"
    assert verify(release).problems == (Problem("edited/0.zip", "a", sentence),)


def test_many_rows_and_zips(tmp_path: Path) -> None:
    names = [f"pexel-{number:05d}_0_1_2.mp4" for number in range(9_000)]
    (tmp_path / "train.csv").write_text("video,instruct\n" + "".join(f"{name},make it snow\n" for name in names))
    for side in ("source", "edited"):
        (tmp_path / side).mkdir()
        for number in range(3):
            with zipfile.ZipFile(tmp_path / side / f"{number}.zip", "w") as archive:
                for name in reversed(names[number::9]):
                    archive.writestr(zipfile.ZipInfo(name), f"{side} {name}")
    assert index(tmp_path, max_bad_rate=1).rejected == {"source clip: no such file": 6_000}
    manifest = open_manifest(tmp_path)
    table = manifest.query(columns=["key"], accepted_only=False)
    # Shard by shard, those without one first, and within a shard as in the table.
    where = sorted((zip, number) if (zip := number % 9) < 3 else (-1, number) for number in range(len(names)))
    assert table["key"].to_pylist() == [names[number].removesuffix(".mp4") for _, number in where]
    row = manifest.query("key = 'pexel-08993_0_1_2'").to_pylist()[0]
    expected = {f"{side}.mp4": f"{side} pexel-08993_0_1_2.mp4".encode() for side in ("source", "edited")}
    assert read_members(tmp_path, row) == expected
