"""jsonargparse's messages as one sentence; `test_cli.py` tries them on the parser itself."""

from pathlib import Path

import pytest
from jsonargparse import Namespace

import insvie_data_modules.curriculum  # noqa: F401  # as a parser that complains of its classes has
from insvie_lightning.commands.parser_errors import explain, mend_nulls, one_line


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
        (
            'Parser key "size":\n  Does not validate against any of the Union subtypes\n  Subtypes: x\n  Errors:\n'
            "    - Expected a <class 'tuple'>\n    - Expected a <class 'NoneType'>\n    - Expected a <class 'NoneType'>"
            "\n  Given value: 64",
            "size: expected tuple or null, got 64",
        ),
        ("unrecognized arguments: s1", "'s1' belongs to no option; a recipe is given by -c, such as -c s1"),
        (
            "Parser key \"data.stages\":\n Problem with given class_path 'insvie_data_modules.curriculum.Stage':\n"
            "  Option 'nam' is not accepted",
            "data.stages: Stage takes no 'nam'; did you mean 'name'?",
        ),
    ],
)
def test_a_message_becomes_one_sentence(message: str, said: str) -> None:
    found = explain(message)
    assert found.startswith(said) and "\n" not in found


@pytest.mark.parametrize("written", [["--model.judge.cache=null"], ["--model.judge.cache", "null"]])
def test_a_null_deep_in_a_recipe_is_null(written: list[str]) -> None:
    judge = Namespace(cache=Path("None"), name="None")
    config = Namespace(model=Namespace(judge=judge, width=3), trainer=Namespace(callbacks=[Namespace(cache="None")]))
    mend_nulls(config, ["--data.videos", "nullable", *written, "--model.width=3"])
    assert judge.cache is None and judge.name == "None" and config.trainer.callbacks[0].cache is None
    mend_nulls(config, ["--model.judge.name", "nullable"])
    assert judge.name == "None"


def test_white_space_becomes_a_space() -> None:
    assert one_line("  a\n\t b  c ") == "a b c"
