"""Which result is of which input."""

import numpy as np
import pyarrow as pa
import pytest

from insvie_lightning.batch import Clip, Draft, Rejected
from insvie_lightning.builders.results import by_key
from insvie_lightning.errors import InputError

INPUT = pa.chunked_array([["a", "b"], ["c", "a-taken"]], pa.string())


def draft(key: str) -> Draft:
    return Draft(key, Clip(np.zeros((1, 3, 8, 8), np.uint8), 8.0))


def test_results_are_sorted_by_their_samples() -> None:
    one, two, none = draft("a-1"), draft("a-2"), Rejected(draft("b"), "too dark")
    assert by_key("Step", ["a", "b"], [one, none, two], INPUT) == {"a": [one, two], "b": [none]}


@pytest.mark.parametrize("keys", [["a", "x"], ["a", "a"], ["a", "a-b-c"], ["a", "a-\u00e4"]])
def test_an_illegal_key_is_the_step_s_fault(keys: list[str]) -> None:
    with pytest.raises(RuntimeError, match=r"Step made a sample of the key '.*' out of 'a'; legal are these keys"):
        by_key("Step", ["a"], [draft(key) for key in keys], INPUT)


def test_a_sample_without_result_is_the_step_s_fault() -> None:
    with pytest.raises(RuntimeError, match="Step made nothing of 'b'"):
        by_key("Step", ["a", "b"], [draft("a")], INPUT)


def test_a_new_sample_has_no_key_of_the_input() -> None:
    with pytest.raises(InputError, match="Step makes 'a-taken' of 'a', but the input has it already"):
        by_key("Step", ["a"], [draft("a-taken")], INPUT)
