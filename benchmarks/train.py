"""How fast a training step is: ours against a step as released and against a step as CogVideoX trainers do it.

Command:  python benchmarks/train.py [--tiny] [--batch 2] [--rounds 4]
Hardware: a GPU of 80 GB or more, minutes; with --tiny any CPU, half a minute.
Result:   a line a way: seconds of a step, samples per second, MFU where a GPU's peak is known, peak memory; the ratios;
          how far losses and gradients of the same weights and the same draws are apart; and a line of JSON.

All ways have the same weights, clips, sentences and optimizer (fused AdamW, gradients clipped at 1), and each begins
with a batch in the memory of the CPU. Nothing is decoded from files here (`loader.py` does that).
    official        as the released engine: pixels as floats, both clips encoded in the step, noise on the source, full
                    checkpointing, PEFT's LoRA, two host syncs an attention, gc and an empty cache after every step
    official s3     the same and, as released with `use_lpips`, two decodes of the whole clip and LPIPS, no gradient
    factory         as cogvideox-factory: latents and sentences encoded before, full checkpointing, PEFT's LoRA
    factory no AC   the same without checkpointing
    ours online     both clips encoded in the step, from bytes, with noise on the source
    ours s3         the same and LPIPS through the decoder, of a chunk, with gradient
    ours cached     latents encoded before
    ours eager      the same, not compiled
Which of the first two the authors ran, and on 25 or 49 frames, they do not say; nor is the training script published.
"""

from __future__ import annotations

import argparse
import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0
from real_size import Setting, build, build_editor, machine, random_clips, read_setting
from stock import AskingAttention, released_loss, stock_transformer
from timing import Timing, Way, cosine, free, peak_of, ratios, shared_lines, show, side_by_side
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from insvie_lightning.batch import EditBatch, Position
from insvie_lightning.diffusion.conditioning import ConditionDropout
from insvie_lightning.editors import InsViE
from insvie_lightning.nets.latents import decode_latents, encode_pixels, encode_prompts
from insvie_lightning.nets.perceptual import PerceptualLoss
from insvie_lightning.weights.components import Components

RATIOS = {
    "cached against as released": ("official", "ours cached"),
    "online against as released": ("official", "ours online"),
    "stage 3 against as released": ("official s3", "ours s3"),
    "cached against factory": ("factory", "ours cached"),
    "cached against factory without checkpointing": ("factory no AC", "ours cached"),
    "cached against online, both ours": ("ours online", "ours cached"),
}
SAME = (("official", "ours online"), ("factory no AC", "ours cached"), ("factory", "ours eager"))
"""Ways that compute the same loss, when they draw the same."""


@dataclass
class Trainee:
    """A way of training, with an optimizer of its own."""

    network: nn.Module
    loss: Callable[[Position], Tensor]
    networks: tuple[nn.Module, ...]
    tidy: bool = False
    optimizer: torch.optim.Optimizer = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, 1e-4, betas=(0.9, 0.95), weight_decay=1e-5, fused=True)

    def gradient(self, position: Position) -> tuple[float, Tensor]:
        """Loss and all gradients of one step that is not taken."""
        loss = self.loss(position)
        loss.backward()
        gradient = torch.cat([parameter.grad.flatten().float() for parameter in self.trained])  # type: ignore[union-attr]
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()), gradient

    def step(self) -> None:
        """Take a step."""
        self.steps += 1
        self.loss(Position("benchmark", 0, self.steps)).backward()
        clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.tidy:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def way(self) -> Way:
        """For timing; two moments of every trained weight are an optimizer's."""
        states = sum(2 * parameter.numel() * parameter.element_size() for parameter in self.trained)
        return Way(self.step, self.networks, states)


