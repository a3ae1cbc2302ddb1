"""The key figures on top of the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from insvie_lightning.report.curves import Metrics
from insvie_lightning.report.dataset import DataSet
from insvie_lightning.report.run import Run, Scores, steps_made
from insvie_lightning.report.values import counted, number, show

THROUGHPUT = ("samples_per_second", "data_wait_share", "peak_memory_mib", "step_ms")


@dataclass(frozen=True, slots=True)
class Card:
    """A key figure, with a few words about it."""

    label: str
    value: str
    note: str = ""


def run_cards(runs: Sequence[Run], results: Sequence[Scores]) -> Iterator[Card]:
    """Yield the first scores beside their baselines, then how the training went."""
    for result in results:
        for name, (ours, *baselines) in result.rows[:3]:
            beside = zip(result.columns[1:], baselines, strict=True)
            yield Card(name, ours.text, _listed(f"{column} {cell.text}" for column, cell in beside if cell.text))
    trained = [run for run in runs if any(len(metric.curve[0]) > 1 for metric in run.metrics.values())]
    if trained:
        steps = {run.name: steps_made(run) for run in trained}
        note = " + ".join(f"{name} {number(count)}" for name, count in steps.items())
        yield Card("training steps", number(sum(steps.values())), note if len(steps) > 1 else "")
        yield from _last_run_cards(trained[-1].name, trained[-1].metrics)


def _last_run_cards(run: str, metrics: Metrics) -> Iterator[Card]:
    drawn = {name: metric.curve[1] for name, metric in metrics.items() if len(metric.curve[1]) > 1}
    for name in [name for name in drawn if "loss" in name][:1]:
        first, last = (show(name, float(value)) for value in drawn[name][[0, -1]])
        yield Card(f"latest {name}", last, f"from {first} in {run}")
    median = {name: show(name, float(np.median(drawn[name]))) for name in THROUGHPUT if name in drawn}
    if "samples_per_second" in median:
        notes = {"data_wait_share": "waiting for data", "peak_memory_mib": "memory"}
        note = _listed(f"{words} {median[name]}" for name, words in notes.items() if name in median)
        yield Card("median throughput", median["samples_per_second"], note)


def dataset_cards(dataset: DataSet, prefix: str) -> Iterator[Card]:
    """Yield how much there is, and of which origins; `prefix` says of which data set."""
    share = f"{100 * dataset.accepted / dataset.rows:.3g} % of {number(dataset.rows)} made"
    yield Card(f"{prefix}samples", number(dataset.accepted), share)
    size = f"{number(round(dataset.bytes / 1e6, 1))} MB in {counted(dataset.shards, 'shard')}"
    yield Card(f"{prefix}length", _duration(dataset.seconds), size)
    origins = dataset.counts["origin"]
    if origins:
        ratio, labels = (":".join(part) for part in zip(*((f"{b.percent:.0f}", b.label) for b in origins), strict=True))
        yield Card(f"{prefix}origins", ratio, f"{labels}, in percent")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _listed(parts: Iterable[str]) -> str:
    return " \N{MIDDLE DOT} ".join(parts)
