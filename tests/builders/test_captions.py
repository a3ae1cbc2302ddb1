"""The step by itself, before a writer that says what it is told to, and before a real tiny model."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from insvie_lightning.batch import Clip, Draft, Rejected
from insvie_lightning.builders import BuildCaptions
from insvie_lightning.builders.captions import draw_types
from insvie_lightning.errors import InputError
from insvie_lightning.judges import TextRequest, VLMJudge
from insvie_lightning.judges.captions import EDITS
from insvie_lightning.judges.reply import Reply, Unavailable

TINY_VLM = Path(__file__).parents[1] / "judges" / "tiny_vlm"


class Writer:
    """Captions a frame by its brightness, a video by those of its frames, and edits by their type; can be overruled.

    Args:
        said: Name of a request, or part of what is asked -> a reply, or an error.
    """

    identity = {"model": "writer", "temperature": 0.7}  # noqa: RUF012

    def __init__(self, **said: Any) -> None:
        self.said = said
        self.asked: list[TextRequest] = []

    def check(self) -> None:
        pass

    def reply(self, question: Any, earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        self.asked.append(question)
        for name, reply in self.said.items():
            if name == question.name or name in question.request:
                if isinstance(reply, Exception):
                    raise reply
                return reply if isinstance(reply, Reply) else Reply(reply)
        if question.name == "describe_frame":
            return Reply(json.dumps({"caption": f"grey {question.frames[0, 0, 0, 0]}"}))
        if question.name == "sum_up":
            return Reply(json.dumps({"caption": f"a grey video, {question.request.count('grey')} times"}))
        texts = {"instruction": f"{question.name} it", "edited_caption": f"edited by {question.name}"}
        return Reply(json.dumps(texts))

    def names(self) -> Counter[str]:
        return Counter(question.name for question in self.asked)


def draft(key: str = "a", frames: int = 9, caption: str = "") -> Draft:
    pixels = np.arange(frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)
    return Draft(key, Clip(pixels, 7.0), source_caption=caption, dataset="d", lineage={"Earlier": {}})


def builder(model: Any, **settings: Any) -> BuildCaptions:
    return BuildCaptions(Path("nowhere"), VLMJudge(model, reasks=1, concurrency=3), **settings)


def test_a_video_becomes_drafts_with_captions_and_instructions():
    model = Writer()
    made = builder(model).make([draft()])
    assert [one.key for one in made] == ["a-0", "a-1", "a-2", "a-3"]
    assert all(isinstance(one, Draft) for one in made)
    assert {one.source_caption for one in made} == {"a grey video, 3 times"}
    for one in made:
        assert one.instruction == f"think_up_{one.edit_type} it" and one.edited_caption.endswith(one.edit_type)
        assert (one.source is made[0].source, one.dataset, one.edited_frame) == (True, "d", None)
    assert len({one.edit_type for one in made}) == 4
    frames = [int(question.frames[0, 0, 0, 0]) for question in model.asked if question.name == "describe_frame"]
    assert sorted(frames) == [0, 4, 8] and len(model.asked) == 3 + 1 + 4


def test_what_is_known_of_a_video_is_told_and_an_image_needs_no_summary():
    model = Writer()
    builder(model).make([draft(caption='A "grey"\n  essay')])
    known = [question.request for question in model.asked if question.name in ("describe_frame", "sum_up")]
    assert len(known) == 4 and all(json.dumps('A "grey" essay') in request for request in known)
    model = Writer()
    made = builder(model).make([draft(frames=1)])
    assert model.names()["describe_frame"] == 1 and model.names()["sum_up"] == 0
    assert made[0].source_caption == "grey 0"
    builder(model).make([draft(caption="x" * 9000)])
    assert max(len(question.request) for question in model.asked) < 3000


@pytest.mark.parametrize("name", ["describe_frame", "sum_up"])
@pytest.mark.parametrize(
    ("reply", "missing"),
    [
        ("It is grey.", "could not be read"),
        ("", "could not be read"),
        ('{"caption": "a "grey" frame"}', "could not be read"),
        ('{"caption": "灰色的画面"}', "could not be read"),
        (Reply("", fault="the server refused the question (HTTP 413)"), "HTTP 413"),
    ],
)
def test_without_a_caption_a_video_is_rejected_and_others_are_not(name, reply, missing):
    model = Writer(**{"special": reply} if name == "describe_frame" else {"sum_up": reply})
    drafts = [draft("a", caption="special"), draft("b")] if name == "describe_frame" else [draft("a")]
    made = builder(model).make(drafts)
    assert isinstance(made[0], Rejected) and made[0].sample.key == "a" and missing in made[0].reason
    json.dumps(made[0].sample.lineage)
    assert [one.key for one in made[1:] if isinstance(one, Draft)] == [f"b-{i}" for i in range(4) if len(drafts) > 1]


@pytest.mark.parametrize(
    ("reply", "instruction"),
    [
        (json.dumps({"instruction": 'Paint "STOP"\non it', "edited_caption": "a {sign}"}), 'Paint "STOP" on it'),
        ("Sure: {'instruction': \"Make it the dog's\", 'edited_caption': 'x'}", "Make it the dog's"),
        ('{"instruction": "say "no"", "edited_caption": "x"}', None),
        ("Make it night!", None),
        ('{"instruction": "把天空变红", "edited_caption": "红色的天空"}', None),
        ('{"instruction": "", "edited_caption": "x"}', None),
    ],
)
def test_an_instruction_is_right_or_rejected(reply, instruction):
    made = builder(Writer(think_up_add=reply), edit_types={"add": 1, "style": 1}, instructions_per_video=2).make(
        [draft()]
    )
    by_type = {(one.sample if isinstance(one, Rejected) else one).edit_type: one for one in made}
    assert {(one.sample if isinstance(one, Rejected) else one).key for one in made} == {"a-0", "a-1"}
    assert isinstance(by_type["style"], Draft)
    if instruction is None:
        assert by_type["add"].reason == "the writer gave no instruction: its replies could not be read"
        told = by_type["add"].sample.lineage["BuildCaptions"]["instruction"]
        assert told["replies"] == [reply, reply] and told["answer"] is None and told["reason"]
    else:
        assert by_type["add"].instruction == instruction


def test_what_a_video_has_already_is_rejected():
    same = json.dumps({"instruction": "Make it red.", "edited_caption": "red"})
    again = json.dumps({"instruction": " make it  RED", "edited_caption": "all red"})
    unchanged = json.dumps({"instruction": "leave it", "edited_caption": "A grey video: 3 times!"})
    model = Writer(think_up_add=same, think_up_style=again, think_up_remove=unchanged)
    made = builder(model, edit_types={"add": 1, "style": 1, "remove": 1}, instructions_per_video=3).make([draft()])
    reasons = Counter(one.reason if isinstance(one, Rejected) else "kept" for one in made)
    already, changeless = "the source has this instruction already", "the caption of the edit is that of the source"
    assert reasons == {"kept": 1, already: 1, changeless: 1}
    assert sum(isinstance(one, Draft) for one in builder(Writer(think_up_add=same)).make([draft("a"), draft("b")])) == 8


def test_more_instructions_than_types_are_different_questions():
    model = Writer()
    builder(model, edit_types={"add": 1, "style": 0}, instructions_per_video=3).make([draft()])
    asked = [question.request for question in model.asked if question.name == "think_up_add"]
    assert len(set(asked)) == 3 and model.names()["think_up_style"] == 0


def test_types_are_balanced_over_each_video_and_over_all():
    weights = {"style": 1.0, "add": 2.0, "remove": 1.0, "weather": 0.0}
    drawn = [draw_types(weights, 4, seed) for seed in range(50)]
    assert {tuple(sorted(types)) for types in drawn} == {("add", "add", "remove", "style")}
    assert len({tuple(types) for types in drawn}) > 5
    one = Counter(draw_types(weights, 1, seed)[0] for seed in range(4000))
    for name, share in (("style", 0.25), ("add", 0.5), ("remove", 0.25), ("weather", 0)):
        assert one[name] / 4000 == pytest.approx(share, abs=0.03)
    pairs = Counter(frozenset(draw_types(dict.fromkeys(EDITS, 1.0), 2, seed)) for seed in range(2000))
    assert len(pairs) == 21 and min(pairs.values()) > 50


def test_a_video_is_written_alike_whoever_is_beside_it_and_the_lineage_says_how():
    step = builder(Writer(), seed=3)
    together = step.make([draft("a"), draft("b", caption="x"), draft("c", frames=1)])
    for key, given in (("a", draft("a")), ("b", draft("b", caption="x")), ("c", draft("c", frames=1))):
        alone = [replace(one, source=given.source) for one in builder(Writer(), seed=3).make([given])]
        assert alone == [replace(one, source=given.source) for one in together if one.key.startswith(key)]
    told = json.loads(json.dumps(together[0].lineage))
    assert told["Earlier"] == {}
    facts = told["BuildCaptions"]
    assert set(facts) == {"initial_caption", "frames", "caption", "instruction"}
    assert [one["replies"] for one in facts["frames"]] == [[f'{{"caption": "grey {i}"}}'] for i in (0, 4, 8)]
    assert facts["instruction"]["answer"]["instruction"] == together[0].instruction
    assert step.settings == {
        "writer": {"model": "writer", "temperature": 0.7, "prompts": "1"},
        "instructions_per_video": 4,
        "edit_types": dict.fromkeys(EDITS, 1.0),
        "frames": 3,
        "seed": 3,
    }


def test_a_server_that_is_gone_stops_the_job():
    with pytest.raises(Unavailable, match="gone"):
        builder(Writer(think_up_add=Unavailable("gone")), edit_types={"add": 1}).make([draft()])


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"edit_types": {"stile": 1}}, "no type 'stile'; legal are .*did you mean 'style'"),
        ({"edit_types": {"style": -1}}, "weight of style is -1"),
        ({"edit_types": {"style": 0}}, "one weight at least"),
        ({"frames": 0}, "at least 1"),
        ({"instructions_per_video": 0}, "at least 1"),
    ],
)
def test_illegal_settings_are_refused(settings, what):
    with pytest.raises(InputError, match=what):
        builder(Writer(), **settings)


def test_a_real_model_is_asked_and_what_it_cannot_say_is_rejected(shared):
    """The tiny model only knows scores, so a real picture gets no caption: a reason, and no crash."""
    from insvie_lightning.judges.local import LocalModel

    picture = np.asarray(Image.open(shared / "real" / "images" / "camping.jpg").convert("RGB")).transpose(2, 0, 1)
    step = builder(LocalModel(str(TINY_VLM), "cpu", 16))
    step.configure_model()
    (made,) = step.make([Draft("real", Clip(picture[None], 1.0))])
    assert isinstance(made, Rejected) and "gave a key frame no caption" in made.reason
    (frame,) = made.sample.lineage["BuildCaptions"]["frames"]
    assert len(frame["replies"]) == 2 and '"score"' in frame["replies"][0]
