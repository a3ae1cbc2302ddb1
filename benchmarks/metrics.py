"""How long each metric takes for one clip of 25 frames of 480 x 720, and what one shared CLIP encoding saves.

Command:  python benchmarks/metrics.py [--tiny] [--only NAME ...] [--repeats 3] [--threads N]
Hardware: any CPU, 8 GB of memory, 4 GB of disk for one network at a time; about half an hour on two cores, of which
          most is DINOv2's (50 frames of 518 x 518), RAFT's and GMFlow's (48 pairs).
Result:   a line a metric: milliseconds for one edit, median over the repeats, each on a clip not seen before. Then the
          milliseconds of ClipFrame, ClipTemporal and ClipText on one clip, whose encoding they share, and on one clip
          each; the ratio is what sharing saves.

Networks have their real sizes and random weights; loading them is not counted. `--tiny` takes tiny ones and a clip of
64 x 96, to see that it runs.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from insvie_lightning.metrics.clip import ClipFrame, ClipTemporal, ClipText, PickScore, clip_encoder
from insvie_lightning.metrics.dover import Dover
from insvie_lightning.metrics.epe import EPE
from insvie_lightning.metrics.per_sample import EditedSample, PerSample
from insvie_lightning.metrics.pixels import Pixels
from insvie_lightning.metrics.ultra_edit import UltraEdit, dino_encoder
from insvie_lightning.metrics.viclip import ViClip, viclip_encoder

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def clip_l(folder: Path, tiny: bool) -> str:
    """Write a CLIP ViT-L/14 as OpenAI's."""
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    return _write_clip(folder, TINY if tiny else text, TINY if tiny else vision, 768)


def clip_h(folder: Path, tiny: bool) -> str:
    """Write a CLIP ViT-H/14 as PickScore's."""
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    return _write_clip(folder, TINY if tiny else text, TINY if tiny else vision, 1024)


def _write_clip(folder: Path, text: dict[str, int], vision: dict[str, int], features: int) -> str:
    from open_clip import SimpleTokenizer
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    theirs = SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(token, token): number for token, number in theirs.encoder.items()}
    CLIPTokenizer(vocab=vocabulary, merges=list(theirs.bpe_ranks), model_max_length=77).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    words = {"vocab_size": len(vocabulary), "bos_token_id": 49406, "eos_token_id": 49407}
    pixels = {"image_size": 224, "patch_size": 14}
    config = CLIPConfig(text_config=text | words, vision_config=vision | pixels, projection_dim=features)
    CLIPModel(config).save_pretrained(folder)
    return str(folder)


def dino_l(folder: Path, tiny: bool) -> str:
    """Write a DINOv2 ViT-L/14 with registers."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Dinov2WithRegistersConfig(**(small if tiny else large), image_size=42 if tiny else 518, patch_size=14)
    Dinov2WithRegistersModel(config).save_pretrained(folder)
    return str(folder)


def viclip_l(folder: Path, tiny: bool) -> str:
    """Write a ViCLIP-L/14."""
    from safetensors.torch import save_file

    from insvie_lightning.nets.viclip import ViClipNet, ViClipSize

    small = ViClipSize(side=28, width=64, layers=1, features=24, text_width=64, text_layers=1)
    save_file(ViClipNet(small if tiny else ViClipSize()).state_dict(), folder / "model.safetensors")
    return str(folder)


def saved(net: torch.nn.Module, folder: Path, name: str) -> str:
    """Write a network's random weights as a checkpoint."""
    torch.save(net.state_dict(), folder / name)
    return str(folder / name)


def dover(folder: Path) -> str:
    """Write a DOVER."""
    from insvie_lightning.nets.dover import DoverNet

    return saved(DoverNet(), folder, "DOVER.pth")


def gmflow(folder: Path) -> str:
    """Write a GMFlow."""
    from insvie_lightning.nets.gmflow import GMFlow

    return saved(GMFlow(), folder, "gmflow.pth")


def raft(folder: Path) -> str:
    """Write a RAFT."""
    from torchvision.models.optical_flow import raft_large

    return saved(raft_large(), folder, "raft.pth")


