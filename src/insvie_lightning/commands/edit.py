"""Edit one video by one sentence."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from insvie_lightning.errors import InputError
from insvie_lightning.video import read_clip, write_clip


def main(argv: Sequence[str]) -> int:
    """Run `insvie edit`; what is not an option of its own goes to the recipe."""
    parser = argparse.ArgumentParser(prog="insvie edit", description=__doc__, allow_abbrev=False)
    parser.add_argument("--video", type=Path, required=True, help="the video to edit: any length, any size")
    parser.add_argument("--instruction", required=True, help="what to change, in a sentence")
    parser.add_argument("--output", type=Path, required=True, help="the edited video, an mp4")
    parser.add_argument("--weights", type=Path, help="the `weights` folder of a run; or give a recipe:")
    parser.add_argument("-c", "--config", action="append", default=[], help="a recipe, and any --model.OPTION")
    options, rest = parser.parse_known_args(argv)
    if not options.instruction.strip():
        raise InputError("--instruction is empty; say what to change, e.g. 'turn the car into a tuk-tuk'")
    if options.output.suffix != ".mp4":
        raise InputError(f"--output {options.output}: only .mp4 is written")
    if bool(options.weights) == bool(options.config):
        raise InputError("give the editor either as --weights FOLDER or as a recipe, -c NAME")
    clip = read_clip(options.video)
    editor = _editor(options.weights, options.config, rest)
    start = time.monotonic()
    write_clip(options.output, editor.edit(clip, options.instruction))
    seconds = time.monotonic() - start
    height, width = clip.size
    shape = f"{len(clip)} frames of {width}x{height} at {clip.fps:g} fps"
    print(f"{options.output}: {shape}, edited in {seconds:.1f} s", file=sys.stderr)
    return 0


def _editor(weights: Path | None, recipes: list[str], rest: list[str]) -> Any:
    import torch

    from insvie_lightning.editors.insvie import InsViE
    from insvie_lightning.lightning_cli import InsvieCLI

    if weights is not None:
        if rest:
            raise InputError(f"{rest[0]} belongs to a recipe and cannot be used with --weights")
        editor: Any = InsViE.from_pretrained(weights)
    else:
        cli = InsvieCLI([*(part for name in recipes for part in ("-c", name)), *rest], run=False)
        editor = cli.model
        if not hasattr(editor, "edit"):
            raise InputError(f"{type(editor).__name__} is not an editor; `insvie list` shows the editors")
        if not any(argument.startswith("--model.") and "start_from" in argument for argument in rest):
            # A recipe's own start_from is what its training starts from; an edit wants what it ends with.
            editor.start_from = Path(cli.trainer.default_root_dir) / "weights"
        editor.setup("predict")
    if torch.cuda.is_available():
        return editor.eval().to("cuda", torch.bfloat16)
    return editor.eval()
