"""How a builder gets on, and what the whole of its job will take."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insvie_lightning.errors import InputError

if TYPE_CHECKING:
    from insvie_lightning.builders.builder import Builder


def builder_of(callback: Callback, pl_module: LightningModule) -> Builder[Any]:
    """Return the module if it is a builder.

    Raises:
        InputError: It is none.
    """
    from insvie_lightning.builders.builder import Builder

    if not isinstance(pl_module, Builder):
        raise InputError(f"{type(callback).__name__} watches builders; {type(pl_module).__name__} is none")
    return pl_module


class BuildProgress(Callback):
    """Show samples a second, the share that is accepted and the time left, instead of Lightning's bar.

    Samples of all ranks and jobs are counted, by the shards that are finished. In a terminal one line is kept up to
    date; elsewhere, such as in a log, a new line is printed now and then. Without the trainer's bar nothing is shown.

    Args:
        every_seconds: How often the shards are counted.
        line_seconds: How often a line is printed where there is no terminal.
    """

    def __init__(self, every_seconds: float = 5.0, line_seconds: float = 60.0) -> None:
        self.every_seconds, self.line_seconds = every_seconds, line_seconds
        self._begun = self._looked = self._printed = 0.0
        self._before = 0
        self._quiet = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the place of the bar."""
        builder_of(self, pl_module)
        bar = trainer.progress_bar_callback
        self._quiet = bar is None
        if bar is not None:
            bar.disable()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what is finished already."""
        builder = builder_of(self, pl_module)
        self._begun = self._printed = perf_counter()
        self._looked = 0.0
        self._before = 0 if builder.rehearsal else builder.finished_inputs()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show where the job stands, if it is time."""
        now = perf_counter()
        if trainer.is_global_zero and not self._quiet and now - self._looked >= self.every_seconds:
            self._looked = now
            self._show(self.line(builder_of(self, pl_module), now), now, end=False)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last line."""
        if trainer.is_global_zero and not self._quiet:
            now = perf_counter()
            self._show(self.line(builder_of(self, pl_module), now), now, end=True)

    def line(self, builder: Builder[Any], now: float) -> str:
        """Where the job stands, in one line."""
        # Finished shards tell of all processes, this one's counts of the shard in progress; one may be ahead.
        done = builder.tally.inputs
        if not builder.rehearsal:
            done = max(done, builder.finished_inputs() - self._before)
        whole = (builder.rehearsal or builder.input_count()) - self._before
        rate = done / max(now - self._begun, 1e-9)
        tally = builder.tally
        results = tally.accepted + tally.rejected
        accepted = f"{tally.accepted / results:.1%} accepted" if results else "nothing stored yet"
        left = _duration(max(whole - done, 0) / rate) if rate else "unknown"
        return f"{builder.step}: {done} of {whole} samples, {rate:.3g} samples/s, {accepted}, {left} left"

    def _show(self, line: str, now: float, end: bool) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_terminal:
            console.print(line, end="\n" if end else "\r", overflow="crop", no_wrap=True, highlight=False)
        elif end or now - self._printed >= self.line_seconds:
            self._printed = now
            console.print(line, soft_wrap=True, highlight=False)


class Preflight(Callback):
    """Make the first few samples only, write nothing, and print what the whole job will take.

    Days, device-hours, storage and the judge's dollars are those of the samples measured, times the samples of the job,
    whatever of it is finished. The first batch, which loads and compiles, is not measured where there are more. Answers
    in the judge's cache count with what they cost when they were made; the time that they took is not known.

    Args:
        samples: How many to make.
    """

    def __init__(self, samples: int = 8) -> None:
        if samples < 1:
            raise InputError(f"samples is {samples}; at least 1 is measured")
        self.samples = samples
        self._warm: Any = None
        self._warm_at = self._begun = 0.0
        self._spent = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the builder before it is fed."""
        builder_of(self, pl_module).rehearsal = self.samples

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._warm = None
        self._begun = perf_counter()
        self._spent = _spent_usd(pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start again after the first batch."""
        if self._warm is None:
            self._warm, self._warm_at = replace(builder_of(self, pl_module).tally), perf_counter()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the estimate."""
        builder = builder_of(self, pl_module)
        seconds, inputs = perf_counter() - self._begun, builder.tally.inputs
        if self._warm is not None and inputs > self._warm.inputs:
            seconds, inputs = perf_counter() - self._warm_at, inputs - self._warm.inputs
        if not trainer.is_global_zero or not inputs:
            return
        tally, whole = builder.tally, builder.input_count()
        hours = whole * seconds / inputs / 3600
        gigabytes = whole * tally.stored_bytes / tally.inputs / 1e9
        dollars = whole * (_spent_usd(pl_module) - self._spent) / tally.inputs
        results = max(tally.accepted + tally.rejected, 1)
        unit = "GPU-hours" if pl_module.device.type == "cuda" else f"{pl_module.device.type.upper()}-hours"
        made = 100 * (tally.make_seconds / max(perf_counter() - self._begun, 1e-9))
        print(
            f"{builder.step}: {tally.inputs} samples measured, {seconds / inputs:.3g} s each ({made:.0f}% of the time "
            f"in the step itself), {tally.accepted / results:.0%} accepted\n"
            f"the whole job of {whole} samples: {hours / 24 / trainer.world_size:.3g} days on {trainer.world_size} "
            f"device{'s' if trainer.world_size > 1 else ''}, {hours:.3g} {unit}, {gigabytes:.3g} GB, "
            f"${dollars:.2f} for the judge"
        )


def _spent_usd(module: LightningModule) -> float:
    """Dollars of the answers of a step's judges, cached or not: of whatever it holds that counts what it `spent`."""
    spent = [getattr(value, "spent", None) for value in vars(module).values()]
    return float(sum(getattr(of, name, 0.0) for of in spent for name in ("usd", "saved_usd")))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours}:{minutes:02d}:{rest:02d}"
