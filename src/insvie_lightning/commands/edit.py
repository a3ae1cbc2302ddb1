"""Edit one video by one sentence, or many by a CSV."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from insvie_lightning.commands.parser import Parser
from insvie_lightning.edit_list import keep_source, list_edits
from insvie_lightning.errors import InputError

RESIZE = ("pad", "aspect", "stretch", "cover")
"""Those of `editors.framing.EditResize`, whose room takes seconds to import."""
OF_RECIPES = ("--model", "--data", "--trainer", "--metrics", "--seed_everything")
"""What options that go to the recipe or the editor begin with."""
EXAMPLE = "say what to change, e.g. 'turn the car into a tuk-tuk'"


def main(argv: Sequence[str]) -> int:
    """Run `insvie edit`; what is not an option of its own goes to the recipe or the editor. 2 when an edit was bad."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if unknown := next((word for word in rest if word.startswith("-") and not word.startswith(OF_RECIPES)), None):
        parser.error(f"unrecognized arguments: {unknown}")
    if bool(options.video) == bool(options.csv):
        raise InputError("give what to edit either as --video FILE or as --csv TABLE")
    if options.instruction is not None and not options.instruction.strip():
        raise InputError(f"--instruction is empty; {EXAMPLE}")
    if options.video and options.instruction is None:
        raise InputError(f"--instruction is missing; {EXAMPLE}")
    if options.video and options.output.suffix != ".mp4":
        raise InputError(f"--output {options.output}: only .mp4 is written")
    if bool(options.weights) == bool(options.config):
        raise InputError("give the editor either as --weights FOLDER or as a recipe, -c NAME")
    if options.csv:
        return _edit_table(options, rest)
    return _edit_one(options, rest)


def _edit_one(options: argparse.Namespace, rest: list[str]) -> int:
    from insvie_lightning.decode import open_video

    keep_source(options.video, options.output)
    with open_video(options.video) as video:  # what cannot be read is said before the editor is loaded
        height, width = video.size
    changes = _changes(options)
    editor = _editor(options, rest)
    start = time.monotonic()
    frames = editor.edit_file(options.video, options.instruction, options.output, **changes)
    seconds = time.monotonic() - start
    print(f"{options.output}: {frames} frames of a {width}x{height} video, edited in {seconds:.1f} s", file=sys.stderr)
    return 0


def _edit_table(options: argparse.Namespace, rest: list[str]) -> int:
    edits, changes = list_edits(options.csv, options.instruction), _changes(options)
    from insvie_lightning.editors.bulk import QUARANTINE, check_folder, edit_in_bulk

    check_folder(options.output)  # said before the editor is loaded
    editor = _editor(options, rest)
    how = replace(editor.options, **changes)
    result = edit_in_bulk(editor, edits, options.output, how, lambda line: print(line, file=sys.stderr))
    print(f"{result.edited} edited, {result.done_before} done before, {result.bad} bad", file=sys.stderr)
    if result.bad:
        print(f"the reasons are in {options.output / QUARANTINE}", file=sys.stderr)
    return 2 if result.bad else 0


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `EditOptions` that were given; what is not legal is said now."""
    from insvie_lightning.editors.options import EditOptions

    given = {field.name: getattr(options, field.name, None) for field in fields(EditOptions)}
    if given["size"] is not None:
        given["size"] = _size(" ".join(given["size"]))
    changes = {name: value for name, value in given.items() if value is not None}
    EditOptions(**changes)
    return changes


def _size(text: str) -> tuple[int, int]:
    """Height and width, written as an argument (480 720) or as in a recipe ([480,720])."""
    if not (found := re.fullmatch(r"\[?\s*(\d+)\s*[\s,]\s*(\d+)\s*\]?", text)):
        raise InputError(f"--size {text}: give height and width, such as 480 720")
    return int(found[1]), int(found[2])


def _editor(options: argparse.Namespace, rest: list[str]) -> Any:
    import torch

    from insvie_lightning.commands.lightning_cli import InsvieCLI, build_model
    from insvie_lightning.editors.editor import Editor, default_device, default_dtype
    from insvie_lightning.weights.deliverable import read_settings

    dtype = getattr(torch, options.dtype) if options.dtype else default_dtype(torch.device(default_device()))
    if options.weights is not None:
        settings = read_settings(options.weights)
        settings.pop("ema_updates", None)
        model: Any = build_model(settings.pop("editor", "InsViE"), settings, rest)
        model.start_from = options.weights
    else:
        cli = InsvieCLI([*(part for name in options.config for part in ("-c", name)), *rest], run=False)
        model = cli.model
        if not hasattr(model, "edit_batch"):
            raise InputError(f"{type(model).__name__} is not an editor; `insvie list` shows the editors")
        if not any(argument.startswith("--model.") and "start_from" in argument for argument in rest):
            # A recipe's own start_from is what its training starts from; an edit wants what it ends with.
            model.start_from = Path(cli.trainer.default_root_dir) / "weights"
    model.base_dtype = dtype
    model.setup("predict")
    return Editor.place(model, dtype=dtype, low_memory=options.low_memory)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="insvie edit", description=__doc__, allow_abbrev=False)
    parser.add_argument("--video", type=Path, help="the video to edit: any length, any size")
    parser.add_argument("--csv", type=Path, help="or a table of edits: columns video,instruction[,output]; or a folder")
    parser.add_argument("--instruction", help="what to change, in a sentence; in a table, where a row has none")
    parser.add_argument("--output", type=Path, required=True, help="the edited video, an mp4; of a table, a folder")
    parser.add_argument("--weights", type=Path, help="the `weights` folder of a run; or give a recipe:")
    parser.add_argument("-c", "--config", action="append", default=[], help="a recipe; with either, any --model.OPTION")
    how = parser.add_argument_group("how (the released script: --frame_rule release --resize cover --fps 7)")
    how.add_argument("--frame_rule", choices=("keep", "release"), help="all frames, or the first 8k + 1 up to 49")
    how.add_argument("--resize", choices=RESIZE, help="how the clip gets the network's size; pad")
    how.add_argument(
        "--size", nargs="+", metavar="PIXELS", help="of the network: 480 720 or [480,720], multiples of 16"
    )
    how.add_argument("--fps", type=float, help="of the result; the source's")
    how.add_argument("--max_frames", type=int, help="of a window; the base's own")
    how.add_argument("--overlap", type=int, help="frames that fade from window to window; a sixth of it")
    how.add_argument("--num_inference_steps", type=int, help="sampler steps")
    how.add_argument("--seed", type=int, help="of the noise")
    how.add_argument("--low_memory", action="store_true", help="only the network at work is on the GPU; slower")
    how.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights; bfloat16 on a GPU")
    return parser
