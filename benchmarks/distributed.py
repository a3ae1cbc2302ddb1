"""Whether DDP and FSDP2 train what one process trains: by NCCL on two GPUs or more, elsewhere by gloo on CPUs.

Command:  python benchmarks/distributed.py [--devices 2] [--steps 4]
Hardware: two GPUs or more of one machine; or any CPU, where it takes a minute.
Result:   a table of what each way trained, with the largest differences from one process that computes the batches of
          all others in turn, and a line of JSON. Status 1 where a loss differs by more than 1e-4 of itself or a weight
          by more than 1e-4, which sums in another order stay far below. That FSDP1 is refused is shown, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from insvie_lightning.batch import EditBatch
from insvie_lightning.commands.lightning_cli import InsvieCLI
from insvie_lightning.editors import InsViE
from insvie_lightning.errors import InputError
from insvie_lightning.plugins import load_plugins
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.toy.edits import example, to_triplet

WAYS = ("alone", "ddp", "fsdp")
"""One process; or the overlay of that name."""
BATCH = 2
"""Samples of each process and step."""
TOLERANCE = 1e-4
MODEL = ("--model.trainable=lora", "--model.lora_rank=8", "--model.lora_alpha=8", "--model.warmup_steps=1")
"""The toy model is trained as the real one: LoRA and the patch embedding."""
FSDP1 = "--trainer.strategy.class_path=lightning.pytorch.strategies.FSDPStrategy"


@dataclass(frozen=True, slots=True)
class Trained:
    """What one way trained.

    Attributes:
        backend: What its processes talk by.
        losses: Of each process, step by step.
        weights: All trained weights.
        seconds: From start to end, with all that is loaded.
    """

    backend: str
    losses: list[list[float]]
    weights: dict[str, torch.Tensor]
    seconds: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a way is from one process: the largest difference of a loss, as a share of it, and of a weight."""

    loss: float
    weight: float

    @property
    def agrees(self) -> bool:
        """Whether both are within the tolerance; NaN is not."""
        return self.loss <= TOLERANCE and self.weight <= TOLERANCE