class Baselines:
    """Steps as released and as in cogvideox-factory, written from what is known of them.

    Args:
        parts: Networks.
        editor: Ours, whose weights they copy and after whose generators they draw.
        clips: A batch on the CPU.
        setting: Where.
    """

    def __init__(self, parts: Components, editor: InsViE, clips: EditBatch, setting: Setting) -> None:
        self.parts, self.setting, self.clips = parts, setting, clips
        self.transformer = stock_transformer(parts, editor, setting)
        self.draw = editor._generator
        self.abar = parts.scheduler.alphas_cumprod.to(setting.device)
        self.floats = [clip.float() / 127.5 - 1 for clip in (clips.source, clips.edited) if clip is not None]
        with torch.no_grad(), setting.autocast():
            encoded = [encode_pixels(parts.vae, clip.to(setting.device)) for clip in self.floats]
            self.latents = [latents.float().cpu() for latents in encoded]
            self.prompts = self._embed().cpu()
        self.lpips: nn.Module | None = None

    def trainees(self) -> dict[str, Trainee]:
        """By name; one transformer serves all of them."""
        from insvie_lightning.nets.perceptual import build_lpips

        self.lpips = build_lpips(PerceptualLoss(**self.setting.size.perceptual)).to(self.setting.device)
        parts, transformer = self.parts, self.transformer
        encoding = (transformer, parts.vae, parts.text_encoder)

        def full(position: Position, loss: Callable[[Position], Tensor], asks: bool, recomputes: bool = True) -> Tensor:
            transformer.set_attn_processor(AskingAttention() if asks else CogVideoXAttnProcessor2_0())
            transformer.train()
            (transformer.enable_gradient_checkpointing if recomputes else transformer.disable_gradient_checkpointing)()
            with self.setting.autocast():
                return loss(position)

        return {
            "official": Trainee(transformer, lambda at: full(at, self._official, True), encoding, tidy=True),
            "official s3": Trainee(
                transformer, lambda at: full(at, self._perceptual, True), (*encoding, self.lpips), tidy=True
            ),
            "factory": Trainee(transformer, lambda at: full(at, self._factory, False), (transformer,)),
            "factory no AC": Trainee(transformer, lambda at: full(at, self._factory, False, False), (transformer,)),
        }

    def _embed(self) -> Tensor:
        length = self.transformer.config.max_text_seq_length
        return encode_prompts(self.parts.tokenizer, self.parts.text_encoder, self.clips.instructions, length)

    def _encoded(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        source, edited = (clip.to(self.setting.device) for clip in self.floats)
        sigma = (-3 + 0.5 * torch.randn(len(source), generator=generator, device=source.device)).exp()
        source = source + sigma.reshape(-1, 1, 1, 1, 1) * torch.randn(
            source.shape, generator=generator, device=source.device
        )
        with torch.no_grad():
            return encode_pixels(self.parts.vae, source, generator), encode_pixels(self.parts.vae, edited, generator)

    def _official(self, position: Position) -> Tensor:
        generator = self.draw(position)
        z_source, z_edited = self._encoded(generator)
        return released_loss(self.transformer, z_source, z_edited, self._embed(), self.abar, generator)[0]

    def _perceptual(self, position: Position) -> Tensor:
        """As released, LPIPS has no gradient: whole clips are decoded for a number that is added to the loss."""
        generator = self.draw(position)
        z_source, z_edited = self._encoded(generator)
        loss, clean = released_loss(self.transformer, z_source, z_edited, self._embed(), self.abar, generator)
        with torch.no_grad():
            decoded = [decode_latents(self.parts.vae, latents) for latents in (clean, z_edited)]
            pairs = zip(*(video.flatten(0, 1).float().split(8) for video in decoded), strict=True)
            assert self.lpips is not None
            perceptual = torch.cat([self.lpips(one, other).flatten() for one, other in pairs]).mean()
        return 0.5 * loss + 0.5 * perceptual

    def _factory(self, position: Position) -> Tensor:
        z_source, z_edited = (latents.to(self.setting.device) for latents in self.latents)
        prompts = self.prompts.to(self.setting.device)
        return released_loss(self.transformer, z_source, z_edited, prompts, self.abar, self.draw(position))[0]


def ours(editor: InsViE, batch: EditBatch, setting: Setting, *unused: nn.Module) -> Trainee:
    """Our training step on a batch that lies on the CPU; some networks it does not need."""

    def loss(position: Position) -> Tensor:
        moved = replace(batch.to(setting.device, non_blocking=True), position=position)
        with setting.autocast():
            return editor.training_step(moved, 0)

    networks = tuple(network for network in editor.children() if network not in unused)
    return Trainee(editor.transformer.train(), loss, networks)


def trainees(setting: Setting, batch: int, frames: int | None = None) -> tuple[dict[str, Trainee], dict[str, int]]:
    """All ways of training on random clips, and the operations of a sample of those that have a count."""
    parts, clips = build(setting), random_clips(setting.size, batch, frames)
    settings: dict[str, Any] = {"condition_dropout": ConditionDropout(0.0, 0.0), "source_noise": True}
    perceptual = PerceptualLoss(**setting.size.perceptual)
    compiled, eager = setting.execution(), setting.execution(compile=False)
    online = build_editor(parts, setting, compiled, **settings)
    baselines = Baselines(parts, online, clips, setting)
    source, edited = (latents.pin_memory() if torch.cuda.is_available() else latents for latents in baselines.latents)
    cached = replace(clips, source=None, edited=None, source_latents=source, edited_latents=edited)
    found = baselines.trainees()
    found["ours online"] = ours(online, clips, setting)
    third = build_editor(parts, setting, compiled, lpips_weight=0.5, perceptual=perceptual, **settings)
    found["ours s3"] = ours(third, clips, setting)
    settings["source_noise"] = False
    for name, execution in (("ours cached", compiled), ("ours eager", eager)):
        editor = build_editor(parts, setting, execution, **settings)
        found[name] = ours(editor, cached, setting, editor.vae)
    flops = {"official": online.flops_per_sample(clips), "factory": editor.flops_per_sample(cached)}
    same = {"official": ("ours online",), "factory": ("factory no AC", "ours cached", "ours eager")}
    return found, flops | {other: flops[name] for name, others in same.items() for other in others}


def guards(found: Mapping[str, Trainee]) -> dict[str, dict[str, float]]:
    """How far the losses (relative) and gradients (cosine) of ways that compute the same are apart."""
    position, told = Position("guard", 0, 0), {}
    for one, other in SAME:
        if one in found and other in found:
            (loss, gradient), (own_loss, own_gradient) = (found[name].gradient(position) for name in (one, other))
            difference = abs(own_loss - loss) / abs(loss)
            told[f"{other} and {one}"] = {"loss": difference, "gradient_cosine": cosine(own_gradient, gradient)}
    return told


def measure(
    setting: Setting, batch: int, rounds: int, frames: int | None = None, only: tuple[str, ...] = (),
    until: float = math.inf, warm_up: int = 2,
) -> dict[str, Any]:  # fmt: skip
    """Time the ways (all, or those named) and guard them."""
    found, flops = trainees(setting, batch, frames)
    found = {name: trainee for name, trainee in found.items() if not only or name in only}
    try:
        agreement: Any = guards(found)
    except Exception as error:  # a way that fails is told by its timing, too
        agreement = {"failed": str(error)[:200]}
    timings = side_by_side({name: one.way() for name, one in found.items()}, setting, rounds, warm_up, until)
    free(setting)
    told = {name: _told(timing, batch, flops.get(name), setting.peak_tflops) for name, timing in timings.items()}
    return {
        "benchmark": "train", "size": setting.size.name, "batch": batch, "frames": frames or setting.size.clip[0],
        "peak_tflops": setting.peak_tflops, "ways": told, "ratios": ratios(timings, RATIOS), "guards": agreement,
    }  # fmt: skip


def _told(timing: Timing, batch: int, flops: int | None, peak_tflops: float | None) -> dict[str, Any]:
    told = timing.summary()
    if not timing.seconds:
        return told
    told["samples_per_second"] = round(batch / timing.median, 4)
    if flops:
        told["tflops"] = round(flops * batch / timing.median / 1e12, 4)
        if peak_tflops:
            told["mfu"] = round(told["tflops"] / peak_tflops, 4)
    return told


def table(result: Mapping[str, Any]) -> list[str]:
    """The result for people."""
    lines = [f"{result['size']}, {result['frames']} frames, batch {result['batch']}{peak_of(result)}"]
    for name, told in result["ways"].items():
        if "failed" in told:
            lines.append(f"  {name:15} {told['failed']}")
            continue
        mfu = f"  MFU {100 * told['mfu']:5.1f} %" if "mfu" in told else ""
        memory = f"  {told['memory_gb']:7.2f} GB" if "memory_gb" in told else ""
        lines.append(f"  {name:15}{1000 * told['seconds']:10.1f} ms{told['samples_per_second']:10.3f}/s{mfu}{memory}")
    return lines + shared_lines(result)


def main(argv: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2, help="samples a step; default 2, as the authors'")
    parser.add_argument("--rounds", type=int, default=4, help="timed steps of each way; default 4")
    parser.add_argument("--frames", type=int, help="default 25, with --tiny 9")
    parser.add_argument("--only", nargs="+", default=[], metavar="WAY", help="ways to time; default all")
    args, setting = read_setting(parser, argv)
    print(machine(setting))
    result = measure(setting, args.batch, args.rounds, args.frames, tuple(args.only))
    show(result, table(result))


if __name__ == "__main__":
    main()
