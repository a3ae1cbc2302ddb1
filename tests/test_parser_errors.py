"""jsonargparse's messages as one sentence; `test_cli.py` tries them on the parser itself."""

import pytest

from insvie_lightning.parser_errors import explain, one_line


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Unrecognized: unrecognized arguments: --trainer.max_step=3", "no option 'trainer.max_step' here; did you"),
        ("Parser key \"model\": Importing 'os.system' is not allowed", "model: a recipe may not name 'os.system'"),
        (
            'Parser key "data":\n  Expected a dot import path string: Curriculm',
            "data: no class 'Curriculm' is registered",
        ),
        ('Key "model" is required but not\n included', 'Key "model" is required but not included; give a recipe with'),
        (
            "Parser key \"model.width\":\n  Expected a <class 'int'>. Got value: a",
            "model.width: expected int, got a",
        ),
        (
            'Parser key "seed":\n  Does not validate against any of the Union subtypes\n  Subtypes: x\n  Errors:\n'
            "    - Expected a <class 'int'>\n    - Expected a <class 'bool'>\n  Given value: a",
            "seed: expected int or bool, got a",
        ),
        (
            "Expected a typing.Literal['min', 'max']. Got value: mim",
            "expected one of min, max, got mim; did you mean 'm",
        ),
    ],
)
def test_a_message_becomes_one_sentence(message: str, said: str) -> None:
    found = explain(message)
    assert found.startswith(said) and "\n" not in found


def test_white_space_becomes_a_space() -> None:
    assert one_line("  a\n\t b  c ") == "a b c"
