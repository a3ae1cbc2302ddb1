"""A run's last numbers in one small file."""

import json
import math
import os
import time
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class Summary(Callback):
    """Write the last value of everything logged, and the seconds taken, to `summary.json` in the run's folder."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file, atomically."""
        if not trainer.is_global_zero or stage not in ("fit", "test"):
            return
        path = Path(trainer.default_root_dir) / "summary.json"
        if trainer.callback_metrics or not path.exists():  # else a rerun of a run that was complete
            self._write(trainer, path)
        rank_zero_info(f"the numbers: {path}; a page of this run: insvie report {path.parent}")

    def _write(self, trainer: Trainer, path: Path) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        # JSON has no nan: a score without samples is left out.
        numbers: dict[str, float] = {name: value for name, value in values.items() if math.isfinite(value)}
        numbers["steps"], numbers["seconds"] = trainer.global_step, round(time.monotonic() - self._start, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(numbers, indent=2) + "\n")
        os.replace(part, path)
