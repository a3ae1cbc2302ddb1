"""Clips by a video editor: whose noise and guidance they are made with, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from insvie_lightning.batch import Clip, Draft, Rejected, Triplet
from insvie_lightning.builders.drafts import seed_of
from insvie_lightning.builders.edits import BuildEdits
from insvie_lightning.errors import InputError


class Painter:
    """Paints what it is told, to be read off the result: the guidance scale, and the seed's last digit."""

    def __init__(self, name: str = "painter") -> None:
        self.identity = {"model": name}
        self.seeds: list[int] = []

    def load(self, device: torch.device) -> None:
        self.loaded = True

    def edit_clip(self, clip: Clip, instruction: str, guidance_scale: float, seed: int) -> np.ndarray:
        self.seeds.append(seed)
        return np.full_like(clip.frames, round(10 * guidance_scale))


def draft(editor: str = "", instruction: str = "make it red") -> Draft:
    clip = Clip(np.zeros((3, 3, 8, 12), np.uint8), 8.0)
    attempts = [{"seed": 5, "answer": -1}, {"seed": 7, "answer": 1}]
    screened = {"settings": {"editor": {"model": editor}}, "attempts": attempts}
    lineage: dict[str, Any] = {"RawVideos": {}, **({"BuildFirstFrames": screened} if editor else {})}
    scores = {"edit_guidance_scale": 4.0} if editor else {}
    return Draft("a-0", clip, clip.frames[0], instruction, "red", "blue", scores=scores, lineage=lineage)


def test_the_clip_is_edited_as_the_frame_that_the_judge_picked() -> None:
    painter = Painter()
    (made,) = BuildEdits(Path("x"), painter).make([draft("painter")])
    assert isinstance(made, Triplet) and painter.seeds == [7] and (made.edited.frames == 40).all()
    assert made.lineage["BuildEdits"] == {"seed": 7, "guidance_scale": 4.0} and "RawVideos" in made.lineage
    assert (made.key, made.instruction, made.source_caption, made.edited_caption) == (
        "a-0",
        "make it red",
        "red",
        "blue",
    )
    assert made.edited.fps == 8.0 and made.scores == {"edit_guidance_scale": 4.0}


@pytest.mark.parametrize("editor", ["", "another"])
def test_frames_of_another_editor_or_of_none_say_nothing_about_noise_and_guidance(editor: str) -> None:
    painter = Painter()
    (made,) = BuildEdits(Path("x"), painter, guidance_scale=2.0, seed=3).make([draft(editor)])
    assert painter.seeds == [seed_of(3, "a-0")] and (made.edited.frames == 20).all()


def test_the_source_is_passed_on_as_it_is_so_that_it_is_not_encoded_again() -> None:
    source = draft()
    (made,) = BuildEdits(Path("x"), Painter()).make([source])
    assert made.source is source.source


def test_the_job_is_who_edits() -> None:
    settings = [BuildEdits(Path("x"), Painter(name)).settings for name in ("a", "b")]
    assert [one["editor"] for one in settings] == [{"model": "a"}, {"model": "b"}] and "output" not in settings[0]


def test_no_instruction_and_no_guidance_are_refused() -> None:
    (made,) = BuildEdits(Path("x"), Painter()).make([draft(instruction="")])
    assert isinstance(made, Rejected) and made.reason == "it has no instruction to edit it by"
    with pytest.raises(InputError, match=r"guidance_scale is 0\.5; legal are finite numbers from 1"):
        BuildEdits(Path("x"), Painter(), guidance_scale=0.5)
