"""Networks of CogVideoX-2B's architecture with random weights, clips for them, and what they run on.

Shared by `train.py`, `edit.py`, `vae.py` and `gpu.py`; no benchmark by itself. Speed does not depend on what weights
say, so nothing is downloaded. `TINY` has the same classes, for a CPU.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from transformers import T5Config, T5EncoderModel

from insvie_callbacks.throughput import find_peak_tflops
from insvie_lightning.batch import EditBatch
from insvie_lightning.editors import InsViE
from insvie_lightning.nets.execution import Execution
from insvie_lightning.toy.text import build_tokenizer
from insvie_lightning.weights.components import Components
from insvie_lightning.weights.deliverable import trainable_weights

INSTRUCTION = "make the red circle blue"


@dataclass(frozen=True)
class Size:
    """How large the networks and their inputs are; what is not said is as in CogVideoX-2B.

    Attributes:
        name: For reports.
        transformer: Of `CogVideoXTransformer3DModel`.
        vae: Of `AutoencoderKLCogVideoX`.
        text_encoder: Of `T5Config`.
        lora_rank: Rank r.
        clip: Frames, height and width in pixels.
        long_frames: Of a second, longer clip.
        compile_backend: Of `torch.compile`.
        perceptual: Of `PerceptualLoss`.
    """

    name: str
    text_encoder: Mapping[str, Any]
    clip: tuple[int, int, int]
    long_frames: int
    lora_rank: int
    compile_backend: str
    transformer: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    perceptual: Mapping[str, Any] = field(default_factory=dict)


REAL = Size(
    name="CogVideoX-2B",
    text_encoder={  # T5 v1.1 XXL
        "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    },
    clip=(25, 480, 720),
    long_frames=49,
    lora_rank=128,
    compile_backend="inductor",
    perceptual={"random_trunk": True, "max_timestep": 500},
)  # fmt: skip
TINY = Size(
    name="tiny",
    text_encoder={"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    clip=(9, 32, 48),
    long_frames=17,
    lora_rank=4,
    compile_backend="eager",
    transformer={
        "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "time_embed_dim": 32,
        "text_embed_dim": 32, "sample_width": 6, "sample_height": 4, "sample_frames": 9, "max_text_seq_length": 16,
    },
    vae={"block_out_channels": (8, 16, 16, 32), "layers_per_block": 1, "norm_num_groups": 4},
    perceptual={"random_trunk": True, "net": "squeeze", "crop": None},
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What a benchmark runs on.

    Attributes:
        size: Of the networks.
        device: Where.
        dtype: float32; or bfloat16, in which frozen weights are kept and, under autocast, training computes.
        peak_tflops: That `mfu` is a share of: a known GPU's data sheet, until `gpu.py` has measured; None gives none.
    """

    size: Size
    device: torch.device
    dtype: torch.dtype
    peak_tflops: float | None = None

    def autocast(self) -> torch.autocast:
        """As Lightning's bf16-mixed."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def execution(self, **changes: Any) -> Execution:
        """Ours: compiled blocks, no checkpointing, everything fused that can be."""
        frozen = "bfloat16" if self.dtype == torch.bfloat16 else "float32"
        settings = {"compile": True, "compile_backend": self.size.compile_backend, "frozen_dtype": frozen}
        return Execution(**{**settings, **changes})

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds of the wall; on a CPU those of the process, so that other work on the machine does not count."""
        return time.process_time if self.device.type == "cpu" else time.perf_counter

    def wait(self) -> None:
        """Let the device finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def build(setting: Setting) -> Components:
    """Random networks on the device; the tokenizer is the toy world's, padded like the real one."""
    size, device = setting.size, setting.device
    torch._dynamo.config.recompile_limit = 64  # beyond it blocks run uncompiled, and each shape takes two
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        torch.manual_seed(0)
        transformer = CogVideoXTransformer3DModel(**size.transformer)
        vae = AutoencoderKLCogVideoX(**size.vae)
        text_encoder = T5EncoderModel(T5Config(**size.text_encoder))
    scheduler = CogVideoXDDIMScheduler(
        snr_shift_scale=3.0, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    networks = (network.to(setting.dtype).eval().requires_grad_(False) for network in (transformer, vae, text_encoder))
    return Components(*networks, build_tokenizer(), scheduler)


def build_editor(parts: Components, setting: Setting, execution: Execution, **settings: Any) -> InsViE:
    """Our editor on copies of transformer and autoencoder; the text encoder is shared. Source and LoRA count."""
    own = Components(
        copy.deepcopy(parts.transformer), copy.deepcopy(parts.vae), parts.text_encoder, parts.tokenizer, parts.scheduler
    )
    editor = InsViE("random", lora_rank=setting.size.lora_rank, execution=execution, **settings)
    with patch("insvie_lightning.editors.building.load_components", return_value=own):
        editor.configure_model()
    generator = torch.Generator(setting.device).manual_seed(0)
    for name, value in trainable_weights(editor.transformer).items():
        if name.endswith("weight"):
            value.normal_(std=0.02, generator=generator)
    return editor.to(setting.device)


def random_clips(size: Size, batch: int, frames: int | None = None) -> EditBatch:
    """Random pixels on the CPU, as a loader gives them."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, frames or size.clip[0], 3, *size.clip[1:])
    source, edited = (torch.randint(256, shape, generator=generator, dtype=torch.uint8) for _ in range(2))
    keys = tuple(f"clip{number}" for number in range(batch))
    clips = EditBatch(keys, (INSTRUCTION,) * batch, source=source, edited=edited)
    return clips.pin_memory() if torch.cuda.is_available() else clips


def machine(setting: Setting) -> str:
    """Date, processor and versions, in a line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    place = torch.cuda.get_device_name() if setting.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    dtype = str(setting.dtype).removeprefix("torch.")
    return f"{date.today()}, {platform.machine()}, {place}, Python {platform.python_version()}, {packages}, {dtype}"


def read_setting(parser: argparse.ArgumentParser, argv: list[str] | None) -> tuple[argparse.Namespace, Setting]:
    """Add the options that all share, and read the command line."""
    parser.add_argument("--tiny", action="store_true", help="the same classes, tiny, for a CPU")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: a GPU if any"
    )
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: float32 with --tiny, else bfloat16")
    args = parser.parse_args(argv)
    size = TINY if args.tiny else REAL
    if args.device == "cpu":
        torch.set_num_threads(1)
    dtype, device = args.dtype or ("float32" if args.tiny else "bfloat16"), torch.device(args.device)
    peak = find_peak_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return args, Setting(size, device, getattr(torch, dtype), peak)
