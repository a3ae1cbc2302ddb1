"""The numbers of a run, in its own folder."""

import csv
import os
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only


class RunLog(CSVLogger):
    """Write `metrics.csv` right into a run's folder.

    That of an earlier run there becomes `metrics.1.csv`, `metrics.2.csv`, ...; `CSVLogger` would delete it. A resumed
    run goes on in the same file; where a step is logged twice, the later row counts.

    Args:
        save_dir: The run's folder; the same as `trainer.default_root_dir`.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="")
        self._kept: Path | None = None

    @property
    def experiment(self) -> Any:
        """The writer; made on first use, after the earlier metrics have been moved out of its way."""
        if self._experiment is None:
            self._kept = _keep(Path(self.log_dir))
        with warnings.catch_warnings():  # of what it would delete, were it not moved
            warnings.filterwarnings("ignore", message="Experiment logs directory")
            return super().experiment

    def go_on(self) -> None:
        """Take the metrics of the run that is resumed up again."""
        if self._kept is not None:
            path = os.path.join(self.log_dir, self.experiment.NAME_METRICS_FILE)
            os.replace(self._kept, path)
            with open(path, newline="", encoding="utf-8") as file:
                self.experiment.metrics_keys = next(csv.reader(file), [])
            self._kept = None


@rank_zero_only
def _keep(folder: Path) -> Path | None:
    old = folder / "metrics.csv"
    if not old.exists():
        return None
    number = 1
    while (kept := folder / f"metrics.{number}.csv").exists():
        number += 1
    return old.rename(kept)
