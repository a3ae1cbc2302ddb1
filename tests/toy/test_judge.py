"""The judge of the toy world against edits and flaws that are known."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from insvie_lightning.judges import FILTERING, NONE_GOOD, SCREENING, Prompt, Question, VLMJudge, pick_frames
from insvie_lightning.toy.edits import Example, example, indices, to_triplet
from insvie_lightning.toy.judge import ToyJudge

EDITS = indices("test", 12, ("recolour", "background", "style"))


@pytest.fixture(scope="module")
def judge() -> ToyJudge:
    return ToyJudge()


def screening(index: int, *candidates: np.ndarray, caption: str | None = None) -> Question:
    triplet = to_triplet(example("test", index), frames=1)
    said = triplet.edited_caption if caption is None else caption
    return Question(SCREENING, triplet.instruction, triplet.source.frames, np.concatenate(candidates), said)


def test_the_true_edit_is_picked_among_edits_of_other_scenes_and_the_source(judge):
    right = 0
    for place, index in enumerate(EDITS):
        triplet, other = (to_triplet(example("test", i), frames=1) for i in (index, EDITS[place - 1]))
        candidates = [other.edited.frames, triplet.source.frames]
        candidates.insert(place % 3, triplet.edited.frames)
        right += VLMJudge(judge).ask(screening(index, *candidates)).answer == place % 3
    assert right >= 10


def test_all_are_rejected_where_none_comes_nearer_than_the_source(judge):
    triplet = to_triplet(example("test", EDITS[0]), frames=1)
    question = screening(EDITS[0], triplet.source.frames, triplet.source.frames)
    assert VLMJudge(judge).ask(question).answer == NONE_GOOD


def test_any_size_is_judged_and_the_same_question_alike(judge):
    triplet = to_triplet(example("test", EDITS[0]), frames=1, height=128, width=192)
    question = screening(EDITS[0], triplet.edited.frames, 255 - triplet.edited.frames)
    assert judge.reply(question).text == judge.reply(question).text == json.dumps({"best_image": 0})
    small = to_triplet(example("test", EDITS[0]), frames=1)
    scores = [
        float(judge.agreement(torch.from_numpy(one.edited.frames), one.edited_caption)) for one in (triplet, small)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


SCENES = [example("test", index) for index in indices("test", 24, ("recolour", "remove", "background"))]


def late(edited: np.ndarray, source: np.ndarray) -> np.ndarray:
    return np.concatenate([source[: len(edited) // 3], edited[len(edited) // 3 :]])


def mean_score(judge: ToyJudge, flaw: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    def question(sample: Example) -> Question:
        triplet = to_triplet(sample)
        source, edited = triplet.source.frames, flaw(triplet.edited.frames, triplet.source.frames)
        return Question(
            FILTERING, sample.instruction, pick_frames(source, 3), pick_frames(edited, 3), triplet.edited_caption
        )

    answers = [verdict.answer for verdict in VLMJudge(judge, concurrency=2).ask_all(map(question, SCENES))]
    assert all(answer in (1, 2, 3, 4, 5) for answer in answers)
    return float(np.mean([answer for answer in answers if answer is not None]))


def test_the_worse_the_edit_the_lower_the_score(judge: ToyJudge) -> None:
    other = to_triplet(example("test", 777)).edited.frames
    exact, begun_late = mean_score(judge, lambda edited, _: edited), mean_score(judge, late)
    unedited, wrong = mean_score(judge, lambda _, source: source), mean_score(judge, lambda *_: other)
    assert exact > 4.5 and wrong < 1.8
    assert exact > begun_late + 0.8 and begun_late > unedited + 0.3 and unedited > wrong + 0.3


@pytest.mark.parametrize("prompt", [FILTERING, SCREENING])
def test_without_a_caption_there_is_no_verdict(judge: ToyJudge, prompt: Prompt) -> None:
    frames = np.zeros((2, 3, 16, 24), np.uint8)
    verdict = VLMJudge(judge).ask(Question(prompt, "make it red", frames, frames))
    assert verdict.answer is None and "none of what the edit should show" in verdict.reason
