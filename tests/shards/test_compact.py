from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards import compact as compacting
from insvie_lightning.shards.compact import compact, compact_many
from insvie_lightning.shards.join import join
from insvie_lightning.shards.manifest import COMPACT, open_manifest
from insvie_lightning.shards.select import select
from insvie_lightning.shards.verify import verify
from insvie_lightning.shards.write import ShardWriter


def everything(folder: Path) -> pa.Table:
    return open_manifest(folder).query(accepted_only=False)


def test_it_says_the_same_as_the_parts(dataset: Path) -> None:
    parts = everything(dataset)
    path = compact(dataset)
    assert open_manifest(dataset).files == (path,)
    assert everything(dataset).equals(parts) and open_manifest(dataset).length == len(parts)
    assert not verify(dataset).problems


def test_out_of_date_it_is_ignored(dataset: Path, make_triplet: Callable[..., Triplet]) -> None:
    compact(dataset)
    with ShardWriter(dataset) as writer:
        writer.write(make_triplet("new"))
    assert everything(dataset)["key"].to_pylist()[-1] == "new"
    compact(dataset)
    assert everything(dataset)["key"].to_pylist()[-1] == "new" and len(open_manifest(dataset).files) == 1


def test_up_to_date_it_is_not_made_anew(dataset: Path) -> None:
    made = compact(dataset).stat()
    assert compact(dataset).stat().st_ino == made.st_ino


def test_a_broken_part_leaves_nothing_behind(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in dataset.iterdir())

    def fails(rows: object) -> None:
        raise InputError("shard-000001.parquet is no readable manifest")

    monkeypatch.setattr(compacting, "join_batches", fails)
    with pytest.raises(InputError, match="no readable manifest"):
        compact(dataset)
    assert sorted(path.name for path in dataset.iterdir()) == before


def test_only_many_parts_are_worth_it(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = len(list(dataset.glob("shard-*.parquet")))
    for many, found in ((parts + 1, False), (parts, True)):
        monkeypatch.setattr(compacting, "MANY_PARTS", many)
        compact_many(dataset)
        assert (dataset / COMPACT).exists() == found


def test_copies_with_many_parts_are_compact(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "MANY_PARTS", 2)
    assert join([dataset], tmp_path / "joined", shard_size=1) == 4
    assert select(dataset, tmp_path / "selected", "true", shard_size=1) == 4
    for name in ("joined", "selected"):
        assert open_manifest(tmp_path / name).files == (tmp_path / name / COMPACT,)
