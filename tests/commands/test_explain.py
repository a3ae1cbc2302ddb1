"""`insvie explain`: what is told of a sample, along the steps that made it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from lightning import Trainer

from insvie_data_modules.drafts import Drafts
from insvie_data_modules.toy_scenes import ToyScenes
from insvie_lightning.batch import Rejected, Triplet
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.toy import BuildToy
from insvie_lightning.cli import main
from insvie_lightning.commands.explain import trace
from insvie_lightning.shards.write import ShardWriter


class Twice(Builder[Triplet]):
    """Makes two of each, and rejects the second."""

    def make(self, drafts: Sequence[Triplet]) -> list[Built]:
        made: list[Built] = []
        for triplet in drafts:
            first = replace(triplet, key=f"{triplet.key}-a", lineage={**triplet.lineage, "Twice": {"guidance": 7.5}})
            made += [first, Rejected(replace(triplet, key=f"{triplet.key}-b"), "judge 1 is below 3")]
        return made


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy triplets in `one`, and what the second step made of them in `two`."""
    folder = tmp_path_factory.mktemp("chain")
    data = ToyScenes(samples=3, size=(32, 48), frames=5)
    steps = [(BuildToy(folder / "one", flawed=0), data), (Twice(folder / "two"), Drafts(folder / "one"))]
    for step, source in steps:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        Trainer(accelerator="cpu", devices=1, **quiet).predict(step, datamodule=source, return_predictions=False)
    return folder


def test_a_sample_is_followed_through_the_steps_that_made_it(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "toy-train-0000001-a", str(chain / "two")]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "toy-train-0000001-a: accepted"
    first, second = lines.index("1. BuildToy"), lines.index("2. Twice")
    assert any(line.split() == ["settings.flawed", "0"] for line in lines[first:second])
    assert any(f"{chain.resolve()}/one/shard-000000.tar as toy-train-0000001" in line for line in lines[first:second])
    assert any(line.split() == ["guidance", "7.5"] for line in lines[second:])
    assert any("two/shard-000000.tar as toy-train-0000001-a" in line for line in lines[second:])
    assert any(line.split()[:2] == ["judge", "5"] for line in lines[:first])


def test_a_rejected_sample_is_told_with_its_reason(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "toy-train-0000002-b", str(chain / "two")]) == 0
    assert capsys.readouterr().out.startswith("toy-train-0000002-b: rejected: judge 1 is below 3\n")


def test_rows_are_printed_as_json(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "toy-train-0000000-a", str(chain / "two"), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [stage["row"]["key"] for stage in told] == ["toy-train-0000000-a", "toy-train-0000000"]
    assert [stage["job"]["step"] for stage in told] == ["Twice", "BuildToy"]


def test_a_folder_that_was_moved_away_is_left_out(chain: Path, tmp_path: Path) -> None:
    shutil.copytree(chain / "two", tmp_path / "alone")
    assert [stage.folder for stage in trace("toy-train-0000000-a", tmp_path / "alone")] == [tmp_path / "alone"]
    shutil.copytree(chain, tmp_path / "both")
    stages = list(trace("toy-train-0000000-a", tmp_path / "both" / "two"))
    assert [stage.folder.resolve() for stage in stages] == [tmp_path / "both" / name for name in ("two", "one")]


def test_shards_of_no_step_are_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write_members({"key": "a", "lineage": {"table": "train.csv", "line": 3}}, {"source.mp4": b"x"})
    assert main(["explain", "a", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1. table: train.csv" in out and "source.mp4: 1 bytes" in out


def test_an_unknown_key_is_one_sentence_with_the_nearest(chain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "toy-train-000001", str(chain / "one")]) == 2
    assert "one has no sample 'toy-train-000001'; did you mean 'toy-train-0000001'?" in capfd.readouterr().err
    assert main(["explain", "a", str(chain / "absent")]) == 2
    assert "is no folder of shards" in capfd.readouterr().err
