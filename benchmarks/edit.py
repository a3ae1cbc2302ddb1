"""How long an edit takes: ours against the released loop and against the blocks and sampler of diffusers.

Command:  python benchmarks/edit.py [--tiny] [--steps 6] [--rounds 3] [--whole]
Hardware: a GPU of 40 GB or more, minutes; with --tiny any CPU, half a minute.
Result:   a line a way: seconds of a step of three branches, of what is around the steps, and of an edit of 50 steps
          made of them; MFU where a GPU's peak is known, peak memory; the ratios; how far what the network says at the
          first step, and the finished pixels, are from those of stock diffusers; and a line of JSON. --whole runs all
          50 steps, too, of `stock` and `ours`.

All ways have the same weights, clip, sentence, noise, guidance (4.5 for text, 1.6 for the source) and SDE-DPM-Solver++,
and decode two latent frames at a time.
    official    as the released script: LoRA beside the weights, conditions stacked anew at every step, two host syncs
                an attention, scales by host, and the empty sentence encoded, too
    offload     what the released script does beside: all networks to the CPU and back
    stock       diffusers' transformer, LoRA merged, three branches as one batch, not compiled, attention as torch likes
    stock fast  the same with compiled blocks, and the autoencoder with channels last
    ours        `InsViE.edit_batch`: compiled, attention timed, modulation and sentence computed once, LoRA merged
    ours eager  the same, not compiled
    ours short  ours with a video guidance of 1, which needs two branches: speed at 100 forwards, another guidance
    ours reuse  ours with `guidance.reuse` 2: all 50 steps, 100 forwards
    ours fast   the same, and all blocks but the first left out at every second call (`guidance.step_cache`), by force,
                since a threshold means nothing with random weights: speed at 52 forwards, not quality
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from diffusers.hooks.first_block_cache import FBCHeadBlockHook
from real_size import Setting, build, build_editor, machine, random_clips, read_setting
from stock import AskingAttention, stock_edit, stock_transformer
from timing import Timing, Way, cosine, free, peak_of, ratios, relative_l2, shared_lines, show, side_by_side
from torch import Tensor, nn

from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors.editor import Editor
from insvie_lightning.editors.flops import edit_flops
from insvie_lightning.nets.execution import compile_blocks

STEPS = 50
GUIDANCE = Guidance(4.5, 1.6)
RATIOS = {
    "exact against stock": ("stock", "ours"),
    "exact against stock, compiled": ("stock fast", "ours"),
    "exact against the released loop": ("official", "ours"),
    "two branches against stock": ("stock", "ours short"),
    "reuse against stock": ("stock", "ours reuse"),
    "fast against stock": ("stock", "ours fast"),
    "compiled against eager, both ours": ("ours eager", "ours"),
}
EXACT = ("official", "stock", "stock fast", "ours", "ours eager")
"""Ways that give the same video."""
WHOLE = ("ours reuse", "ours fast")
"""Ways whose steps differ, so that all of them are timed."""


@torch.compiler.disable
def every_second_time(hook: Any, _residual: Tensor) -> bool:
    """Whether the blocks behind the first are computed, in the place of First Block Cache's own decision."""
    state = hook.state_manager.get_state()
    return state.head_block_residual is None or not state.should_compute


@dataclass
class Laps:
    """When each call of a network began, and what the first one gave."""

    starts: list[Any] = field(default_factory=list)
    first: Tensor | None = None

    def steps(self, setting: Setting) -> list[float]:
        """Seconds from the start of each call to that of the next."""
        setting.wait()
        pairs = zip(self.starts, self.starts[1:], strict=False)
        if setting.device.type == "cuda":
            return [before.elapsed_time(after) / 1000 for before, after in pairs]
        return [after - before for before, after in pairs]


