import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.verify import Problem, verify
from insvie_lightning.shards.write import ShardWriter, list_tar

FIRST, SECOND = "shard-000000.tar", "shard-000001.tar"


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def keep_rows(part: Path, keys: list[str]) -> None:
    table = pq.ParquetFile(part).read()
    pq.write_table(table.filter(pc.field("key").isin(keys)), part)


def test_sound_data_set(dataset: Path) -> None:
    report = verify(dataset)
    assert (report.shards, report.samples, report.problems) == (2, 4, ())


@pytest.mark.parametrize("member", ["source.mp4", "edited.mp4", "json"])
@pytest.mark.parametrize("where", [0, -1])
def test_flipped_byte_names_key_and_member(dataset: Path, member: str, where: int) -> None:
    offset, size = list_tar(dataset / FIRST)[f"s1.{member}"]
    flip(dataset / FIRST, offset + where % size)
    assert verify(dataset).problems == (Problem(FIRST, "s1", f"{member} differs from its hash"),)


def test_flipped_byte_outside_every_member(dataset: Path) -> None:
    offset, size = list_tar(dataset / FIRST)["s1.json"]
    flip(dataset / FIRST, offset + size + 1)
    assert verify(dataset).problems == (
        Problem(FIRST, "", "the tar differs from its hash, though every member is sound"),
    )


def test_cut_tar(dataset: Path) -> None:
    offset, size = list_tar(dataset / FIRST)["s2.source.mp4"]
    os.truncate(dataset / FIRST, offset + 10)
    problems = verify(dataset).problems
    assert {problem.key for problem in problems} == {"s2"}
    assert Problem(FIRST, "s2", f"source.mp4 is cut after 10 of {size} bytes") in problems
    assert Problem(FIRST, "s2", "s2.json is in the manifest but not in the tar") in problems


def test_missing_tar(dataset: Path) -> None:
    (dataset / SECOND).unlink()
    assert verify(dataset).problems == (Problem(SECOND, "", "the tar is missing"),)


def test_sample_that_the_manifest_does_not_list(dataset: Path) -> None:
    keep_rows(dataset / "shard-000000.parquet", ["s0", "s2"])
    sentences = {problem.sentence for problem in verify(dataset).problems}
    assert sentences == {
        f"s1.{name} is in the tar but not in the manifest" for name in ("source.mp4", "edited.mp4", "json")
    }


def test_sample_that_the_tar_does_not_hold(dataset: Path, tmp_path: Path, make_triplet: Callable[..., Triplet]) -> None:
    with ShardWriter(tmp_path / "other") as writer:
        writer.write(make_triplet("s9"))
    (tmp_path / "other" / FIRST).replace(dataset / SECOND)
    sentences = {problem.sentence for problem in verify(dataset).problems}
    assert "s3.source.mp4 is in the manifest but not in the tar" in sentences
    assert "s9.source.mp4 is in the tar but not in the manifest" in sentences


def test_tar_nobody_finished(dataset: Path) -> None:
    (dataset / "shard-000001.parquet").unlink()
    assert verify(dataset).problems == (Problem(SECOND, "", "the tar was never finished: no manifest beside it"),)


def test_key_in_two_shards(dataset: Path, tmp_path: Path, make_triplet: Callable[..., Triplet]) -> None:
    with ShardWriter(tmp_path / "other", first_shard=2) as writer:
        writer.write(make_triplet("s0"))
    for suffix in ("tar", "parquet"):
        (tmp_path / "other" / f"shard-000002.{suffix}").replace(dataset / f"shard-000002.{suffix}")
    assert verify(dataset).problems == (Problem("shard-000002.tar", "s0", f"the key is also in {FIRST}"),)


def test_manifest_of_another_shard(dataset: Path) -> None:
    for suffix in ("tar", "parquet"):
        (dataset / f"shard-000001.{suffix}").replace(dataset / f"shard-000005.{suffix}")
    sentences = {problem.sentence for problem in verify(dataset).problems}
    assert sentences == {f"the manifest says that the sample is in {SECOND}"}


def test_broken_part_does_not_hide_the_rest(dataset: Path) -> None:
    (dataset / "shard-000001.parquet").write_bytes(b"PAR1")
    report = verify(dataset)
    assert report.samples == 3
    (problem,) = report.problems
    assert "is no readable manifest" in problem.sentence


def test_absent_folder(dataset: Path) -> None:
    with pytest.raises(InputError, match="no folder of shards"):
        verify(dataset / "none")
