"""Commands as a user gives them, and a small data set of the toy world."""

from collections.abc import Callable
from pathlib import Path

import pytest

from insvie_lightning.cli import main

BuildToy = Callable[..., Path]


@pytest.fixture(scope="session")
def build_toy() -> BuildToy:
    """Run the recipe into `FOLDER/shards`, which is returned; the run's own folder lies beside it."""

    def build(folder: Path, *options: str) -> Path:
        shards = folder / "shards"
        paths = [f"--model.output={shards}", f"--trainer.default_root_dir={folder / 'run'}"]
        quiet = ["--trainer.enable_progress_bar=false"]
        assert main(["predict", "-c", "build_toy", *paths, *quiet, *options]) == 0
        return shards

    return build


@pytest.fixture(scope="session")
def toy_shards(build_toy: BuildToy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipe makes of 40 samples in five shards, with six flaws in ten samples so that every kind is there."""
    sizes = ["--data.samples=40", "--data.batch_size=5", "--model.shard_size=8", "--model.flawed=0.6"]
    return build_toy(tmp_path_factory.mktemp("toy"), *sizes)
