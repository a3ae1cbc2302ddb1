"""Which column of a table of edits means what, whatever the table calls it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from insvie_lightning.errors import InputError, nearest, shortened

ALIASES: dict[str, tuple[str, ...]] = {
    "video": ("video", "video_path", "video_name", "video_file", "source_video", "input_video", "path", "file_name"),
    "instruction": ("instruction", "instruct", "edit_instruction", "editing_instruction"),
    "source_caption": ("source_caption", "input_caption", "original_caption", "caption", "source_prompt"),
    "edited_caption": ("edited_caption", "edit_caption", "output_caption", "target_caption", "target_prompt"),
    "edit_type": ("edit_type", "task", "task_type", "type", "category"),
    "output": ("output", "edited", "edited_video", "output_video"),
}
"""Meaning -> names that it goes by, the likeliest first: this project's, the released InsViE-1M's, TGVE+'s, and others.

Case does not matter, and `_`, `-` and a space are one.
"""


def find_columns(
    found: Sequence[str], needed: Sequence[str], table: object, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return meaning -> column of a table, for all meanings that have one.

    Args:
        found: The table's columns.
        needed: Meanings that it must have.
        table: What to call it in errors.
        given: Meanings whose columns the user names; None where there is no option to do so.

    Raises:
        InputError: A needed column is not found; or `given` names a meaning or a column that there is not.
    """
    listed = shortened(", ".join(found) or "none", 300)
    for meaning, column in (given or {}).items():
        if meaning not in ALIASES:
            raise InputError(
                f"columns: {meaning!r} is no meaning of a column; legal are {', '.join(ALIASES)}"
                f"{nearest(meaning, ALIASES)}"
            )
        if column not in found:
            raise InputError(f"{table} has the columns {listed}, but no {column!r}{nearest(column, found)}")
    plain: dict[str, str] = {}
    for column in found:
        plain.setdefault(_plain(column), column)
    columns = {
        meaning: next((plain[name] for name in names if name in plain), "") for meaning, names in ALIASES.items()
    }
    columns |= given or {}
    for meaning in needed:
        if not columns[meaning]:
            names = ALIASES[meaning]
            advice = "rename yours" if given is None else f"name yours with --data.columns.{meaning}"
            hint = next((hint for name in names if (hint := nearest(name, found))), "")
            raise InputError(
                f"{table} has the columns {listed}, and none for {meaning}: known are {', '.join(names)}; "
                f"{advice}{hint}"
            )
    return {meaning: column for meaning, column in columns.items() if column}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().lower())
