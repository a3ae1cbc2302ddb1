"""A recipe of the toy models, cut down to seconds."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from insvie_lightning.commands.lightning_cli import InsvieCLI


@pytest.fixture(scope="session")
def pretrain() -> Callable[..., tuple[Any, dict[str, list[float]]]]:
    """Run `insvie fit -c RECIPE` in a folder of its own; return the module and every column of its `metrics.csv`."""

    def run(recipe: str, folder: Path, steps: int, *options: str) -> tuple[Any, dict[str, list[float]]]:
        places = [f"--trainer.default_root_dir={folder}", f"--trainer.logger.init_args.save_dir={folder}"]
        output = f"--model.output={folder / 'model'}"
        size = [f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={steps}", f"--data.samples={4 * steps}"]
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        log = ["--trainer.log_every_n_steps=1", "--trainer.num_sanity_val_steps=0"]
        data = ["--data.batch_size=4", "--data.val_samples=8"]
        cli = InsvieCLI(["fit", "-c", recipe, *places, output, *size, *quiet, *log, *data, *options])
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return cli.model, {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}

    return run
