"""The curriculum: stages of training samples in one exact, resumable order."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from insvie_data_modules.samples import Folders, Form, Sample, check_cache, fill_form
from insvie_data_modules.shard_set import ShardSet
from insvie_data_modules.stages import PlannedStage, RankSampler, StagedSamples, plan_stage
from insvie_data_modules.workers import outlast_signals
from insvie_lightning.errors import InputError
from insvie_lightning.quarantine import Quarantine, read_quarantine
from insvie_lightning.video import Resize


@dataclass
class Stage:
    """One stage of a curriculum.

    Attributes:
        name: Unique; the order of the samples and their crops derive from it and the seed, so that a stage of a long
            curriculum draws what a run of that stage alone draws.
        steps: Optimizer steps.
        where: WHERE clause over the manifest.
        static_to_real: Static samples to real ones, such as '5:1' (in quotes) or 0.5; None takes samples as they come.
        shards: Shard folder of this stage; None takes the curriculum's.
    """

    name: str
    steps: int
    where: str = "true"
    static_to_real: str | float | None = None
    shards: str | None = None


class Curriculum(LightningDataModule):
    """Training samples stage by stage, in an order that depends on neither ranks nor workers; resume is exact.

    Rank r of w draws the samples r, r + w, r + 2w, ... of the order, so each global batch is a window of it, and the
    ratio of static to real samples holds exactly over any window. A sample that cannot be read is set aside in
    `quarantine-rank0.jsonl` of the run folder and the next one of its stream takes its place.

    A resumed run must select the same samples and have as many of them in an optimizer step; processes, batch size and
    accumulated batches may change as long as their product does not.

    Args:
        shards: Shard folder, or several.
        stages: The stages in their order; None is a single one of 20000 steps.
        batch_size: Samples per batch and process.
        frames: Number of frames, at the widest even stride that the clip allows, from a random start; None is what the
            trainer's model was made for.
        size: Height and width in pixels; None as of `frames`.
        resize: `crop` cuts the same random window out of both clips, `cover` scales to cover and cuts the middle,
            `stretch` scales.
        scale_small: Scale both clips of a sample that is too small for the window of `crop`, such as the square ones
            of the release, until they cover it; False counts the sample as bad.
        pad_short: Repeat the last frame of a clip that is shorter than `frames`; otherwise it counts as bad.
        num_workers: Worker processes.
        seed: Seed of the order and of the crops.
        real_includes_pairs: Count image pairs as real samples in `static_to_real`; False leaves them out of every stage
            that has such a ratio.
        pool_shards: Number of shards whose samples are mixed.
        max_bad_rate: Share of bad samples above which the run stops.
        val_shards: Shard folder for validation, or several; None validates nothing.
        val_samples: At most so many validation samples, the first ones.
        crop_latents: With `crop`, encode the whole frame and cut the window out of its latents, as cached latents are
            cut, instead of out of the pixels; all clips are then of one size.
        steps_scale: Factor on the steps of every stage, such as 0.05 to rehearse a long curriculum; at least 1 is left.
    """

    def __init__(
        self,
        shards: Folders,
        stages: list[Stage] | None = None,
        batch_size: int = 2,
        frames: int | None = 25,
        size: tuple[int, int] | None = (480, 720),
        resize: Resize = "crop",
        pad_short: bool = False,
        scale_small: bool = True,
        num_workers: int = 0,
        seed: int = 0,
        real_includes_pairs: bool = True,
        pool_shards: int = 16,
        max_bad_rate: float = 0.05,
        val_shards: Folders | None = None,
        val_samples: int = 64,
        steps_scale: float = 1.0,
        crop_latents: bool = False,
    ) -> None:
        super().__init__()
        self.shards = shards
        self.stages = _scaled(stages or [Stage("all", steps=20_000)], steps_scale)
        self.batch_size = batch_size
        if crop_latents and resize != "crop":
            raise InputError(f"crop_latents cuts windows, but resize is {resize!r}; set --data.resize crop")
        self.form = Form(frames, size, resize, pad_short, scale_small, crop_latents=crop_latents)
        self.num_workers = num_workers
        self.seed = seed
        self.real_includes_pairs = real_includes_pairs
        self.pool_shards = pool_shards
        self.max_bad_rate = max_bad_rate
        self.val_shards = val_shards
        self.val_samples = val_samples
        self._order: str | None = None
        self._resumed: dict[str, Any] | None = None
        self._plans: list[PlannedStage] = []
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; legal is 1 or more")
        _check(self.stages)

    def setup(self, stage: str) -> None:
        """Select the samples, so that what is wrong with the data is said before weights are loaded, and say how many.

        Raises:
            InputError: A shard folder is missing, or a stage selects too little.
        """
        if stage == "fit":
            self._plans = self._plan()
            left = self.trainer.max_steps if self.trainer and self.trainer.max_steps >= 0 else math.inf
            for planned, given in zip(self._plans, self.stages, strict=True):
                steps = min(given.steps, left)
                left -= steps
                drawn = f"{self._samples_per_step} of {len(planned.rows)} samples"
                rank_zero_info(f"stage {planned.name}: {steps} steps of {drawn}")

    def train_dataloader(self) -> DataLoader[tuple[int, Sample]]:
        """One loader over all stages, of sum(steps) * accumulate_grad_batches batches.

        Raises:
            InputError: A shard folder is missing, a stage selects too little, or a resumed run would see another order.
        """
        plans = self._plans or self._plan()
        forms = [fill_form(self.form, self.trainer, stage) for stage in range(len(plans))]
        for plan, form in zip(plans, forms, strict=True):
            check_cache(plan.rows, form, self.trainer)
        dataset = StagedSamples(
            plans,
            samples_per_batch=self._samples_per_batch,
            forms=forms,
            seed=self.seed,
            quarantine=Quarantine(self._quarantine_path, self.max_bad_rate),
        )
        self._order = dataset.fingerprint()
        # The sampler starts where the checkpoint was saved; Lightning cannot know.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        resumed = self._resumed_batches() % sum(plan.batches for plan in plans)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=RankSampler(dataset, **self._ranks, start=resumed * self.batch_size),
            num_workers=self.num_workers,
            worker_init_fn=outlast_signals,
            collate_fn=dataset.collate,
            pin_memory=torch.cuda.is_available(),
        )

    def _plan(self) -> list[PlannedStage]:
        return [
            plan_stage(
                name=stage.name,
                batches=stage.steps * self._accumulate,
                folders=stage.shards or self.shards,
                where=stage.where,
                static_to_real=stage.static_to_real,
                real_includes_pairs=self.real_includes_pairs,
                seed=self.seed,
                pool_shards=self.pool_shards,
            )
            for stage in self.stages
        ]

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """The validation samples in the manifest's order; nothing without `val_shards`.

        Raises:
            InputError: There are none, and validation is all that is asked for.
        """
        if self.val_shards is None:
            if self.trainer and self.trainer.state.fn == TrainerFn.VALIDATING:
                raise InputError("there is nothing to validate: name a shard folder with --data.val_shards DIR")
            warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero.*")
            return []
        form = fill_form(self.form, self.trainer)
        return ShardSet(
            self.val_shards,
            batch_size=self.batch_size,
            frames=form.frames,
            size=form.size,
            resize=form.resize,
            pad_short=form.pad_short,
            scale_small=form.scale_small,
            limit=self.val_samples,
            num_workers=self.num_workers,
        ).val_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """How far the run is, and in which order."""
        if self.trainer is None or self._order is None:
            return {}
        # Only what is in an optimizer step counts: gradients accumulated since are not saved.
        steps = self._processed // self._accumulate
        return {"steps": steps, "samples_per_step": self._samples_per_step, "order": self._order}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the position; the next training loader starts there."""
        self._resumed = state_dict

    def teardown(self, stage: str) -> None:
        """Report what was set aside."""
        self._plans = []
        if stage == "fit" and (bad := read_quarantine(self._quarantine_path)):
            rank_zero_info(f"{len(bad)} bad samples were replaced; {self._quarantine_path} has their keys and reasons")

    @property
    def _ranks(self) -> dict[str, int]:
        kwargs = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return kwargs or {"num_replicas": 1, "rank": 0}

    @property
    def _samples_per_batch(self) -> int:
        return self.batch_size * self._ranks["num_replicas"]

    @property
    def _accumulate(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    @property
    def _samples_per_step(self) -> int:
        return self._samples_per_batch * self._accumulate

    @property
    def _processed(self) -> int:
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]

    @property
    def _quarantine_path(self) -> Path:
        folder = self.trainer.default_root_dir if self.trainer else "."
        return Path(folder) / f"quarantine-rank{self._ranks['rank']}.jsonl"

    def _resumed_batches(self) -> int:
        if not self._resumed:
            return 0
        if (then := self._resumed["samples_per_step"]) != self._samples_per_step:
            raise InputError(
                f"the run to resume had {then} samples in an optimizer step, this one has {self._samples_per_step}: "
                "keep batch_size x processes x accumulate_grad_batches, or start anew with --ckpt_path new"
            )
        if self._resumed["order"] != self._order:
            raise InputError(
                "the run to resume drew other samples or in another order: give it the same shards, stages and seed, "
                "or start anew with --ckpt_path new (--model.start_from takes its weights over)"
            )
        batches = int(self._resumed["steps"]) * self._accumulate
        if self._processed not in (0, batches):  # 0: a module asks for its number of steps before progress is restored
            raise InputError(
                "the checkpoint was saved between two optimizer steps, or accumulate_grad_batches was changed; only "
                "RunCheckpoint saves what is needed to go on from there"
            )
        return batches


def _scaled(stages: list[Stage], scale: float) -> list[Stage]:
    if not 0 < scale < math.inf:
        raise InputError(f"steps_scale is {scale:g}; legal are numbers above 0")
    return [replace(stage, steps=max(round(stage.steps * scale), min(stage.steps, 1))) for stage in stages]


def _check(stages: list[Stage]) -> None:
    names = [stage.name for stage in stages]
    for stage in stages:
        if stage.steps < 1:
            raise InputError(f"stage {stage.name!r} has steps: {stage.steps}; legal is 1 or more")
        if names.count(stage.name) > 1:
            raise InputError(f"{names.count(stage.name)} stages are called {stage.name!r}; names must differ")
