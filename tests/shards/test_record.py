from collections.abc import Callable

from insvie_lightning.batch import Triplet
from insvie_lightning.shards.record import COLUMNS, describe, to_record, to_row, to_table


def test_record_survives_the_manifest(make_triplet: Callable[..., Triplet]) -> None:
    triplet = make_triplet("a", origin="pair", scores={"judge": 4.0}, lineage={"models": ["x"], "text": "ü"})
    record = describe(triplet)
    row = to_table([to_row(record)]).to_pylist()[0]
    assert row["judge"] == 4.0
    assert to_record(row) == to_record(record) == record


def test_table_has_a_column_for_each_score() -> None:
    table = to_table([{"key": "a", "judge": 1.0}, {"key": "b", "epe_px": 2.0}])
    assert table.column_names == [*COLUMNS, "epe_px", "judge"]
    assert table["judge"].to_pylist() == [1.0, None]
