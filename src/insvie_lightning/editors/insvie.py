"""InsViE: CogVideoX with the source video's latents beside the noise, LoRA, and three-branch guidance.

Paper: arXiv 2503.20287 (ICCV 2025). Where paper and released code differ, both are options; the docstring says whose
value is whose, the recipes in `configs/` which one is used.
"""

import copy
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.optimization import get_scheduler
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from insvie_lightning.batch import PIXELS_PER_LATENT, Clip, EditBatch, EditedVideos, Position
from insvie_lightning.diffusion.conditioning import (
    CELLS,
    ConditionDropout,
    add_source_noise,
    count_cells,
    draw_cells,
    draw_identity_pairs,
    drop_conditions,
    make_identity_pairs,
)
from insvie_lightning.diffusion.guidance import Guidance, guided
from insvie_lightning.diffusion.losses import frame_weighted_mse
from insvie_lightning.diffusion.sampling import Sampler, build_scheduler, sample
from insvie_lightning.diffusion.schedule import add_noise, clean_from_velocity, stratified_timesteps, velocity
from insvie_lightning.editors.editor import Editor
from insvie_lightning.editors.flops import training_flops
from insvie_lightning.editors.options import EditOptions
from insvie_lightning.errors import InputError
from insvie_lightning.nets.attention import Kernel, fastest_kernel, use_attention
from insvie_lightning.nets.execution import Execution, prepare_transformer, to_channels_last
from insvie_lightning.nets.hoisting import SetStep, hoisted
from insvie_lightning.nets.latents import (
    cut_windows,
    decode_latents,
    encode_pixels,
    encode_prompts,
    to_device_pixels,
)
from insvie_lightning.nets.perceptual import PerceptualLoss, build_lpips, chunk_lpips
from insvie_lightning.nets.sharing import Sharing
from insvie_lightning.nets.source_concat import (
    add_lora,
    concat_source,
    is_merged,
    looks_at_source,
    widen_patch_embedding,
)
from insvie_lightning.shards.latents import latent_shape
from insvie_lightning.weights.components import hash_encoder, load_components
from insvie_lightning.weights.deliverable import (
    Deliverable,
    check_settings,
    gathered,
    load_deliverable,
    load_trainable,
    trainable_weights,
)


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
        source_noise: Add the released code's pixel noise to the source before it is encoded.
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
        lr_schedule: Literal["constant_with_warmup", "cosine", "linear"] = "constant_with_warmup",
        warmup_steps: int = 100,
        condition_dropout: ConditionDropout = ConditionDropout(),  # noqa: B008 (frozen)
        frame_weight_mix: float = 0.5,
        source_noise: bool = False,
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
        self._kernels: dict[tuple[int, ...], Kernel | None] = {}
        self._stage_index = 0
        self._sharing: Sharing | None = None
        self._editing_seconds = 0.0

    # ---------------------------------------------------------------- building

    def configure_model(self) -> None:
        """Load the base, widen its patch embedding, add LoRA, and continue from `start_from`."""
        if self.transformer is not None:
            return
        self._check_precision()
        frozen = getattr(torch, self.execution.frozen_dtype)
        parts = load_components(self.base, frozen if self.base_dtype == torch.float32 else self.base_dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            widen_patch_embedding(parts.transformer)
            if self.trainable == "lora":
                add_lora(parts.transformer, self.lora_rank, self.lora_alpha)
        for parameter in parts.transformer.parameters():
            if parameter.requires_grad and self.base_dtype == torch.float32:
                parameter.data = parameter.data.float()  # what is trained is, whatever the frozen rest
        prepare_transformer(parts.transformer, self.execution)
        if self.execution.channels_last:
            to_channels_last(parts.vae)
        self.transformer = parts.transformer
        self.vae = parts.vae.eval().requires_grad_(False)
        self.text_encoder = parts.text_encoder.eval().requires_grad_(False)
        self.tokenizer = parts.tokenizer
        self.scheduler = build_scheduler(self.sampler, parts.scheduler.config)
        self.lpips = build_lpips(self.perceptual) if max(self.lpips_weights) > 0 else None
        if self.start_from is not None:
            deliverable = load_deliverable(self.start_from)
            names = ["trainable", "lora_rank", "lora_alpha"] if self.trainable == "lora" else ["trainable"]
            own = {name: getattr(self, name) for name in names}
            check_settings(deliverable.settings, own, self.base, self.start_from)
            self._continue_from(deliverable, str(self.start_from))
        self._sharing = Sharing.of(self.trainer) if self._trainer is not None else None
        if self._sharing is not None:
            for network in (self.transformer, self.text_encoder):
                self._sharing.share(network)

    def _check_precision(self) -> None:
        precision = self.trainer.precision if self._trainer is not None and self.trainer.training else "bf16-mixed"
        if self.execution.frozen_dtype == "bfloat16" and precision != "bf16-mixed":
            raise InputError(
                f"execution.frozen_dtype bfloat16 trains with --trainer.precision bf16-mixed, not {precision}"
            )

    def _continue_from(self, deliverable: Deliverable, origin: str) -> None:
        load_trainable(self.transformer, deliverable.raw, origin)
        self.ema, self.ema_updates = deliverable.ema, deliverable.ema_updates

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
        deliverable = load_deliverable(Path(folder))
        stored = {**deliverable.settings, **settings}
        stored.pop("editor", None)
        for name, kind in (("guidance", Guidance), ("condition_dropout", ConditionDropout)):
            if isinstance(stored.get(name), dict):
                stored[name] = kind(**stored[name])
        if unknown := sorted(stored.keys() - signature(cls).parameters.keys()):
            raise InputError(f"{folder} is of another editor: {cls.__name__} takes no {unknown[0]!r}")
        editor = cls(**stored)
        editor.base_dtype = dtype
        editor.configure_model()
        editor._continue_from(deliverable, str(folder))
        editor.setup("predict")
        return editor.eval()

    def deliverable(self) -> Deliverable:
        """The trained weights and what is needed to build the editor around them; called by all processes."""
        settings = {
            "editor": type(self).__name__,
            "base": str(Path(self.base).resolve()) if "/" in self.base and Path(self.base).is_dir() else self.base,
            "lora_rank": self.lora_rank,
            "lora_alpha": self.lora_alpha,
            "trainable": self.trainable,
            "guidance": asdict(self.guidance),
            "num_inference_steps": self.num_inference_steps,
            "sampler": self.sampler,
            "seed": self.seed,
        }
        ema = None if self.ema is None else gathered(self.ema)
        return Deliverable(settings, gathered(trainable_weights(self.transformer)), ema, self.ema_updates)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the frozen networks out of resume checkpoints; the stage and the counted cells go in."""
        checkpoint["stage_index"], checkpoint["cells_seen"] = self._stage_index, self._cells_at_step
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}

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

    def flops_per_sample(self, batch: EditBatch) -> int:
        """Operations that training on one sample of a batch needs; `Throughput` compares speed with it."""
        clips = [batch.edited, batch.source if batch.source_latents is None or self.source_noise else None]
        encoded = [(clip.shape[1], clip.shape[3], clip.shape[4]) for clip in clips if clip is not None]
        if batch.edited_latents is not None:
            frames, _, height, width = batch.edited_latents.shape[1:]
            return training_flops(self, (frames, height, width), encoded)
        frames, height, width = latent_shape(*encoded[0])
        return training_flops(self, (frames, *(batch.windows[0][2:] if batch.windows else (height, width))), encoded)

    def _loss(self, batch: EditBatch, generator: torch.Generator, training: bool) -> Tensor:
        z_source, z_edited = self._encode(batch, generator, noisy_source=self.source_noise and training)
        prompts = self._embed(batch.instructions)
        timesteps, noise = self._draw(z_edited, generator)
        abar = self.scheduler.alphas_cumprod.to(self.device, non_blocking=True)[timesteps]
        noisy = add_noise(z_edited, noise, abar)
        if training:
            z_source, prompts = self._drop(z_source, prompts, generator)
        self._choose_attention(noisy, training)
        prediction = concat_source(self.transformer, noisy, z_source, prompts, timesteps)
        loss = frame_weighted_mse(prediction, velocity(z_edited, noise, abar), self.frame_weight_mix).mean()
        weight = self._lpips_weight(batch) if training else 0.0
        if weight > 0:
            clean = clean_from_velocity(noisy, prediction.float(), abar)
            perceptual = self._perceptual(clean, timesteps, batch, generator)
            self.log("train_lpips", perceptual, batch_size=len(batch))
            loss = (1 - weight) * loss + weight * perceptual
        return loss

    def _encode(self, batch: EditBatch, generator: torch.Generator, noisy_source: bool) -> tuple[Tensor, Tensor]:
        """Latents of source and edited clip: the cached ones, or encoded here; the noise needs the source's pixels."""
        if noisy_source and batch.source is None:
            raise InputError(
                f"source_noise is added to pixels, but sample {batch.keys[0]!r} comes from cached latents; set "
                "--model.source_noise=false, train on shards of videos, or encode with --model.keep_source=true"
            )

        def encode(clip: Tensor | None, noisy: bool = False) -> Tensor:
            assert clip is not None
            pixels = to_device_pixels(clip)
            pixels = add_source_noise(pixels, generator) if noisy else pixels
            with torch.no_grad():
                return cut_windows(encode_pixels(self.vae, pixels, generator), batch.windows)

        source, edited = batch.source_latents, batch.edited_latents
        z_source = encode(batch.source, noisy_source) if noisy_source or source is None else source
        return z_source, encode(batch.edited) if edited is None else edited

    def _draw(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps, stratified over ranks, and noise."""
        steps = self.scheduler.config["num_train_timesteps"]
        timesteps = stratified_timesteps(len(latents), steps, self.global_rank, self._world_size, generator)
        return timesteps, torch.randn(latents.shape, generator=generator, device=latents.device)

    def _drop(self, z_source: Tensor, prompts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Drop conditions, and count the cells."""
        cells = draw_cells(len(z_source), self.condition_dropout, generator)
        self.cells_seen = self.cells_seen.to(cells.device) + count_cells(cells)
        return drop_conditions(z_source, prompts, cells)

    def _perceptual(self, clean: Tensor, timesteps: Tensor, batch: EditBatch, generator: torch.Generator) -> Tensor:
        if batch.edited is None:
            raise InputError(
                f"LPIPS compares with real pixels, but sample {batch.keys[0]!r} comes from cached latents; give "
                "stages with lpips_weight > 0 shards of videos"
            )
        assert self.lpips is not None
        chosen = (timesteps < self.perceptual.max_timestep).nonzero().flatten()
        if not len(chosen):
            return clean.sum() * 0
        target = to_device_pixels(cut_windows(batch.edited, batch.windows, PIXELS_PER_LATENT)[chosen])
        values = chunk_lpips(self.lpips, self.vae, clean[chosen], target, self.perceptual, generator)
        return values.sum() / len(timesteps)

    def _lpips_weight(self, batch: EditBatch) -> float:
        stage = batch.position.index if batch.position else 0
        return self.lpips_weights[min(stage, len(self.lpips_weights) - 1)]

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
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        fused = self.trainer.precision != "16-mixed"  # which scales gradients, and unscales them apart
        optimizer = torch.optim.AdamW(
            parameters, self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=fused
        )
        schedule = get_scheduler(
            self.lr_schedule, optimizer, num_warmup_steps=self.warmup_steps, num_training_steps=self._stage_steps()
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning does, which under bf16-mixed refuses to clip for a fused optimizer, though nothing is scaled."""
        if self.trainer.precision != "bf16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip = clip_grad_value_ if gradient_clip_algorithm == "value" else clip_grad_norm_
            clip([parameter for group in optimizer.param_groups for parameter in group["params"]], gradient_clip_val)

    def _stage_steps(self) -> int:
        """Optimizer steps of the current stage of a curriculum; of the whole run under other data modules."""
        stages: Sequence[Any] = getattr(getattr(self.trainer, "datamodule", None), "stages", ())
        if not stages:
            return int(self.trainer.estimated_stepping_batches)
        earlier, limit = sum(stage.steps for stage in stages[: self._stage_index]), self.trainer.max_steps
        steps = int(stages[self._stage_index].steps)
        return min(steps, limit - earlier) if limit > earlier else steps

    # ---------------------------------------------------------------- sampling

    def validation_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:  # type: ignore[override]
        """Loss at fixed draws, and edited videos for the callbacks."""
        generator = self._generator(Position("validation", 0, batch_idx))
        self.log("val_loss", self._loss(batch, generator, training=False), prog_bar=True, batch_size=len(batch))
        start = time.perf_counter()
        with self._uneven():
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
        with self._uneven():  # long videos are edited in more windows than short ones
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
        seeds = [zlib.crc32(f"{self.seed}/{key}".encode()) for key in batch.keys]
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(z_source.shape[1:], generator=g, device=self.device) for g in generators])
        self._choose_attention(noise.repeat(3, 1, 1, 1, 1), training=False)
        scheduler, steps = copy.deepcopy(self.scheduler), self.num_inference_steps
        scheduler.set_timesteps(steps, device=self.device)
        with self._hoisted(scheduler.timesteps) as set_step:

            def predict(noisy: Tensor, source: Tensor, prompts: Tensor, timesteps: Tensor) -> Tensor:
                set_step(timesteps[0])
                return concat_source(self.transformer, noisy, source, prompts, timesteps)

            denoise = guided(
                predict, z_source * float(keep_source), self._embed(batch.instructions), self.guidance, steps
            )
            latents = sample(denoise, scheduler, noise, steps, generators)
        return decode_latents(self.vae, latents).clamp(-1, 1)

    def _hoisted(self, timesteps: Tensor) -> AbstractContextManager[SetStep]:
        """What is the same at every step, computed once; not of networks that are whole only while they are called."""
        if self.execution.hoist and self._sharing is None and self.transformer.device == timesteps.device:
            return hoisted(self.transformer, timesteps)
        return nullcontext(lambda timestep: None)

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

    def _choose_attention(self, latents: Tensor, training: bool) -> None:
        """On a GPU, time the kernels once for every shape of latents B T C h w, and take the fastest."""
        config = self.transformer.config
        if self.execution.attention != "auto" or not _runs_on_gpu(latents) or config.use_rotary_positional_embeddings:
            return
        tokens = config.max_text_seq_length + latents[0, :, 0].numel() // config.patch_size**2
        shape = (len(latents), config.num_attention_heads, tokens, config.attention_head_dim)
        if shape not in self._kernels:
            kind = latents.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.transformer.dtype
            self._kernels[shape] = fastest_kernel(shape, dtype, latents.device, training)
            rank_zero_info(f"attention of {shape}: {self._kernels[shape]}")
        use_attention(self.transformer, self._kernels[shape], self.execution.fused_lora)

    @property
    def encoder_hash(self) -> str:
        """What tells its autoencoder from others; data modules refuse latents that another one made."""
        return hash_encoder(self.base)

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    @contextmanager
    def _uneven(self) -> Iterator[None]:
        """What ranks that share the weights may run differently often; all come by here."""
        if self._sharing is not None:
            self._sharing.take_turns()
        yield  # an exception ends the process, and the others hear of it
        if self._sharing is not None:
            self._sharing.leave()

    def _embed(self, prompts: tuple[str, ...]) -> Tensor:
        length = self.transformer.config.max_text_seq_length
        return encode_prompts(self.tokenizer, self.text_encoder, prompts, length)

    def _generator(self, position: Position) -> torch.Generator:
        """A generator that depends on seed, stage, step and rank only, so that resuming and chaining are exact."""
        name = f"{self.seed}/{position.stage}/{position.step}/{self.global_rank}"
        return torch.Generator(self.device).manual_seed(zlib.crc32(name.encode()))


def _runs_on_gpu(latents: Tensor) -> bool:
    return latents.device.type == "cuda"
