"""`insvie weights`: read released checkpoints, and write editors for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from insvie_lightning.commands.parser import Parser


def main(argv: list[str]) -> int:
    """Run `insvie weights` with the arguments after it; return the exit status."""
    args = _parser().parse_args(argv)
    status: int = args.run(args)
    return status


def import_(args: argparse.Namespace) -> int:
    """Make an editor, which `insvie edit --weights` reads, of a released checkpoint or a LoRA and patch embedding."""
    from insvie_lightning.weights.released import import_released

    written = import_released(args.path, args.dst, args.base, args.vae, args.lora_alpha)
    settings = written.settings
    kind = f"LoRA of rank {settings['lora_rank']}, alpha {settings['lora_alpha']:g}"
    average = "raw and averaged" if written.ema else "raw"
    what = kind if settings["trainable"] == "lora" else "a whole transformer"
    print(f"{args.dst}: {what}, {len(written.raw)} tensors, {average}, on the base {settings['base']}")
    return 0


def export(args: argparse.Namespace) -> int:
    """Write an editor for other programs, read it back, and compare what both compute."""
    import torch

    from insvie_lightning.weights.export import export_editor

    difference = export_editor(args.src, args.dst, args.layout, not args.raw, getattr(torch, args.dtype))
    print(f"{args.dst}: read back as {args.layout}, computes the same (relative difference {difference:.1e})")
    return 0


def _parser() -> argparse.ArgumentParser:
    from insvie_lightning.weights.export import Layout

    parser = Parser(prog="insvie weights", description=sys.modules[__name__].__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("import", help=import_.__doc__, description=import_.__doc__)
    verb.set_defaults(run=import_)
    verb.add_argument("path", type=Path, metavar="PATH", help="folder with `latest`, folder of a step, or a file")
    verb.add_argument("dst", type=Path, metavar="DST", help="folder of the editor")
    verb.add_argument("--base", default="zai-org/CogVideoX-2b", help="text-to-video model: folder, hub id, or toy")
    verb.add_argument("--vae", type=Path, help="another autoencoder: 3d-vae.pt; by default the base's")
    verb.add_argument("--lora-alpha", type=float, default=1.0, help="of a SAT checkpoint, default 1 as released")

    verb = verbs.add_parser("export", help=export.__doc__, description=export.__doc__)
    verb.set_defaults(run=export)
    verb.add_argument("src", type=Path, metavar="SRC", help="the `weights` folder of a run or of an import")
    verb.add_argument("dst", type=Path, metavar="DST", help="folder; with --as single a .safetensors file")
    verb.add_argument("--as", dest="layout", choices=get_args(Layout), default="diffusers", help="default diffusers")
    verb.add_argument("--raw", action="store_true", help="take the raw weights though there are averaged ones")
    verb.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="default float32")
    return parser
