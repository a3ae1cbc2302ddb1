"""Columns by their meaning."""

import pytest

from insvie_lightning.columns import ALIASES, find_columns
from insvie_lightning.errors import InputError


def test_names_are_known_whatever_their_case_and_the_first_alias_wins() -> None:
    found = ["Video Path", "caption", "Input-Caption", "INSTRUCT", "unknown"]
    assert find_columns(found, ("video", "instruction"), "t") == {
        "video": "Video Path", "instruction": "INSTRUCT", "source_caption": "Input-Caption",
    }  # fmt: skip


def test_a_given_column_goes_first() -> None:
    found = ["video", "clip", "wish"]
    assert find_columns(found, ("video",), "t", {"video": "clip", "edited_caption": "wish"}) == {
        "video": "clip", "edited_caption": "wish",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {},
            r"has the columns videos, taks, and none for video: known are video, .*--data\.columns\.video; .*'videos'",
        ),
        (None, r"none for video: known are video, .*; rename yours; did you mean 'videos'\?"),
        ({"video": "video"}, r"t has the columns videos, taks, but no 'video'; did you mean 'videos'\?"),
        ({"video": "videos"}, r"none for edit_type: known are edit_type, task, .*; did you mean 'taks'\?"),
        ({"captoin": "taks"}, r"columns: 'captoin' is no meaning of a column; legal are video, .*; did you mean"),
    ],
)
def test_what_is_not_found_is_said_with_what_is(given: dict[str, str] | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        find_columns(["videos", "taks"], ("video", "edit_type"), "t", given)


def test_no_name_has_two_meanings() -> None:
    names = [name for aliases in ALIASES.values() for name in aliases]
    assert len(names) == len(set(names))


def test_a_header_without_end_is_told_by_its_ends() -> None:
    with pytest.raises(InputError, match=r"^t has the columns \0{140}\.\.\.\0{140}, and none for video") as error:
        find_columns(["\0" * 2000], ("video",), "t")
    assert len(str(error.value)) < 600
