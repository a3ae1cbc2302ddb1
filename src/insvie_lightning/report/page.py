"""The page: what a folder holds, gathered section by section and written in one piece."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from insvie_lightning.errors import InputError, nearest
from insvie_lightning.report.cards import THROUGHPUT, dataset_cards, run_cards
from insvie_lightning.report.charts import BINS
from insvie_lightning.report.curves import joined_chart, metric_groups
from insvie_lightning.report.dataset import is_dataset, read_dataset
from insvie_lightning.report.media import Budget
from insvie_lightning.report.run import galleries, is_run, read_run, scores
from insvie_lightning.report.values import counted, number

HERE = Path(__file__).parent
MAX_CHARTS = 48
PACKAGES = (
    "insvie-lightning",
    "torch",
    "lightning",
    "diffusers",
    "transformers",
    "peft",
    "torchmetrics",
    "webdataset",
    "duckdb",
    "av",
    "numpy",
)


def write_report(folder: Path | str, output: Path | str | None = None) -> Path:
    """Write the page of a run, a data set, or a folder of several of either, and return its path.

    The page is one file below 15 MB that loads nothing; it appears whole or not at all.

    Args:
        folder: A run folder, a data set folder, or a folder of such folders, whose runs are joined in order of name.
        output: The HTML file; `report.html` in the folder by default.

    Raises:
        InputError: The folder is neither, or a file in it is broken.
    """
    folder = Path(folder).resolve()
    output = Path(output) if output else folder / "report.html"
    runs, datasets = _find(folder)
    if output.is_dir():
        raise InputError(f"{output} is a folder, but a file is needed, such as {output / 'report.html'}")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.tmp")
    temporary.write_text(_page(folder, runs, datasets), encoding="utf-8")
    os.replace(temporary, output)
    return output


def _find(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the run folders and the data set folders: the folder itself and those directly in it."""
    if not folder.is_dir():
        beside = [path.name for path in folder.parent.glob("*/")]
        raise InputError(f"{folder} is no folder{nearest(folder.name, beside)}")
    places = [folder, *sorted((path for path in folder.iterdir() if path.is_dir()), key=_natural)]
    datasets = [place for place in places if is_dataset(place)]
    runs = [place for place in places if is_run(place)]
    if not runs and not datasets:
        raise InputError(
            f"{folder} is neither a run nor a data set: neither it nor a folder in it has metrics.csv, summary.json or "
            "samples/step-* (a run), or shard-*.parquet (a data set)"
        )
    return runs, datasets


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", path.name)]


def _page(folder: Path, run_folders: Sequence[Path], dataset_folders: Sequence[Path]) -> str:
    budget = Budget()
    runs = [read_run(place) for place in run_folders]
    results = [scores(run) for run in runs if run.summary]
    # The outcome is what the folder itself says of all that is in it, else the last run's result.
    compared = [result for result in results if result.rows]
    outcome = [result for result in compared if result.run == folder.name] or compared[-1:]
    # The last run comes first here: it is the outcome, so its samples have the first claim on the budget.
    looks = [gallery for run in reversed(runs) for gallery in galleries(run, budget)]
    datasets = [read_dataset(place, budget) for place in dataset_folders]
    logged = {run.name: run.metrics for run in runs}
    groups = metric_groups(logged)
    charts = [joined_chart(name, names, logged) for name, names in list(groups.items())[:MAX_CHARTS]]
    # On a page of more than one folder a figure of a data set says which.
    prefixes = [f"{dataset.name}: " if len(runs) + len(datasets) > 1 else "" for dataset in datasets]
    data_cards = map(dataset_cards, datasets, prefixes)
    loader = PackageLoader("insvie_lightning", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"counted": counted, "number": number}
    script = HERE.joinpath("page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        name=folder.name,
        kind=_kind(len(runs), len(datasets)),
        date=datetime.now(UTC),
        cards=[*run_cards(runs, outcome), *chain.from_iterable(data_cards)],
        results=results,
        sheets=[(run.name, run.sheet) for run in runs if run.sheet],
        galleries=looks,
        charts=[chart for chart in charts if chart.title not in THROUGHPUT],
        speed=[chart for chart in charts if chart.title in THROUGHPUT],
        groups=len(groups),
        diverged=[f"{run.name}: {name}" for run in runs for name, metric in run.metrics.items() if metric.diverged],
        bins=BINS,
        datasets=datasets,
        configs=[(run.name, run.config) for run in runs if run.config],
        environment=_environment(),
        style=Markup(HERE.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _kind(runs: int, datasets: int) -> str:
    if runs + datasets == 1:
        return "run" if runs else "data set"
    counts = {"run": runs, "data set": datasets}
    return ", ".join(f"{count} {noun}{'s' * (count > 1)}" for noun, count in counts.items() if count)


def _environment() -> dict[str, str]:
    facts = {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "code": _commit(),
    }
    return facts | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Return the commit of a checkout that this file is part of; a wheel has none."""
    git = ["git", "-C", str(HERE)]
    try:
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", "page.py"], capture_output=True)
        described = subprocess.run([*git, "describe", "--always", "--dirty"], capture_output=True, text=True)
    except FileNotFoundError:
        return "release"
    return f"commit {described.stdout.strip()}" if tracked.returncode == described.returncode == 0 else "release"
