"""The writer of the toy world: captions are repeated, edits are such as the toy world has."""

import numpy as np
import pytest

from insvie_lightning.judges import QUALITY, Question, VLMJudge
from insvie_lightning.judges.captions import describe_frame, sum_up, think_up
from insvie_lightning.toy.edits import example
from insvie_lightning.toy.scene import BACKGROUNDS, COLOURS, caption
from insvie_lightning.toy.writer import ToyWriter

FRAME = np.zeros((3, 16, 24), np.uint8)
SCENE = "red circle and blue square on night"


def asked(request):
    verdict = VLMJudge(ToyWriter()).ask(request)
    return verdict.answer or verdict.reason


def test_every_scene_in_plain_words_is_known():
    for index in range(200):
        scene = example("test", index).source
        if not scene.camera:
            assert asked(describe_frame(FRAME, caption(scene))) == {"caption": caption(scene)}


def test_a_clip_has_the_caption_that_came_with_it():
    assert asked(sum_up(["red circle on plum", SCENE], SCENE)) == {"caption": SCENE}


@pytest.mark.parametrize("number", range(1, 9))
def test_edits_and_their_captions_agree(number):
    recoloured = asked(think_up(SCENE, "recolour", number))
    _, _, colour, kind, new = recoloured["instruction"].split()
    assert new in COLOURS and new != colour and f"{colour} {kind}" in SCENE
    assert recoloured["edited_caption"] == SCENE.replace(f"{colour} {kind}", f"{new} {kind}")
    removed = asked(think_up(SCENE, "remove", number))
    left = {"remove the red circle": "blue square on night", "remove the blue square": "red circle on night"}
    assert removed["edited_caption"] == left[removed["instruction"]]
    moved = asked(think_up(SCENE, "background", number))
    new = moved["instruction"].removeprefix("change the background to ")
    assert new in BACKGROUNDS and new != "night" and moved["edited_caption"] == SCENE.replace("night", new)


def test_edits_are_drawn_by_the_request_alone():
    drawn = [asked(think_up(SCENE, "recolour", number))["instruction"] for number in range(1, 30)]
    assert drawn == [asked(think_up(SCENE, "recolour", number))["instruction"] for number in range(1, 30)]
    assert len(set(drawn)) > 5


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (describe_frame(FRAME), "knows scenes by captions"),
        (describe_frame(FRAME, "a man walks his dog"), "knows scenes by captions"),
        (think_up(SCENE, "weather"), "thinks up no edit of the type weather"),
        (Question(QUALITY, "make it red", FRAME[None], FRAME[None]), "was asked for a score"),
    ],
)
def test_what_it_does_not_know_it_says(request_, sentence):
    assert sentence in asked(request_)
