"""The numbers of a run, in its own folder."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only


class RunLog(CSVLogger):
    """Write `metrics.csv` right into a run's folder.

    That of an earlier run there becomes `metrics.1.csv`, `metrics.2.csv`, ...; `CSVLogger` would delete it.

    Args:
        save_dir: The run's folder; the same as `trainer.default_root_dir`.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="")

    @property
    def experiment(self) -> Any:
        """The writer; made on first use, after the earlier metrics have been moved out of its way."""
        if self._experiment is None:
            _keep(Path(self.log_dir))
        return super().experiment


@rank_zero_only
def _keep(folder: Path) -> None:
    old = folder / "metrics.csv"
    if old.exists():
        number = 1
        while (kept := folder / f"metrics.{number}.csv").exists():
            number += 1
        old.rename(kept)
