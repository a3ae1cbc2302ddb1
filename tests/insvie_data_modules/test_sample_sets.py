"""Sets as queries: what is refused before anything is written."""

from pathlib import Path

import numpy as np
import pytest

from insvie_data_modules.sample_sets import SampleSet, SampleSets
from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.select import Selection
from insvie_lightning.shards.write import ShardWriter


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    clip = Clip(np.full((2, 3, 16, 16), 90, np.uint8), 7.0)
    with ShardWriter(tmp_path / "set") as writer:
        for index in range(3):
            origin = "static" if index else "real"
            writer.write(Triplet(f"k{index}", clip, clip, "x", origin=origin, scores={"judge": index + 2}))  # type: ignore[arg-type]
    return tmp_path / "set"


def test_each_set_is_a_batch_of_its_own(shards: Path) -> None:
    sets = {"s1": SampleSet(), "s2": SampleSet("judge >= 3"), "s3": SampleSet(static_to_real="2:1")}
    chosen = list(SampleSets(shards, sets, seed=4).predict_dataloader())
    assert chosen == [
        Selection("s1", shards, "true", None, 4),
        Selection("s2", shards, "judge >= 3", None, 4),
        Selection("s3", shards, "true", "2:1", 4),
    ]
    assert [len(selection.rows()) for selection in chosen] == [3, 2, 3]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (SampleSet("juge >= 3"), r"set 's2': .* has no column 'juge'; .* did you mean 'judge'\?"),
        (SampleSet("judge >="), r"set 's2': the clause 'judge >=' is no legal SQL condition"),
        (SampleSet("judge > 9"), "set 's2': the clause 'judge > 9' keeps none of the 3 samples"),
        (SampleSet(static_to_real="5:1"), "set 's2': static:real = 5:1 cannot be held"),
        (SampleSet(static_to_real=301.0), "set 's2': .* write '5:1'"),
    ],
)
def test_a_query_that_chooses_nothing_is_told_with_its_set(shards: Path, query: SampleSet, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SampleSets(shards, {"s1": SampleSet(), "s2": query}).predict_dataloader()


def test_names_are_names_of_folders() -> None:
    with pytest.raises(InputError, match=r"the set '\.\./s1' names no folder"):
        SampleSets(Path("x"), {"../s1": SampleSet()})
    with pytest.raises(InputError, match="there is no set to build"):
        SampleSets(Path("x"), {})
