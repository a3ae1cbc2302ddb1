"""Edit many video files: what is done is skipped, what is bad is set aside with its reason."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from insvie_lightning.edit_list import Edit, can_exist, check
from insvie_lightning.editors.editor import Editor
from insvie_lightning.editors.options import EditOptions
from insvie_lightning.errors import InputError
from insvie_lightning.quarantine import Quarantine
from insvie_lightning.video import read_comment

QUARANTINE = "quarantine.jsonl"


def check_folder(folder: Path) -> None:
    """Refuse an outputs' folder that cannot be one.

    Raises:
        InputError: It, or what it lies in, is a file.
    """
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.is_file():
        raise InputError(f"the output {folder}: {there} is a file, but many edits need a folder")


@dataclass(frozen=True, slots=True)
class BulkResult:
    """How many edits were made now, had been made before, and were bad."""

    edited: int
    done_before: int
    bad: int


def edit_in_bulk(
    editor: Editor,
    edits: Sequence[Edit],
    folder: Path,
    options: EditOptions | None = None,
    tell: Callable[[str], None] = print,
) -> BulkResult:
    """Edit every video into a folder.

    An output that is there already and was made from the same video by the same sentence, options and model is left as
    it is (`Editor.lineage`), so that a rerun goes on where it stopped; outputs appear whole or not at all. A bad edit,
    as one whose output is one of the listed videos, goes to `quarantine.jsonl` with its key and reason, and is tried
    again by a rerun.

    Args:
        editor: A trained editor.
        edits: See `list_edits`.
        folder: The outputs' folder.
        options: How to edit; None takes the editor's own.
        tell: Is called with a line about each edit.

    Raises:
        InputError: `folder` is a file.
    """
    options = options or editor.options
    check_folder(folder)
    reasons = folder / QUARANTINE
    reasons.unlink(missing_ok=True)
    quarantine = Quarantine(reasons, max_rate=1.0)  # a table of videos is small: all of it is tried
    # resolve() raises where links go in circles.
    sources = {os.path.realpath(edit.video): edit.video for edit in edits if can_exist(edit.video)}
    taken: dict[str, str] = {}
    counts = {"edited": 0, "done_before": 0, "bad": 0}
    for edit in edits:
        output = folder / edit.output
        try:
            check(edit)
            file = os.path.realpath(output)
            if file in sources:
                raise InputError(
                    f"the output {edit.output!r} is the video {sources[file]}, which would be lost; name another"
                )
            if file in taken:
                raise InputError(f"the output {edit.output!r} is already that of {taken[file]!r}; name another")
            taken[file] = edit.key
            if output.exists() and read_comment(output) == editor.lineage(edit.video, edit.instruction, options):
                counts["done_before"] += 1
                continue
            frames = editor.edit_file(edit.video, edit.instruction, output, options)
        except InputError as error:
            quarantine.add(edit.key, str(error))
            counts["bad"] += 1
            tell(f"{edit.key}: bad: {error}")
        else:
            quarantine.accept()
            counts["edited"] += 1
            tell(f"{output}: {frames} frames")
    return BulkResult(**counts)
