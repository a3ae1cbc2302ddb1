from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import keys_done, open_manifest
from insvie_lightning.shards.write import ShardWriter


def keys(folder: Path, where: str = "true", accepted_only: bool = True) -> list[str]:
    return open_manifest(folder).query(where, ["key"], accepted_only)["key"].to_pylist()


def test_query_keeps_storage_order(dataset: Path) -> None:
    assert keys(dataset) == ["s0", "s1", "s2", "s3"]
    assert keys(dataset, accepted_only=False) == ["s0", "s1", "s2", "s3", "bad"]
    assert keys(dataset, "judge >= 2 and epe_px <= 2 and origin = 'real'") == ["s1", "s2"]


@pytest.mark.parametrize("where", ["true) or (true", "judge = 5 or true -- all"])
def test_no_clause_reaches_rejected_samples(dataset: Path, where: str) -> None:
    assert keys(dataset, where) == ["s0", "s1", "s2", "s3"]


def test_scores_may_differ_between_shards(dataset: Path, make_triplet: Callable[..., Triplet]) -> None:
    with ShardWriter(dataset) as writer:
        writer.write(make_triplet("new", scores={"clip": 0.3}))
    assert keys(dataset, "clip > 0") == ["new"]
    assert keys(dataset, "judge > 3") == ["s3"]


def test_unknown_column_in_a_clause(dataset: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'judg'; it has key, .*epe_px, judge; did you mean 'judge'\?"):
        keys(dataset, "judg >= 4")


def test_a_clause_may_name_columns_in_any_way(dataset: Path) -> None:
    for where in ('"Judge" >= 3', "manifest.JUDGE >= 3", "COLUMNS('jud.*') >= 3"):
        assert keys(dataset, where) == ["s2", "s3"], where


def test_a_clause_that_fails_on_a_row(dataset: Path) -> None:
    with pytest.raises(InputError, match=r"no legal SQL condition: .*'s[0-3]'"):
        keys(dataset, "key::INTEGER > 0")


def test_unknown_column_to_return(dataset: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'instruction'"):
        open_manifest(dataset).query(columns=["instructions"])


@pytest.mark.parametrize(
    "where",
    ["judge >", "", "1; DROP TABLE manifest", "key in (select content from read_text('/etc/hostname'))", "key + 1 > 0"],
)
def test_illegal_clause(dataset: Path, where: str) -> None:
    with pytest.raises(InputError, match="no legal SQL condition"):
        keys(dataset, where)


def test_clause_cannot_see_python_variables(dataset: Path) -> None:
    secret = pa.table({"key": ["s0"]})
    with pytest.raises(InputError, match="no legal SQL"):
        keys(dataset, "key in (select key from secret)")
    assert len(secret) == 1


def test_manifest_of_an_earlier_version(dataset: Path) -> None:
    for part in dataset.glob("*.parquet"):
        pq.write_table(pq.ParquetFile(part).read().drop_columns(["source_shard"]), part)
    assert keys(dataset, "source_shard IS NULL") == ["s0", "s1", "s2", "s3"]
    assert open_manifest(dataset).query(accepted_only=False)["source_shard"].to_pylist() == [None] * 5


def test_absent_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of shards"):
        open_manifest(tmp_path / "none")
    with pytest.raises(InputError, match="holds no finished shard"):
        open_manifest(tmp_path)


def test_broken_part_is_named(dataset: Path) -> None:
    part = dataset / "shard-000001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match=r"shard-000001\.parquet is no readable manifest"):
        open_manifest(dataset)


def test_foreign_table_is_named(dataset: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), dataset / "shard-000002.parquet")
    with pytest.raises(InputError, match=r"shard-000002\.parquet is no manifest: it has no column 'accepted'"):
        open_manifest(dataset)


def test_keys_of_another_job(dataset: Path) -> None:
    planned = ["s0", "s1", "s2", "s3", "bad", "later"]
    assert keys_done(dataset, planned) == {"s0", "s1", "s2", "s3", "bad"}
    with pytest.raises(InputError, match="1 other samples, such as 'bad'"):
        keys_done(dataset, ["s0", "s1", "s2", "s3"])
