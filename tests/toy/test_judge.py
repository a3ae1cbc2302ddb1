"""The judge of the toy world against edits whose flaws are known."""

from collections.abc import Callable

import numpy as np
import pytest

from insvie_lightning.judges import FILTERING, SCREENING, Prompt, Question, VLMJudge, pick_frames
from insvie_lightning.toy.edits import Example, example, indices, to_triplet
from insvie_lightning.toy.judge import ToyJudge

JUDGE = VLMJudge(ToyJudge(), concurrency=2)
SAMPLES = [example("test", index) for index in indices("test", 24, ("recolour", "remove", "background"))]


def late(edited: np.ndarray, source: np.ndarray) -> np.ndarray:
    return np.concatenate([source[: len(edited) // 3], edited[len(edited) // 3 :]])


def mean_score(flaw: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    def question(sample: Example) -> Question:
        triplet = to_triplet(sample)
        source, edited = triplet.source.frames, flaw(triplet.edited.frames, triplet.source.frames)
        return Question(
            FILTERING, sample.instruction, pick_frames(source, 3), pick_frames(edited, 3), triplet.edited_caption
        )

    answers = [verdict.answer for verdict in JUDGE.ask_all(map(question, SAMPLES))]
    assert all(answer in (1, 2, 3, 4, 5) for answer in answers)
    return float(np.mean([answer for answer in answers if answer is not None]))


def test_the_worse_the_edit_the_lower_the_score() -> None:
    other = to_triplet(example("test", 777)).edited.frames
    exact, begun_late = mean_score(lambda edited, _: edited), mean_score(late)
    unedited, wrong = mean_score(lambda _, source: source), mean_score(lambda *_: other)
    assert exact > 4.5 and wrong < 1.8
    assert exact > begun_late + 0.8 and begun_late > unedited + 0.3 and unedited > wrong + 0.3


@pytest.mark.parametrize("prompt", [FILTERING, SCREENING])
def test_without_a_caption_there_is_no_verdict(prompt: Prompt) -> None:
    frames = np.zeros((2, 3, 16, 24), np.uint8)
    verdict = JUDGE.ask(Question(prompt, "make it red", frames, frames))
    assert verdict.answer is None and "none of what the edit should show" in verdict.reason
