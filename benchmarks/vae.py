"""How fast the CogVideoX autoencoder encodes and decodes a clip: with weights as loaded, and with channels last.

Command:  python benchmarks/vae.py [--tiny] [--rounds 5] [--frames 25]
Hardware: a GPU of 24 GB or more, a minute; with --tiny any CPU, seconds.
Result:   a line a way: seconds, TFLOP/s of what must be computed, peak memory; the ratios; how far the latents and
          pixels are from those of the first way; the dearest kernels of one decode, the share of its time that goes
          into copies (between layouts, mostly), and whether a convolution fell back to a slow one (torch 2.9 did so in
          bfloat16 without cuDNN 9.15); and a line of JSON.

    stock     diffusers' autoencoder as it is loaded: channels first
    tiled     the same in overlapping tiles, as is advised to save memory
    whole     as the released encoder: the whole clip at once instead of eight frames, for encoding only; latents
              differ, since it also normalises over the whole clip
    ours      `to_channels_last`
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from real_size import Setting, machine, random_clips, read_setting
from timing import Way, free, ratios, relative_l2, shared_lines, show, side_by_side
from torch.profiler import ProfilerActivity, profile

from insvie_lightning.nets.execution import to_channels_last
from insvie_lightning.nets.flops import decode_flops, encode_flops
from insvie_lightning.nets.latents import decode_latents, encode_pixels, to_device_pixels

RATIOS = {
    "encoding with channels last": ("encode, stock", "encode, ours"),
    "decoding with channels last": ("decode, stock", "decode, ours"),
    "decoding not in tiles": ("decode, tiled", "decode, ours"),
}
FALLBACKS = ("slow_conv", "vol2col")
"""In the names of what a 3-D convolution is computed by where no good kernel is found."""
COPIES = ("nchwToNhwc", "nhwcToNchw", "direct_copy", "aten::copy_")
"""In the names of what changes nothing but the layout or the type."""


@torch.no_grad()
def measure(setting: Setting, rounds: int, frames: int | None = None, until: float = math.inf) -> dict[str, Any]:
    """Time the ways, compare what they give, and look at the kernels of ours."""
    from diffusers import AutoencoderKLCogVideoX

    clip = (frames or setting.size.clip[0], *setting.size.clip[1:])
    with setting.device:
        stock: Any = AutoencoderKLCogVideoX(**setting.size.vae).to(setting.dtype).eval()
    vaes = {name: copy.deepcopy(stock) for name in ("stock", "tiled", "whole", "ours")}
    vaes["tiled"].enable_tiling()
    vaes["whole"].num_sample_frames_batch_size = clip[0] - 1
    to_channels_last(vaes["ours"])
    clips = random_clips(setting.size, 1, clip[0])
    assert clips.source is not None
    pixels = to_device_pixels(clips.source.to(setting.device))
    latents = encode_pixels(vaes["stock"], pixels)
    ways = {}
    for name, vae in vaes.items():
        ways[f"encode, {name}"] = Way(lambda vae=vae: encode_pixels(vae, pixels), (vae,))  # type: ignore[misc]
        if name != "whole":
            ways[f"decode, {name}"] = Way(lambda vae=vae: decode_latents(vae, latents), (vae,))  # type: ignore[misc]
    timings = side_by_side(ways, setting, rounds, until=until)
    agreement, told = {}, {}
    for name, timing in timings.items():
        work = encode_flops if name.startswith("encode") else decode_flops
        told[name] = timing.summary()
        if not timing.seconds:
            continue
        told[name]["tflops"] = round(work(stock, *clip) / timing.median / 1e12, 4)
        first = timings[name.split(",")[0] + ", stock"].returned
        if first and not name.endswith("stock"):
            agreement[f"{name} and stock"] = relative_l2(timing.returned[0], first[0])
    for timing in timings.values():
        timing.returned.clear()
    result = {
        "benchmark": "vae", "size": setting.size.name, "clip": clip, "ways": told,
        "ratios": ratios(timings, RATIOS), "guards": agreement, "kernels": kernels(vaes["ours"], latents, setting),
    }  # fmt: skip
    free(setting)
    return result


def kernels(vae: Any, latents: torch.Tensor, setting: Setting, count: int = 6) -> dict[str, Any]:
    """The dearest kernels of one decode and copies with their share of the time, and which kernels are a fallback."""
    on_gpu = setting.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as run:
        decode_latents(vae, latents)
        setting.wait()
    times = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in run.key_averages()
    }
    total = sum(times.values()) or 1
    dearest = sorted(times, key=lambda name: -times[name])[:count]
    copied = sum(taken for name, taken in times.items() if any(word in name for word in COPIES))
    return {
        "copies": round(copied / total, 3),
        "share": {name[:90]: round(times[name] / total, 3) for name in dearest},
        "fallbacks": sorted(name[:90] for name in times if any(word in name for word in FALLBACKS)),
    }


def table(result: Mapping[str, Any]) -> list[str]:
    """The result for people."""
    lines = [f"{result['size']}, one clip of {' x '.join(map(str, result['clip']))}"]
    for name, told in result["ways"].items():
        if "failed" in told:
            lines.append(f"  {name:15} {told['failed']}")
            continue
        memory = f"  {told['memory_gb']:7.2f} GB" if "memory_gb" in told else ""
        lines.append(f"  {name:15}{1000 * told['seconds']:10.1f} ms{told['tflops']:10.3f} TFLOP/s{memory}")
    kernels = [f"  {100 * share:5.1f} % {name}" for name, share in result["kernels"]["share"].items()]
    fallbacks = result["kernels"]["fallbacks"]
    return [
        *lines,
        *shared_lines(result),
        "  kernels of a decode, ours:",
        *kernels,
        f"  copies: {100 * result['kernels']['copies']:.1f} %; slow fallbacks: {fallbacks or 'none'}",
    ]


def main(argv: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each way; default 5")
    parser.add_argument("--frames", type=int, help="default 25, with --tiny 9")
    args, setting = read_setting(parser, argv)
    print(machine(setting))
    result = measure(setting, args.rounds, args.frames)
    show(result, table(result))


if __name__ == "__main__":
    main()
