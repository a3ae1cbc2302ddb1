"""A step that is finished ends before its weights are loaded, whatever was killed after its last shard."""

from pathlib import Path
from typing import Any

import pytest

from insvie_data_modules.toy_scenes import ToyScenes
from insvie_lightning.builders.finished import end_if_finished
from insvie_lightning.builders.toy import BuildToy
from insvie_lightning.errors import InputError
from insvie_lightning.shards.funnel import FUNNEL, read_funnel
from insvie_lightning.shards.ledger import CLAIMS

OPTIONS = ["--data.samples=12", "--model.shard_size=5"]


def test_only_a_whole_job_is_finished_and_its_funnel_is_mended(build_toy: Any, tmp_path: Path) -> None:
    shards, scenes = build_toy(tmp_path, *OPTIONS), ToyScenes(samples=12).inputs()
    (shards / FUNNEL).unlink()
    assert end_if_finished(BuildToy(shards, shard_size=5), scenes)
    assert [step.inputs for step in read_funnel(shards)] == [12] and not (shards / CLAIMS).exists()
    (shards / "shard-000001.parquet").unlink()
    assert not end_if_finished(BuildToy(shards, shard_size=5), scenes)
    assert not end_if_finished(BuildToy(tmp_path / "nothing", shard_size=5), scenes)
    assert not (tmp_path / "nothing").exists()


def test_another_job_is_refused(build_toy: Any, tmp_path: Path) -> None:
    shards = build_toy(tmp_path, *OPTIONS)
    with pytest.raises(InputError, match=r"its settings\.flawed is 0\.1, this one's 0\.5"):
        end_if_finished(BuildToy(shards, flawed=0.5, shard_size=5), ToyScenes(samples=12).inputs())
