"""What each rank draws, and what the order depends on."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from insvie_data_modules import stages
from insvie_data_modules.samples import Form, load_rows
from insvie_data_modules.stages import RankSampler, StagedSamples, plan_stage, summarize
from insvie_lightning.batch import ORIGINS
from insvie_lightning.errors import InputError
from insvie_lightning.quarantine import Quarantine
from insvie_lightning.shards.compact import compact
from insvie_lightning.shards.manifest import open_manifest, read_part


def staged(folder: Path, **options: Any) -> StagedSamples:
    defaults = {"name": "s", "batches": 5, "where": "true", "static_to_real": None}
    fixed = {"real_includes_pairs": True, "seed": 0, "pool_shards": 16}
    arguments = {"folders": folder, **defaults, **fixed, **options}
    plan = plan_stage(**arguments)
    form = Form(None, None, "cover")
    return StagedSamples([plan], 4, [form], arguments["seed"], Quarantine(folder / "q.jsonl", 0.0))


def test_ranks_take_turns_and_start_where_they_stopped(latents: Path) -> None:
    dataset = staged(latents)
    assert len(dataset) == 20
    assert list(RankSampler(dataset, 4, 1)) == [1, 5, 9, 13, 17]
    resumed = RankSampler(dataset, 4, 1, start=3)
    assert len(resumed) == 5
    assert list(resumed) == [13, 17]
    assert list(resumed) == [1, 5, 9, 13, 17]  # the next epoch is whole


def test_rows_are_summarized_as_they_lie(shards: Path, latents: Path) -> None:
    rows = load_rows([latents, shards]).select(["folder", "shard", "origin"]).to_pylist()
    summary = summarize([latents, shards], "true")
    names = [f"{row['folder']}/{row['shard']}" for row in rows]
    assert len(set(names)) == 16
    runs = zip(summary.runs.starts, summary.runs.lengths, summary.runs.shards, summary.origins, strict=True)
    expanded = [(row, shard, ORIGINS[origin]) for start, n, shard, origin in runs for row in range(start, start + n)]
    shard_numbers = [list(dict.fromkeys(names)).index(name) for name in names]
    assert expanded == [(row, shard_numbers[row], rows[row]["origin"]) for row in range(len(rows))]
    assert len(summary.origins) < len(rows)


def test_a_data_set_that_was_compacted_is_the_same(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    before = staged(copy).fingerprint()
    compact(copy)
    assert len(open_manifest(copy).files) == 1
    assert staged(copy).fingerprint() == before


def test_the_digest_is_of_every_key_in_its_place(latents: Path, tmp_path: Path) -> None:
    def digest(keys: list[str]) -> str:
        copy = tmp_path / "-".join(keys)
        copy.mkdir()
        part = read_part(sorted(latents.glob("*.parquet"))[0])[: len(keys)]
        pq.write_table(part.set_column(part.column_names.index("key"), "key", [keys]), copy / "shard-0.parquet")
        return summarize(copy, "true").digest

    assert len({digest(keys) for keys in (["a", "b"], ["b", "a"], ["a", "c"], ["a"])}) == 4


def test_a_data_set_that_changes_while_it_is_opened_is_refused(latents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "load_rows", lambda *arguments: load_rows([latents, latents]))
    with pytest.raises(InputError, match=r"changed while it was opened \(72, then 36 samples\)"):
        staged(latents)


def test_the_fingerprint_changes_with_the_order_alone(latents: Path) -> None:
    fingerprint = staged(latents).fingerprint()
    assert staged(latents, batches=9).fingerprint() == fingerprint
    changed: list[dict[str, Any]] = [
        {"seed": 1}, {"name": "t"}, {"where": "judge > 1"}, {"static_to_real": "5:1"}, {"pool_shards": 2},
    ]  # fmt: skip
    others = {staged(latents, **options).fingerprint() for options in changed}
    assert len(others | {fingerprint}) == len(changed) + 1


def test_the_length_of_all_stages_but_the_last_matters(latents: Path) -> None:
    first, longer, last = staged(latents), staged(latents, batches=6), staged(latents, name="last")

    def fingerprint(*stages: StagedSamples) -> str:
        return StagedSamples(
            [s.stages[0] for s in stages], 4, first.forms * len(stages), 0, first.quarantine
        ).fingerprint()

    assert fingerprint(first, last) != fingerprint(longer, last)
    assert fingerprint(last, first) == fingerprint(last, longer)


def test_a_stream_without_samples_is_not_missed_where_the_ratio_has_none(latents: Path) -> None:
    dataset = staged(latents, static_to_real="1:0")
    assert {dataset[number][1].origin for number in range(20)} == {"static"}
    dataset = staged(latents, static_to_real="0:1", where="origin != 'static'")
    assert {dataset[number][1].origin for number in range(20)} == {"real", "pair"}


def test_too_many_bad_samples_stop_the_run(shards: Path, tmp_path: Path) -> None:
    plan = staged(shards).stages[0]
    quarantine = Quarantine(tmp_path / "q.jsonl", 0.05)
    dataset = StagedSamples([plan], 4, [Form(4, (64, 64), "crop")], 0, quarantine)
    with pytest.raises(InputError, match=r"11 of 11 samples are bad.*11 x a 32x48 clip cannot be cropped to 64x64"):
        dataset[0]