METRICS: dict[str, Callable[[Path, bool], PerSample]] = {
    "clip_frame": lambda folder, tiny: ClipFrame(clip_l(folder, tiny)),
    "clip_frame, tensor": lambda folder, tiny: ClipFrame(clip_l(folder, tiny), preprocessing="tensor"),
    "clip_temporal": lambda folder, tiny: ClipTemporal(clip_l(folder, tiny)),
    "clip_text": lambda folder, tiny: ClipText(clip_l(folder, tiny)),
    "pick_score": lambda folder, tiny: PickScore(clip_h(folder, tiny)),
    "viclip": lambda folder, tiny: ViClip(viclip_l(folder, tiny)),
    "ultra_edit, no dino": lambda folder, tiny: UltraEdit(clip_l(folder, tiny), dino=None),
    "ultra_edit": lambda folder, tiny: UltraEdit(clip_l(folder / "clip", tiny), dino_l(folder / "dino", tiny)),
    "pixels": lambda folder, tiny: Pixels(),
    "epe, dis": lambda folder, tiny: EPE("dis"),
    "epe, raft": lambda folder, tiny: EPE("raft", raft(folder)),
    "epe, gmflow": lambda folder, tiny: EPE("gmflow", gmflow(folder)),
    "dover": lambda folder, tiny: Dover(dover(folder)),
}
"""A metric by its name, made from an empty folder for its networks: add yours as a line."""


def samples(tiny: bool) -> Iterator[EditedSample]:
    """Yield edits that nobody has seen."""
    height, width = (64, 96) if tiny else (480, 720)
    generator = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randint(0, 256, (25, 3, height, width), generator=generator, dtype=torch.uint8)

    for number in range(1_000_000):
        captions = {"source_caption": f"horse {number} in the sun", "edited_caption": f"horse {number} in the rain"}
        yield EditedSample(key=str(number), source=noise(), edited=noise(), **captions)


@torch.inference_mode()
def milliseconds(metrics: list[PerSample], edits: list[EditedSample]) -> float:
    """Score by each metric its own edit."""
    start = time.perf_counter()
    for metric, edit in zip(metrics, edits, strict=True):
        metric.score(edit)
    return (time.perf_counter() - start) * 1000


def shared_encoding(edits: Iterator[EditedSample], tiny: bool, repeats: int) -> str:
    """Score three CLIP metrics on one clip and on one clip each."""
    with tempfile.TemporaryDirectory() as folder:
        model = clip_l(Path(folder), tiny)
        metrics: list[PerSample] = [ClipFrame(model), ClipTemporal(model), ClipText(model)]
        milliseconds(metrics, [next(edits)] * 3)
        shared = statistics.median(milliseconds(metrics, [next(edits)] * 3) for _ in range(repeats))
        apart = statistics.median(milliseconds(metrics, [next(edits) for _ in metrics]) for _ in range(repeats))
    return f"{shared:9.0f} ms together on one clip, {apart:.0f} ms on one clip each: {apart / shared:.2f} times"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny networks and frames: only to see that it runs")
    parser.add_argument("--only", nargs="+", choices=[*METRICS, "shared"], default=[*METRICS, "shared"])
    parser.add_argument("--repeats", type=int, default=3, help="default 3")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of torch; default: its own choice"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "open_clip_torch"))
    size = "64 x 96, tiny networks" if args.tiny else "480 x 720"
    print(
        f"{date.today()}, {platform.processor() or platform.machine()}, {args.threads} threads, {versions}; 25 x {size}"
    )
    edits = samples(args.tiny)
    for name in (name for name in METRICS if name in args.only):
        with tempfile.TemporaryDirectory() as folder:
            metric = METRICS[name](Path(folder), args.tiny)
            metric.prepare()
            milliseconds([metric], [next(edits)])  # what is done once: imports, tables, first allocations
            median = statistics.median(milliseconds([metric], [next(edits)]) for _ in range(args.repeats))
        print(f"{name:20}{median:9.0f} ms", flush=True)
        for cached in (clip_encoder, dino_encoder, viclip_encoder):
            cached.cache_clear()
    if "shared" in args.only:
        print(f"{'shared encoding':20}{shared_encoding(edits, args.tiny, args.repeats)}")


if __name__ == "__main__":
    main()
