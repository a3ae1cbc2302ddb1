"""The sets of the three stages as a command: shards or lists of keys, and what they are composed of."""

import csv
import shutil
from pathlib import Path

import pytest

from insvie_lightning.cli import main
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.select import choose
from insvie_lightning.shards.verify import verify

S2 = "judge >= 4 and epe_px <= 2"
SETS = f"{{s1: {{}}, s2: {{where: {S2}}}, s3: {{where: {S2}, static_to_real: '1:2'}}}}"


def build(shards: Path, output: Path, *options: str) -> int:
    run = [f"--trainer.default_root_dir={output}-run", "--trainer.enable_progress_bar=false"]
    paths = [f"--data.shards={shards}", f"--model.output={output}"]
    return main(["predict", "-c", "build_sets", *paths, *run, *options])


def keys(folder: Path) -> list[str]:
    return list(open_manifest(folder).query()["key"].to_pylist())


def test_sets_are_data_sets_of_their_own(toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(toy_shards, tmp_path / "sets", f"--data.sets={SETS}") == 0
    expected = {
        "s1": choose(toy_shards)["key"].to_pylist(),
        "s2": choose(toy_shards, S2)["key"].to_pylist(),
        "s3": choose(toy_shards, S2, "1:2")["key"].to_pylist(),
    }
    assert {name: keys(tmp_path / "sets" / name) for name in expected} == expected
    assert len(expected["s1"]) > len(expected["s2"]) > len(expected["s3"]) > 2
    assert all(verify(tmp_path / "sets" / name).problems == () for name in expected)
    with (tmp_path / "sets" / "composition.csv").open(newline="") as file:
        rows = {(row["set"], row["origin"]): int(row["samples"]) for row in csv.DictReader(file)}
    assert [rows[name, "all"] for name in expected] == [len(found) for found in expected.values()]
    assert 2 * rows["s3", "static"] == rows["s3", "real"] + rows["s3", "pair"]
    assert "composition" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sets").rglob("shard-*")}
    assert build(toy_shards, tmp_path / "sets", f"--data.sets={SETS}") == 0  # a rerun copies nothing
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "sets").rglob("shard-*")} == before


def test_what_cannot_be_read_is_not_counted(toy_shards: Path, tmp_path: Path) -> None:
    shards = shutil.copytree(toy_shards, tmp_path / "shards")
    tar = shards / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:20_000])
    assert build(shards, tmp_path / "sets", "--data.sets={all: {}}") == 0
    with (tmp_path / "sets" / "composition.csv").open(newline="") as file:
        *_, every = csv.DictReader(file)
    assert 0 < int(every["samples"]) == len(keys(tmp_path / "sets" / "all")) < len(keys(shards))


def test_sets_as_lists_of_keys(toy_shards: Path, tmp_path: Path) -> None:
    assert build(toy_shards, tmp_path / "sets", f"--data.sets={SETS}", "--model.keys_only=true") == 0
    assert (tmp_path / "sets" / "s2" / "keys.txt").read_text().split() == choose(toy_shards, S2)["key"].to_pylist()
    assert not list((tmp_path / "sets").rglob("*.tar"))


def test_nothing_is_written_where_a_later_query_is_wrong(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(toy_shards, tmp_path / "sets", "--data.sets={s1: {}, s2: {where: jduge > 3}}") == 2
    assert "set 's2'" in capsys.readouterr().err and not (tmp_path / "sets").exists()
