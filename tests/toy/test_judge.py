import json

import numpy as np
import pytest
import torch

from insvie_lightning.judges import NONE_GOOD, QUALITY, SCREENING, Question, VLMJudge
from insvie_lightning.toy.edits import example, indices, to_triplet
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


def test_what_it_does_not_know_is_a_missing_answer(judge):
    frames = to_triplet(example("test", EDITS[0]), frames=1).source.frames
    for question in (Question(QUALITY, "a", frames, frames, "a red circle"), screening(EDITS[0], frames, caption="")):
        verdict = VLMJudge(judge).ask(question)
        assert verdict.answer is None and "only picks candidates" in verdict.reason
