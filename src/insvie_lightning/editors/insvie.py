"""InsViE: CogVideoX with the source video's latents beside the noise, LoRA, and three-branch guidance.

Paper: arXiv 2503.20287 (ICCV 2025). Where paper and released code differ, both are options; the docstring says whose
value is whose, the recipes in `configs/` which one is used.
"""

import time
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import CogVideoXTransformer3DModel
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from insvie_lightning.batch import Clip, EditBatch, EditedVideos, Position
from insvie_lightning.diffusion.conditioning import (
    CELLS,
    ConditionDropout,
    SourceNoise,
    count_cells,
    draw_cells,
    draw_identity_pairs,
    drop_conditions,
    make_identity_pairs,
)
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.diffusion.losses import frame_weighted_mse
from insvie_lightning.diffusion.sampling import Sampler
from insvie_lightning.editors.building import (
    build_networks,
    check_precision,
    continue_from,
    keep_trained,
    restore,
    to_deliverable,
)
from insvie_lightning.editors.editor import Editor
from insvie_lightning.editors.flops import flops_per_sample
from insvie_lightning.editors.objective import draw_noised, encode_clips, lpips_of_prediction, weight_of_stage
from insvie_lightning.editors.optimizer import LRSchedule, adamw, clip_gradients
from insvie_lightning.editors.options import EditOptions
from insvie_lightning.editors.sampling import BRANCHES, draw_starts, sample_edit, seeded_generator
from insvie_lightning.errors import InputError
from insvie_lightning.nets.execution import Execution, TimedKernels, choose_attention
from insvie_lightning.nets.latents import cut_windows, decode_latents, encode_pixels, encode_prompts, to_device_pixels
from insvie_lightning.nets.perceptual import PerceptualLoss, build_lpips
from insvie_lightning.nets.sharing import Sharing, in_turns
from insvie_lightning.nets.source_concat import (
    add_lora,
    concat_source,
    is_merged,
    looks_at_source,
    widen_patch_embedding,
)
from insvie_lightning.weights.components import hash_encoder
from insvie_lightning.weights.deliverable import Deliverable, load_trainable

DELIVERED = ("lora_rank", "lora_alpha", "trainable", "guidance", "num_inference_steps", "sampler", "seed")
"""The settings that a deliverable stores."""