@contextmanager
def laps(network: nn.Module, setting: Setting) -> Iterator[Laps]:
    """Watch the calls of a network; on a GPU by events, so that nothing waits."""
    found = Laps()

    def begin(*_: Any) -> None:
        if setting.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            found.starts.append(event)
        else:
            found.starts.append(setting.clock())

    def end(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if found.first is None:
            found.first = output[0].detach().clone()

    hooks = network.register_forward_pre_hook(begin), network.register_forward_hook(end)
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Edit:
    """What an edit was like: the seconds of its steps, the first output of the network, and the pixels."""

    steps: list[float]
    first: Tensor
    pixels: Tensor


def make_ways(
    setting: Setting, steps: int, frames: int | None = None
) -> tuple[dict[str, Callable[[int], Edit]], dict[str, Way], int]:
    """Edits by name, as functions of their number of steps; the ways to time; the operations of an edit of 50."""
    parts, clips = build(setting), random_clips(setting.size, 1, frames)
    settings: dict[str, Any] = {"guidance": GUIDANCE, "num_inference_steps": STEPS, "sampler": "dpm"}
    editor = build_editor(parts, setting, setting.execution(), **settings)
    official = stock_transformer(parts, editor, setting).to(setting.dtype).eval()
    official.set_attn_processor(AskingAttention())
    stocks = [stock_transformer(parts, editor, setting) for _ in range(2)]
    for stock in stocks:
        stock.fuse_lora()
        stock.to(setting.dtype).eval()
    eager = build_editor(parts, setting, setting.execution(compile=False), **settings)
    for own in (editor, eager):
        Editor.place(own, setting.device, setting.dtype)
    compile_blocks(stocks[1], setting.size.compile_backend)
    last = eager.vae  # with channels last

    def watched(network: nn.Module, run: Callable[[int], Tensor]) -> Callable[[int], Edit]:
        def edit(count: int) -> Edit:
            with laps(network, setting) as found:
                pixels = run(count)
            assert found.first is not None
            return Edit(found.steps(setting), found.first, pixels)

        return edit

    def plain(network: Any, vae: Any, released: bool = False) -> Callable[[int], Edit]:
        return watched(
            network, lambda count: stock_edit(network, parts, vae, clips, GUIDANCE, count, setting, released)
        )

    def ours(own: Any, **changes: float) -> Callable[[int], Edit]:
        def run(count: int) -> Tensor:
            own.num_inference_steps, own.guidance = count, replace(GUIDANCE, **changes)  # type: ignore[arg-type]
            with patch.object(FBCHeadBlockHook, "_should_compute_remaining_blocks", every_second_time):
                return own.edit_batch(clips.to(setting.device))

        return watched(own.transformer, run)

    def offload() -> None:
        for network in (official, parts.vae, parts.text_encoder):
            network.to("cpu")
        setting.wait()
        for network in (official, parts.vae, parts.text_encoder):
            network.to(setting.device)

    edits = {
        "official": plain(official, parts.vae, released=True),
        "stock": plain(stocks[0], parts.vae),
        "stock fast": plain(stocks[1], last),
        "ours": ours(editor),
        "ours eager": ours(eager),
        "ours short": ours(editor, video_guidance_scale=1.0),
        "ours reuse": ours(editor, reuse=2),
        "ours fast": ours(editor, reuse=2, step_cache=1.0),
    }
    networks = {
        "official": (official, parts.vae, parts.text_encoder),
        "stock": (stocks[0], parts.vae, parts.text_encoder),
        "stock fast": (stocks[1], last, parts.text_encoder),
        "ours eager": tuple(eager.children()),
    }
    ways = {
        name: Way(
            lambda run=edit, count=STEPS if name in WHOLE else steps: run(count),  # type: ignore[misc]
            networks.get(name, tuple(editor.children())),
        )
        for name, edit in edits.items()
    }
    ways["offload"] = Way(offload)
    return edits, ways, edit_flops(editor, *_clip(setting, frames))


def _clip(setting: Setting, frames: int | None) -> tuple[int, int, int]:
    return (frames or setting.size.clip[0], *setting.size.clip[1:])


def measure(
    setting: Setting, steps: int, rounds: int, frames: int | None = None, only: tuple[str, ...] = (),
    until: float = math.inf, whole: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Time the ways (all, or those named), compare what they give, and if asked run whole edits."""
    edits, ways, flops = make_ways(setting, steps, frames)
    ways = {name: way for name, way in ways.items() if not only or name in only}
    timings = side_by_side({name: ways[name] for name in EXACT if name in ways}, setting, rounds, until=until)

    def once(name: str, way: Way, warm_up: int = 0) -> dict[str, Timing]:
        return side_by_side({name: way}, setting, 1, warm_up, until)

    complete = {}
    for name in ("ours", "stock"):
        if whole and name in ways and not timings[name].failed:
            complete |= once(name, Way(lambda run=edits[name]: run(STEPS)))  # type: ignore[misc]
    for name in ("ours short", *WHOLE, "offload"):
        if name in ways:
            if name in WHOLE:
                once(name, Way(lambda run=edits[name]: run(steps)), warm_up=1)  # type: ignore[misc] # the 2nd compiles, too
            timings |= once(name, ways[name], warm_up=int(name == "ours short"))
    told = {name: _told(name, timing, steps, flops, setting.peak_tflops) for name, timing in timings.items()}
    whole_edits = {name: Timing([one["edit_seconds"]]) for name, one in told.items() if "edit_seconds" in one}
    free(setting)
    return {
        "benchmark": "edit", "size": setting.size.name, "frames": _clip(setting, frames)[0], "steps": STEPS,
        "peak_tflops": setting.peak_tflops, "ways": told, "ratios": ratios(whole_edits, RATIOS),
        "guards": guards(timings), "whole": {name: timing.summary() for name, timing in complete.items()},
    }  # fmt: skip


def _told(name: str, timing: Timing, steps: int, flops: int, peak_tflops: float | None) -> dict[str, Any]:
    """What a way took; the operations of all 150 forwards count for it, however many it computes."""
    told = timing.summary()
    if not timing.seconds or timing.returned[0] is None:
        return told
    if name in WHOLE:
        return told | {"edit_seconds": round(timing.median, 4)}
    step = statistics.median(lap for edit in timing.returned for lap in edit.steps)
    around = statistics.median(s - steps * step for s in timing.seconds)
    told |= {"step_seconds": round(step, 6), "around_seconds": round(around, 6)}
    told["edit_seconds"] = round(STEPS * step + around, 4)
    if peak_tflops:
        told["mfu"] = round(flops / told["edit_seconds"] / 1e12 / peak_tflops, 4)
    return told


def guards(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """How far each way's first output of the network and pixels are from those of stock diffusers."""
    if "stock" not in timings or not timings["stock"].returned:
        return {}
    stock, told = timings["stock"].returned[0], {}
    for name, timing in timings.items():
        if name == "stock" or name not in EXACT or not timing.returned:
            continue
        edit = timing.returned[0]
        told[f"{name} and stock"] = {
            "first_step": relative_l2(edit.first, stock.first), "pixels": relative_l2(edit.pixels, stock.pixels),
            "pixels_cosine": cosine(edit.pixels, stock.pixels),
        }  # fmt: skip
    return told


def table(result: Mapping[str, Any]) -> list[str]:
    """The result for people."""
    lines = [f"{result['size']}, {result['frames']} frames, one clip, {result['steps']} steps{peak_of(result)}"]
    for name, told in result["ways"].items():
        memory = f"  {told['memory_gb']:7.2f} GB" if "memory_gb" in told else ""
        if "failed" in told:
            lines.append(f"  {name:11} {told['failed']}")
        elif "step_seconds" in told:
            mfu = f"  MFU {100 * told['mfu']:5.1f} %" if "mfu" in told else ""
            lines.append(
                f"  {name:11}{told['edit_seconds']:9.3f} s an edit: {1000 * told['step_seconds']:9.1f} ms a step, "
                f"{told['around_seconds']:7.3f} s around{mfu}{memory}"
            )
        else:
            lines.append(f"  {name:11}{told['seconds']:9.3f} s{memory}")
    whole = [f"  all steps of {name}: {told}" for name, told in result["whole"].items()]
    return lines + whole + shared_lines(result)


def main(argv: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="steps of an edit that is timed; default 6")
    parser.add_argument("--rounds", type=int, default=3, help="timed edits of each way; default 3")
    parser.add_argument("--frames", type=int, help="default 25, with --tiny 9")
    parser.add_argument("--only", nargs="+", default=[], metavar="WAY", help="ways to time; default all")
    parser.add_argument("--whole", action="store_true", help="run all 50 steps, too, of stock and ours")
    args, setting = read_setting(parser, argv)
    print(machine(setting))
    result = measure(setting, args.steps, args.rounds, args.frames, tuple(args.only), whole=args.whole)
    show(result, table(result))


if __name__ == "__main__":
    main()