class Losses(Callback):
    """Writes the losses of this process, and what it talks by, into the run folder."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note one; Lightning has divided it by the number of accumulated batches."""
        self.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write all."""
        backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else "none"
        told = {"backend": backend, "losses": self.losses}
        Path(trainer.default_root_dir, f"losses-{trainer.global_rank}.json").write_text(json.dumps(told))


class InTurn(InsViE):
    """One process in the place of several: it draws for each batch what the process that it belongs to would draw."""

    processes = 1
    turn = 0

    @property
    def _world_size(self) -> int:
        return self.processes

    @property
    def global_rank(self) -> int:
        """The process whose turn it is."""
        return self.turn

    def training_step(self, batch: EditBatch, batch_idx: int) -> torch.Tensor:
        """Take the turn of a process."""
        self.turn = batch_idx % self.processes
        return super().training_step(batch, batch_idx)


def write_data(folder: Path, count: int) -> None:
    """Toy samples of 9 frames of 64 x 96."""
    with ShardWriter(folder, shard_size=count, lossless=True) as writer:
        for number in range(count):
            writer.write(to_triplet(example("train", number), frames=9, height=64, width=96))


def build(way: str, folder: Path, accelerator: str, devices: int, steps: int) -> InsvieCLI:
    """What `insvie fit -c s1 -c toy -c WAY` would run on the data in `folder`."""
    load_plugins()
    run, alone = folder / way, way == "alone"
    trainer = {
        "accelerator": accelerator, "devices": 1 if alone else devices, "max_steps": steps, "default_root_dir": run,
        "accumulate_grad_batches": devices if alone else 1, "logger": "false", "enable_progress_bar": "false",
        "enable_model_summary": "false", "callbacks": "[SaveEditor]",
    }  # fmt: skip
    data = {"shards": folder / "data", "batch_size": BATCH * devices if alone else BATCH}
    recipes = ["-c", "s1", "-c", "toy", *([] if alone else ["-c", way])]
    options = [f"--trainer.{name}={value}" for name, value in trainer.items()]
    options += [f"--data.{name}={value}" for name, value in data.items()]
    return InsvieCLI([*recipes, *options, *MODEL], run=False)


def fit(way: str, folder: Path, accelerator: str, devices: int, steps: int) -> None:
    """Train by one way; what comes of it lies in the folder `way`."""
    cli = build(way, folder, accelerator, devices, steps)
    cli.trainer.callbacks.append(Losses())
    if way != "alone":
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        return
    cli.model.__class__ = InTurn
    cli.model.processes = devices
    batches = [part for whole in islice(cli.datamodule.train_dataloader(), steps) for part in deal(whole, devices)]
    cli.trainer.fit(cli.model, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def deal(whole: EditBatch, processes: int) -> list[EditBatch]:
    """The batches that the processes draw of what they draw together."""
    assert whole.source is not None and whole.edited is not None
    return [
        EditBatch(
            whole.keys[first::processes],
            whole.instructions[first::processes],
            position=whole.position,
            source=whole.source[first::processes],
            edited=whole.edited[first::processes],
        )
        for first in range(processes)
    ]


def read(run: Path, devices: int, seconds: float) -> Trained:
    """What a way left behind."""
    told = [json.loads(path.read_text()) for path in sorted(run.glob("losses-*.json"))]
    losses = [each["losses"] for each in told]
    if run.name == "alone":
        losses = [losses[0][first::devices] for first in range(devices)]
    return Trained(told[0]["backend"], losses, load_file(run / "weights/raw.safetensors"), seconds)


def compare(one: Trained, other: Trained) -> Difference:
    """How far a way is from one process.

    Raises:
        ValueError: They did not train the same weights, or not as many steps on as many processes.
    """
    if one.weights.keys() != other.weights.keys():
        raise ValueError("the ways trained different weights")
    mine, theirs = torch.tensor(one.losses), torch.tensor(other.losses)
    if mine.shape != theirs.shape:
        raise ValueError(f"losses of {tuple(mine.shape)} and {tuple(theirs.shape)} processes and steps")
    weights = [(value - other.weights[name]).abs().max() for name, value in one.weights.items()]
    return Difference(((theirs - mine).abs() / mine.abs()).max().item(), torch.stack(weights).max().item())


def refusal() -> str:
    """What is said to whom asks for FSDP1.

    Raises:
        ValueError: Nothing.
    """
    load_plugins()
    try:
        InsvieCLI(["-c", "s1", "-c", "toy", FSDP1, "--data.shards=x"], run=False)
    except InputError as error:
        return str(error)
    raise ValueError("FSDP1 was not refused")


def distributed(accelerator: str, devices: int, steps: int, tell: Any = print) -> bool:
    """Train by every way, each in processes of its own, and tell how they differ; whether they agree."""
    trained: dict[str, Trained] = {}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder / "data", BATCH * devices * 2)
        for way in WAYS:
            start = time.monotonic()
            options = [f"--folder={folder}", f"--accelerator={accelerator}", f"--devices={devices}", f"--steps={steps}"]
            subprocess.run([sys.executable, __file__, f"--way={way}", *options], check=True, stdout=sys.stderr)
            trained[way] = read(folder / way, devices, time.monotonic() - start)
    differences = {way: compare(trained["alone"], each) for way, each in trained.items()}
    tell("| way | processes | by | seconds | last loss | a loss differs by | a weight differs by |")
    tell("|---|---|---|---|---|---|---|")
    for way, each in trained.items():
        count, far = 1 if way == "alone" else devices, differences[way]
        last = sum(losses[-1] for losses in each.losses) / devices
        told = f"{far.loss:.1e} | {far.weight:.1e}"
        tell(f"| {way} | {count} | {each.backend} | {each.seconds:.0f} | {last:.5f} | {told} |")
    tell(f"FSDP1: {refusal()}")
    agrees = all(far.agrees for far in differences.values())
    tell(json.dumps({"benchmark": "distributed", "accelerator": accelerator, "devices": devices, "steps": steps,
                     "agrees": agrees, **{way: asdict(far) for way, far in differences.items()}}))  # fmt: skip
    return agrees


def main() -> int:
    """Read the command line."""
    gpus = torch.cuda.device_count()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="gpu" if gpus > 1 else "cpu", help="gpu where there are two or more")
    parser.add_argument("--devices", type=int, default=2, help="processes, each with a GPU if there are; default 2")
    parser.add_argument("--steps", type=int, default=4, help="default 4")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        fit(given.way, given.folder, given.accelerator, given.devices, given.steps)
        return 0
    return 0 if distributed(given.accelerator, given.devices, given.steps) else 1


if __name__ == "__main__":
    sys.exit(main())
