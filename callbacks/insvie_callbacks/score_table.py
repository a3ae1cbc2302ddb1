"""The scores of a test as tables: in files, in the terminal, and for the page of the run."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from insvie_callbacks.edit_metric import edit_metrics, scores_of
from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.report.published import Dataset
from insvie_lightning.report.score_sheet import (
    SOURCE,
    Grid,
    ScoredEdit,
    ScoreSheet,
    make_sheet,
    write_scores,
    write_sheet,
)

if TYPE_CHECKING:
    from rich.table import Table


class ScoreTable(Callback):
    """Write what all metrics of a test say of every edit, and of every edit type.

    The run folder gets `scores.csv` (key, edit type, instruction, frames, height, width and every metric, a row an
    edit), `tasks.csv` (means by edit type and over all) and `score_table.json` for `insvie report`. The terminal shows
    the means, below the published rows where there are some, with a note on what may be compared. An edit that several
    processes have seen stands there once.

    Args:
        published: Whose published rows to show: `tgve` or `tgve_plus`.
    """

    def __init__(self, published: Dataset | None = None) -> None:
        self.published = published
        self._edits: dict[str, tuple[str, str, tuple[int, int, int] | None]] = {}
        self._folder = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run folder on every process, since `log_dir` is broadcast."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._edits = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: EditedVideos,  # type: ignore[override]
        batch: EditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note what each edit is."""
        frames, _, height, width = outputs.edited.shape[1:]
        types = batch.edit_types or ("",) * len(batch)
        for key, edit_type, instruction in zip(batch.keys, types, batch.instructions, strict=True):
            shape = None if key in outputs.missing else (frames, height, width)
            self._edits[key] = (edit_type, instruction, shape)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the edits of all processes; the first one writes."""
        values = scores_of(trainer)
        own = [ScoredEdit(key, *about, values.get(key, {})) for key, about in self._edits.items()]
        edits = _gather(own)
        if not trainer.is_global_zero:
            return
        metrics = [callback.metric for callback in edit_metrics(trainer)]
        columns = [column for metric in metrics for column in metric.columns]
        models = {column: str(getattr(metric, "model", "")) for metric in metrics for column in metric.columns}
        write_scores(self._folder, edits, columns)
        sheet = make_sheet(edits, columns, self.published, models)
        write_sheet(self._folder, sheet)
        _print(sheet)


def _gather(own: list[ScoredEdit]) -> list[ScoredEdit]:
    """The edits of all processes, each once, in the order of the data, of which process r of w saw r, r + w, ..."""
    shares: list[list[ScoredEdit]] = [own]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(shares, own)
    rounds = zip_longest(*shares)
    return list({edit.key: edit for edits in rounds for edit in edits if edit is not None}.values())


def _print(sheet: ScoreSheet) -> None:
    from rich.console import Console

    console = Console()
    if sheet.published:
        # Where the published rows come from is on the page; a terminal has no room for it.
        columns = sheet.published.columns.index(SOURCE)
        narrow = Grid(sheet.published.columns[:columns], tuple(row[:columns] for row in sheet.published.rows))
        console.print(_table(narrow, f"{sheet.title}: published, and this run", ours=len(narrow.rows) - 1))
    console.print(_table(sheet.tasks, f"{sheet.title}: means by edit type"))
    for note in sheet.notes:
        console.print(f"- {note}", highlight=False, markup=False)


def _table(grid: Grid, title: str, ours: int | None = None) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(grid.columns):
        table.add_column(Text(column), justify="right" if i else "left", no_wrap=i == 0, overflow="fold")
    for i, row in enumerate(grid.rows):
        last = ours is not None and i == ours - 1
        table.add_row(*map(Text, row), style="bold" if i == ours else None, end_section=last)
    return table
