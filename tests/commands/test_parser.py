"""What is wrong with the command line of a command is one sentence."""

from typing import get_args

import pytest

from insvie_lightning.cli import main
from insvie_lightning.commands.edit import RESIZE, _size
from insvie_lightning.editors.framing import EditResize
from insvie_lightning.errors import InputError


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("shards select a b", "the following arguments are required: --where; insvie shards select --help"),
        ("explain a b --jsn", "unrecognized arguments: --jsn; did you mean '--json'?"),
        ("shards select a b --where x --key-only", "did you mean '--keys-only'?"),
        ("shards select a b --where x --shard-size many", "invalid int value: 'many'; insvie shards select --help"),
        ("explain key", "the following arguments are required: DIR; insvie explain --help tells more"),
        ("report a --outputt=b", "unrecognized arguments: --outputt=b; did you mean '--output'?"),
        ("edit --output out.mp4 --num_inference_step 2", "did you mean '--num_inference_steps'?"),
        ("edit --output out.mp4 --resize streched", "invalid choice: 'streched'"),
        ("edit --output out.mp4 --resize streched", "did you mean 'stretch'?"),
        ("shards indx a", "did you mean 'index'?"),
    ],
)
def test_a_wrong_option_is_one_sentence(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.startswith("error: ") and said.count("\n") == 1


def test_edit_offers_the_ways_to_resize_that_there_are() -> None:
    assert get_args(EditResize) == RESIZE


@pytest.mark.parametrize("text", ["480 720", "[480,720]", "[480, 720]", "480,720"])
def test_a_size_is_written_as_elsewhere(text: str) -> None:
    assert _size(text) == (480, 720)


@pytest.mark.parametrize("text", ["480", "480 x 720", "-480 720", "480 720 3"])
def test_what_is_no_size_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="give height and width, such as 480 720"):
        _size(text)