class InsViE(LightningModule):
    """Instruction video editor on CogVideoX.

    Args:
        base: Text-to-video model in diffusers' layout: a folder, a hub id, or `toy` for the shipped toy model.
        start_from: The `weights` folder of an earlier run: its raw and averaged weights carry on.
        lora_rank: Rank r; 128 in paper and code.
        lora_alpha: LoRA is scaled by alpha / r; the released code has 1, the paper does not say.
        trainable: `lora` trains LoRA and the patch embedding; `all` the whole transformer.
        lr: Peak learning rate; 1e-3 in the paper.
        betas: Of Adam; (0.9, 0.95) in the paper.
        weight_decay: Decoupled; 1e-5 in the paper.
        lr_schedule: A schedule name of diffusers; restarts with every stage. The paper does not say.
        warmup_steps: Linear warm-up of every stage.
        condition_dropout: Shares of samples trained without text and without source.
        frame_weight_mix: 0.5 in the released code, 0 in the paper (see `losses.frame_weights`).
        source_noise: The released code's noise on the source, in training. `true` adds it to the pixels before they are
            encoded, which cached latents cannot spare. `latents` adds to cached latents what such noise was measured
            to do to them, an approximation (see `add_latent_noise`) that encodes nothing; a source whose latents are
            not cached has it on its pixels.
        identity_pairs: Share of real and static samples that are trained as source -> source with an empty sentence.
            The released data set appends such a pair to 5 % of its rows, a share of 0.048; the paper has none.
        lpips_weight: w in loss = (1 - w) v-MSE + w LPIPS; one value, or one for each stage of a curriculum.
        perceptual: What LPIPS looks at.
        guidance: Form, scales and schedule of three-branch guidance.
        num_inference_steps: Sampler steps; 50 in the released code.
        sampler: `dpm` is SDE-DPM-Solver++ 2M of diffusers, `released` the same solver with the released code's own
            noise levels (see `ReleasedDPMScheduler`), `ddim` is deterministic.
        edit_options: How videos are brought to the network and back under test and predict, and by `edit` unless told
            otherwise. The paper tests with `resize: stretch`, the released script cuts with `frame_rule: release,
            resize: cover`.
        max_validation_seconds: Of the edits of one validation, on each process; samples beyond are missing, so that a
            slow process does not hold up the others for long. Their loss is taken all the same.
        use_ema: Edit and test with the averaged weights of `start_from` when there are any.
        execution: How the networks are run: what is recomputed, compiled and fused, and by which kernels.
        seed: Of every draw of training and sampling; independent of workers.
    """

    def __init__(
        self,
        base: str = "zai-org/CogVideoX-2b",
        start_from: Path | None = None,
        lora_rank: int = 128,
        lora_alpha: float = 1.0,
        trainable: Literal["lora", "all"] = "lora",
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 1e-5,
        lr_schedule: LRSchedule = "constant_with_warmup",
        warmup_steps: int = 100,
        condition_dropout: ConditionDropout = ConditionDropout(),  # noqa: B008 (frozen)
        frame_weight_mix: float = 0.5,
        source_noise: SourceNoise = False,
        identity_pairs: float = 0.0,
        lpips_weight: float | list[float] = 0.0,
        perceptual: PerceptualLoss = PerceptualLoss(),  # noqa: B008 (frozen)
        guidance: Guidance = Guidance(),  # noqa: B008 (frozen)
        num_inference_steps: int = 50,
        sampler: Sampler = "dpm",
        edit_options: EditOptions = EditOptions(),  # noqa: B008 (frozen)
        max_validation_seconds: float | None = None,
        use_ema: bool = True,
        execution: Execution = Execution(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= identity_pairs <= 1:
            raise InputError(f"identity_pairs is {identity_pairs}; legal are values from 0 to 1")
        if source_noise not in (True, False, "latents"):
            raise InputError(f"source_noise is {source_noise!r}; legal are true, latents and false")
        self.base, self.start_from = base, start_from
        self.lora_rank, self.lora_alpha, self.trainable = lora_rank, lora_alpha, trainable
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.lr_schedule, self.warmup_steps = lr_schedule, warmup_steps
        self.condition_dropout, self.frame_weight_mix = condition_dropout, frame_weight_mix
        self.source_noise, self.identity_pairs = source_noise, identity_pairs
        self.lpips_weights = [lpips_weight] if isinstance(lpips_weight, int | float) else list(lpips_weight)
        self.perceptual = perceptual
        self.guidance, self.num_inference_steps, self.sampler = guidance, num_inference_steps, sampler
        self.edit_options, self.max_validation_seconds = edit_options, max_validation_seconds
        self.use_ema, self.execution, self.seed = use_ema, execution, seed
        self.strict_loading = False  # checkpoints hold the trained weights only
        self.base_dtype = torch.float32  # half precision is for editing only
        self.transformer: Any = None  # a CogVideoXTransformer3DModel, from configure_model on
        self.ema: dict[str, Tensor] | None = None
        self.ema_updates = 0
        self.cells_seen = torch.zeros(len(CELLS), dtype=torch.long)
        self._cells_at_step = self.cells_seen  # a resumed run draws again what came after the last step
        self._kernels: TimedKernels = {}
        self._stage_index = 0
        self._sharing: Sharing | None = None
        self._editing_seconds = 0.0

    # ---------------------------------------------------------------- building

    def configure_model(self) -> None:
        """Load the base, widen its patch embedding, add LoRA, and continue from `start_from`."""
        if self.transformer is not None:
            return
        check_precision(self.execution, self._trainer)
        parts = build_networks(self.base, self._adapt, self.sampler, self.execution, self.base_dtype, self.seed)
        self.transformer, self.vae, self.text_encoder = parts.transformer, parts.vae, parts.text_encoder
        self.tokenizer, self.scheduler = parts.tokenizer, parts.scheduler
        self.lpips = build_lpips(self.perceptual) if max(self.lpips_weights) > 0 else None
        if self.start_from is not None:
            lora = ["lora_rank", "lora_alpha"] if self.trainable == "lora" else []
            continue_from(self, self.start_from, ["trainable", *lora])
        self._sharing = Sharing.of(self.trainer) if self._trainer is not None else None
        if self._sharing is not None:
            for network in (self.transformer, self.text_encoder):
                self._sharing.share(network)

    def _adapt(self, transformer: CogVideoXTransformer3DModel) -> None:
        widen_patch_embedding(transformer)
        if self.trainable == "lora":
            add_lora(transformer, self.lora_rank, self.lora_alpha)

    def setup(self, stage: str) -> None:
        """Outside training, take the averaged weights; say when a test is of an editor that was never trained."""
        if stage == "fit":
            return
        self.configure_model()  # Lightning would call it only after this hook
        if self.use_ema and self.ema is not None:
            load_trainable(self.transformer, self.ema, str(self.start_from))
        if stage == "test" and not self.trainer.ckpt_path and not looks_at_source(self.transformer):
            rank_zero_info(
                "this editor was never trained and cannot see the source; give it weights with --model.start_from"
            )

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32, **settings: Any) -> "InsViE":
        """Build a trained editor from the `weights` folder of a run; keyword arguments override its settings.

        Args:
            folder: The deliverable.
            dtype: That the base is loaded in.
            settings: Arguments of the class.

        Raises:
            InputError: When the folder is no deliverable of this editor.
        """
        return restore(cls, Path(folder), dtype, settings)

    def deliverable(self) -> Deliverable:
        """The trained weights and what is needed to build the editor around them; called by all processes."""
        return to_deliverable(self, DELIVERED)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the frozen networks out of resume checkpoints; the stage and the counted cells go in."""
        checkpoint["stage_index"], checkpoint["cells_seen"] = self._stage_index, self._cells_at_step
        keep_trained(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume in the stage of the checkpoint, so that its optimizer and schedule go on."""
        self._stage_index = checkpoint.get("stage_index", 0)
        self._cells_at_step = torch.as_tensor(checkpoint.get("cells_seen", self._cells_at_step))
        self.cells_seen = self._cells_at_step

    # ---------------------------------------------------------------- training

    def training_step(self, batch: EditBatch, batch_idx: int) -> Tensor:
        """Encode, noise, predict, weigh, mean."""
        position = batch.position or Position(f"epoch {self.current_epoch}", 0, batch_idx)
        generator = self._generator(position)
        if self.identity_pairs > 0:
            chosen = draw_identity_pairs(batch, self.identity_pairs, f"{self.seed}/{position.stage}/{position.step}")
            share = torch.tensor(sum(chosen) / len(chosen))  # a plain number would be copied to the device
            self.log("identity_pairs", share, on_step=False, on_epoch=True, batch_size=len(batch))
            batch = make_identity_pairs(batch, chosen)
        loss = self._loss(batch, generator, training=True)
        # Lightning reads what is in the bar after every batch; a GPU would be waited for, and metrics.csv has the loss.
        self.log("train_loss", loss, prog_bar=not self.on_gpu, batch_size=len(batch))
        return loss

    def compares_pixels(self, stage: int) -> bool:
        """Whether the loss of a stage looks at the pixels of edited clips, which cached latents may come with."""
        return weight_of_stage(self.lpips_weights, stage) > 0

    def flops_per_sample(self, batch: EditBatch) -> int:
        """Operations that training on one sample of a batch needs; `Throughput` compares speed with it."""
        return flops_per_sample(self, batch)

    def _loss(self, batch: EditBatch, generator: torch.Generator, training: bool) -> Tensor:
        z_source, z_edited = encode_clips(self.vae, batch, generator, self.source_noise if training else False)
        prompts = self._embed(batch.instructions)
        noised = draw_noised(z_edited, self.scheduler, generator, self.global_rank, self._world_size)
        if training:
            cells = draw_cells(len(batch), self.condition_dropout, generator)
            self.cells_seen = self.cells_seen.to(cells.device) + count_cells(cells)
            z_source, prompts = drop_conditions(z_source, prompts, cells)
        self._choose_attention(noised.noisy.shape, training)
        prediction = concat_source(self.transformer, noised.noisy, z_source, prompts, noised.timesteps)
        loss = frame_weighted_mse(prediction, noised.velocity, self.frame_weight_mix).mean()
        weight = weight_of_stage(self.lpips_weights, batch.position.index if batch.position else 0) if training else 0.0
        if weight > 0:
            perceptual = lpips_of_prediction(
                self.lpips, self.vae, noised, prediction, batch, self.perceptual, generator
            )
            self.log("train_lpips", perceptual, batch_size=len(batch))
            loss = (1 - weight) * loss + weight * perceptual
        return loss

    def on_train_batch_start(self, batch: EditBatch, batch_idx: int) -> None:
        """At the border of two stages, restart optimizer and schedule; raw and averaged weights carry on."""
        if batch.position is not None and batch.position.index != self._stage_index:
            self._stage_index = batch.position.index
            self.trainer.strategy.setup_optimizers(self.trainer)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the counts of what the step was made of."""
        self._cells_at_step = self.cells_seen

    def on_train_epoch_end(self) -> None:
        """Log the shares of the four cells."""
        counts = self.cells_seen.tolist()
        for name, count in zip(CELLS, counts, strict=True):
            self.log(f"cell_{name}", count / max(1, sum(counts)))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over what is trained, with the schedule of the current stage."""
        return adamw(
            self, self.lr, self.betas, self.weight_decay, self.lr_schedule, self.warmup_steps, self._stage_index
        )

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip fused optimizers under bf16-mixed, too."""
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    # ---------------------------------------------------------------- sampling

    def validation_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:  # type: ignore[override]
        """Loss at fixed draws, and edited videos for the callbacks."""
        generator = self._generator(Position("validation", 0, batch_idx))
        self.log("val_loss", self._loss(batch, generator, training=False), prog_bar=True, batch_size=len(batch))
        start = time.perf_counter()
        with in_turns(self._sharing):
            if self.max_validation_seconds is not None and self._editing_seconds >= self.max_validation_seconds:
                nothing = torch.empty(len(batch), 0) if batch.source is None else batch.source
                return EditedVideos(nothing, missing=frozenset(batch.keys))
            edited = self.edit_batch(batch)
            self._editing_seconds += time.perf_counter() - start
        return EditedVideos(edited)

    def on_validation_epoch_start(self) -> None:
        """Each validation has its own time."""
        self._editing_seconds = 0.0

    def test_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:  # type: ignore[override]
        """Edited videos for the callbacks; any length and size."""
        with in_turns(self._sharing):  # long videos are edited in more windows than short ones
            return Editor(self).edit_batch(batch)

    def on_predict_start(self) -> None:
        """Ranks predict unevenly many videos."""
        if self._sharing is not None:
            self._sharing.take_turns()

    def predict_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        """Edited videos, of any length and size."""
        return Editor(self).edit_batch(batch)

    def on_predict_epoch_end(self) -> None:
        """Where ranks share the weights, all end together."""
        if self._sharing is not None:
            self._sharing.leave()

    @torch.no_grad()
    def edit_batch(self, batch: EditBatch, keep_source: bool = True) -> Tensor:
        """Edit every source of a batch; B F 3 H W in [-1, 1], clamped.

        Args:
            batch: Needs `source` or `source_latents`; the noise of a sample depends on its key and the seed only.
            keep_source: False hides the source from the network, to measure how much it is used.
        """
        if batch.source_latents is not None:
            z_source = batch.source_latents
        else:
            assert batch.source is not None
            z_source = cut_windows(encode_pixels(self.vae, to_device_pixels(batch.source)), batch.windows)
        starts = draw_starts(batch.keys, self.seed, z_source.shape[1:], self.device)
        self._choose_attention((BRANCHES * len(batch), *z_source.shape[1:]), training=False)
        latents = sample_edit(
            self.transformer,
            self.scheduler,
            starts,
            z_source * float(keep_source),
            self._embed(batch.instructions),
            self.guidance,
            self.num_inference_steps,
            hoist=self.execution.hoist and self._sharing is None,
            skip=self._sharing is None,
        )
        return decode_latents(self.vae, latents).clamp(-1, 1)

    def merge_lora(self) -> None:
        """Add LoRA to the weights, for editing only; trained weights and what is delivered stay as they are."""
        self.configure_model()
        if self.trainable == "lora" and self.execution.merge_lora and not is_merged(self.transformer):
            self.transformer.fuse_lora()

    def edit(self, clip: Clip, instruction: str, **options: Any) -> Clip:
        """Edit one clip: n frames in, n frames out, at the clip's own size and rate.

        Args:
            clip: Any length and size.
            instruction: What to change.
            options: Of `EditOptions`, by name.
        """
        return Editor(self).edit(clip, instruction, **options)

    @property
    def working_shape(self) -> tuple[int, int, int]:
        """Frames, height and width in pixels that the base was made for."""
        self.configure_model()
        config = self.transformer.config
        return config.sample_frames, 8 * config.sample_height, 8 * config.sample_width

    # ---------------------------------------------------------------- small parts

    def _choose_attention(self, shape: tuple[int, ...], training: bool) -> None:
        choose_attention(self.transformer, self.execution, shape, self.device, training, self._kernels)

    @property
    def encoder_hash(self) -> str:
        """What tells its autoencoder from others; data modules refuse latents that another one made."""
        return hash_encoder(self.base)

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    def _embed(self, prompts: tuple[str, ...]) -> Tensor:
        length = self.transformer.config.max_text_seq_length
        return encode_prompts(self.tokenizer, self.text_encoder, prompts, length)

    def _generator(self, position: Position) -> torch.Generator:
        """A generator that depends on seed, stage, step and rank only, so that resuming and chaining are exact."""
        name = f"{self.seed}/{position.stage}/{position.step}/{self.global_rank}"
        return seeded_generator(name, self.device)
