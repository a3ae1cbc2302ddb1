"""Examples of the toy world: reproducible, disjoint, in the right shares, and edited exactly as they say."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.toy.edits import (
    EDIT_SHARES,
    EDIT_TYPES,
    FPS,
    MIN_VISIBLE,
    ORIGIN_SHARES,
    PLACES,
    Example,
    example,
    example_of_key,
    indices,
    to_triplet,
    wrong_instruction,
)
from insvie_lightning.toy.scene import CAMERAS, COLOURS, STYLES, Scene, caption, render, visible_mask

DRAWS = 2000


@pytest.fixture(scope="module")
def drawn() -> list[Example]:
    return [example("train", index) for index in range(DRAWS)]


def of(drawn: list[Example], *edit_types: str) -> list[Example]:
    return [sample for sample in drawn if sample.edit_type in edit_types]


def touched(scene: Scene, target: int) -> np.ndarray:
    """Every pixel that a shape may change, F H W: those that it covers at all, and their neighbours."""
    alone = replace(scene, shapes=(replace(scene.shapes[target], colour="white"),), style="")
    covered = (render(alone) != render(replace(alone, shapes=()))).any(1)
    padded = np.pad(covered, ((0, 0), (1, 1), (1, 1)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).any((3, 4))


def test_an_example_depends_on_its_split_and_number_only(drawn: list[Example]) -> None:
    assert [example("train", index) for index in reversed(range(100))] == drawn[99::-1]
    assert example_of_key(drawn[12].key) == drawn[12]
    assert drawn[12].key == "toy-train-0000012"
    first, second = to_triplet(drawn[3]), to_triplet(drawn[3])
    assert np.array_equal(first.source.frames, second.source.frames)
    assert np.array_equal(first.edited.frames, second.edited.frames)


def test_splits_share_no_scene(drawn: list[Example]) -> None:
    splits = [{sample.source for sample in drawn}]
    splits += [{example(split, index).source for index in range(500)} for split in ("val", "test")]
    assert [len(scenes) for scenes in splits] == [DRAWS, 500, 500]
    assert len(set.union(*splits)) == DRAWS + 1000


def test_edit_types_and_origins_come_in_their_shares(drawn: list[Example]) -> None:
    types = Counter(sample.edit_type for sample in drawn)
    origins = Counter(str(sample.origin) for sample in drawn)
    assert types.keys() == set(EDIT_TYPES) and origins.keys() == ORIGIN_SHARES.keys()
    expected = {**dict(zip(EDIT_TYPES, EDIT_SHARES, strict=True)), **ORIGIN_SHARES}
    for name, count in {**types, **origins}.items():
        share = expected[name]
        assert abs(count - DRAWS * share) < 3 * math.sqrt(DRAWS * share * (1 - share)), name


def test_the_sentence_names_the_target_and_what_becomes_of_it(drawn: list[Example]) -> None:
    for sample in of(drawn, "recolour", "remove", "replace"):
        assert sample.target is not None
        shape = sample.source.shapes[sample.target]
        assert f"the {shape.name}" in sample.instruction
        assert [other.name for other in sample.source.shapes].count(shape.name) == 1, sample.key
        kept = sample.source.shapes[: sample.target] + sample.source.shapes[sample.target + 1 :]
        if sample.edit_type == "remove":
            assert sample.edited == replace(sample.source, shapes=kept)
            continue
        changed = sample.edited.shapes[sample.target]
        assert sample.instruction.endswith(changed.colour if sample.edit_type == "recolour" else changed.name)
        assert (changed.kind == shape.kind) == (sample.edit_type == "recolour")
        assert changed.name not in {other.name for other in sample.source.shapes}
        alike = replace(changed, kind=shape.kind, colour=shape.colour)
        assert replace(sample.edited, shapes=(*kept[: sample.target], alike, *kept[sample.target :])) == sample.source


def test_edits_of_the_whole_scene_do_what_they_say(drawn: list[Example]) -> None:
    for sample in of(drawn, "add", "background", "style", "camera"):
        source, edited, text = sample.source, sample.edited, sample.instruction
        assert sample.target is None
        if sample.edit_type == "add":
            added = edited.shapes[-1]
            assert edited == replace(source, shapes=(*source.shapes, added))
            assert added.name not in {shape.name for shape in source.shapes}
            place = text.removeprefix(f"add {'an' if added.colour == 'orange' else 'a'} {added.name} at the ")
            assert added.start == added.end == PLACES[place]
        elif sample.edit_type == "background":
            assert edited == replace(source, background=edited.background) != source
            assert text == f"change the background to {edited.background}"
        elif sample.edit_type == "style":
            assert edited == replace(source, style=edited.style) and text == f"make the video {edited.style}"
            assert edited.style in STYLES and not source.style
        else:
            assert edited == replace(source, camera=edited.camera) and text == f"{edited.camera} slowly"
            assert edited.camera in CAMERAS and not source.camera


def test_the_target_is_visible(drawn: list[Example]) -> None:
    for sample in of(drawn, "recolour", "remove", "replace")[:300]:
        assert sample.target is not None
        alone = replace(sample.source, shapes=(sample.source.shapes[sample.target],))
        seen = visible_mask(sample.source, sample.target, 3).sum()
        assert seen >= MIN_VISIBLE * visible_mask(alone, 0, 3).sum() > 0, sample.key


@pytest.mark.parametrize("origin", ["real", "static"])
def test_nothing_changes_outside_the_target_and_all_of_it_inside(drawn: list[Example], origin: str) -> None:
    """For static scenes, too: source and edited clip are seen by the same camera."""
    chosen = [sample for sample in of(drawn, "recolour", "remove") if sample.origin == origin][:60]
    assert {sample.edit_type for sample in chosen} == {"recolour", "remove"}
    for sample in chosen:
        assert sample.target is not None
        source, edited = render(sample.source).astype(int), render(sample.edited).astype(int)
        differs = (source != edited).any(1)
        assert not (differs & ~touched(sample.source, sample.target)).any(), sample.key
        mask = visible_mask(sample.source, sample.target)
        assert differs[mask].all(), sample.key
        if sample.edit_type == "recolour":
            colour = COLOURS[sample.edited.shapes[sample.target].colour]
            assert np.abs(edited.transpose(0, 2, 3, 1)[mask] - colour).max() <= 2, sample.key


def test_origins_move_as_their_names_say(drawn: list[Example]) -> None:
    for sample in drawn:
        travels = {tuple(np.round(np.subtract(shape.end, shape.start), 6)) for shape in sample.source.shapes}
        if sample.origin == "static":
            assert travels == {(0, 0)}
        assert bool(sample.source.camera) == (sample.origin == "static" and sample.edit_type != "camera")
        assert sample.edit_type == "camera" or sample.edited.camera == sample.source.camera
        assert all(np.hypot(*travel) <= 40.001 for travel in travels)
    assert any(np.hypot(*np.subtract(s.source.shapes[0].end, s.source.shapes[0].start)) > 20 for s in drawn)


def test_a_camera_moves_both_clips_of_a_static_scene_alike(drawn: list[Example]) -> None:
    """The move is a crop of the still picture: each frame shows the world where the still scene has it."""
    chosen = [sample for sample in of(drawn, "recolour") if sample.source.camera.startswith("pan")][:10]
    assert len(chosen) == 10
    for sample in chosen:
        for scene in (sample.source, sample.edited):
            still = render(replace(scene, camera=""), 1, 320, 480)[0]
            moved = render(scene, 9, 256, 384)  # a crop of 0.8, hence the same pixels a unit of the world
            for frame in range(9):
                along = 12 * frame  # 0.2 of 480 across eight steps; 0.2 of 320 down
                down = 8 * frame
                top, left = {
                    "pan right": (32, along), "pan left": (32, 96 - along),
                    "pan down": (down, 48), "pan up": (64 - down, 48),
                }[scene.camera]  # fmt: skip
                crop = still[:, top : top + 256, left : left + 384].astype(int)
                assert np.abs(crop - moved[frame]).max() <= 1, f"{sample.key} {scene.camera} {frame}"


def test_triplets_say_what_they_are(drawn: list[Example]) -> None:
    triplet = to_triplet(drawn[0], frames=5, height=32, width=48)
    assert triplet.source.frames.shape == triplet.edited.frames.shape == (5, 3, 32, 48)
    assert (triplet.key, triplet.instruction) == (drawn[0].key, drawn[0].instruction)
    assert (triplet.source_caption, triplet.edited_caption) == (caption(drawn[0].source), caption(drawn[0].edited))
    assert (triplet.origin, triplet.edit_type) == (drawn[0].origin, drawn[0].edit_type)
    assert (triplet.source.fps, triplet.dataset, dict(triplet.scores)) == (FPS, "toy", {"judge": 5.0, "epe_px": 0.0})


def test_indices_select_types_and_origins(drawn: list[Example]) -> None:
    assert indices("train", 5) == [0, 1, 2, 3, 4]
    chosen = indices("train", 20, ("recolour", "remove"), ("real",))
    expected = [i for i, s in enumerate(drawn) if s.edit_type in ("recolour", "remove") and s.origin == "real"]
    assert chosen == expected[:20]


def test_a_wrong_instruction_asks_for_something_else(drawn: list[Example]) -> None:
    for sample in drawn:
        wrong = wrong_instruction(sample)
        if sample.target is None:
            continue
        shape = sample.source.shapes[sample.target]
        colour = wrong.removeprefix(f"make the {shape.name} ")
        assert colour in COLOURS and colour != shape.colour
        assert sample.edit_type == "remove" or colour != sample.edited.shapes[sample.target].colour


def test_what_is_not_of_the_toy_world_is_named() -> None:
    with pytest.raises(InputError, match=r"edit type 'recolor' is not of the toy world: legal are recolour, remove"):
        indices("train", 1, ("recolor",))
    with pytest.raises(InputError, match=r"origin 'still' .* legal are real, pair, static"):
        indices("train", 1, (), ("still",))
    for key in ("toy-train-12", "toy-dev-0000012", "davis-0000012"):
        with pytest.raises(InputError, match=f"sample key '{key}' is not of the toy world"):
            example_of_key(key)
