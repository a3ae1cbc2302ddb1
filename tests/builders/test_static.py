"""The static route: what becomes of an edited image, and of drafts that are none."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.batch import Clip, Draft, Rejected, Triplet
from insvie_lightning.builders.static import BuildStatic
from insvie_lightning.camera import MOVES, camera_path, film
from insvie_lightning.errors import InputError


def draft(key: str = "a", seed: int = 0, size: tuple[int, int] = (48, 72)) -> Draft:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 3, *size), np.uint8)
    lineage = {"first_frames": {"guidance": 4}}
    source = Clip(pixels[:1], 1.0)
    return Draft(
        key,
        source,
        pixels[1],
        "make it snow",
        "a road",
        "a road in snow",
        "real",
        "own",
        "weather",
        {"judge": 4},
        lineage,
    )


def made(builder: BuildStatic, *drafts: Draft) -> list[Triplet]:
    built = builder.make(drafts)
    assert all(isinstance(item, Triplet) for item in built)
    return [item for item in built if isinstance(item, Triplet)]


def test_a_triplet_is_both_images_filmed_along_one_path(tmp_path: Path) -> None:
    sample = draft()
    [triplet] = made(BuildStatic(tmp_path, 5, 7.0, (32, 40), 0.8, "zoom out"), sample)
    path = camera_path("zoom out", 5, 0.8)
    assert sample.edited_frame is not None
    for clip, picture in ((triplet.source, sample.source.frames[0]), (triplet.edited, sample.edited_frame)):
        assert clip.fps == 7.0
        np.testing.assert_array_equal(clip.frames, film(picture, path, (32, 40), 7.0).frames)
    assert (triplet.key, triplet.origin, triplet.instruction) == ("a", "static", "make it snow")
    assert (triplet.source_caption, triplet.edited_caption) == ("a road", "a road in snow")
    assert (triplet.dataset, triplet.edit_type, triplet.scores) == ("own", "weather", {"judge": 4})
    assert triplet.lineage["first_frames"] == {"guidance": 4}
    assert triplet.lineage["static"] == {
        "builder": "BuildStatic", "version": 1, "move": "zoom out", "crop": 0.8, "seed": 0,
        "frames": 5, "fps": 7.0, "size": [32, 40], "interpolation": "bilinear",
    }  # fmt: skip


def test_the_defaults_are_the_papers() -> None:
    [triplet] = made(BuildStatic(Path("unused")), draft(size=(144, 256)))
    assert triplet.source.frames.shape == triplet.edited.frames.shape == (25, 3, 576, 1024)
    assert triplet.source.fps == 7 and triplet.lineage["static"]["crop"] == 0.9


def test_all_moves_make_six_triplets_of_their_own_keys(tmp_path: Path) -> None:
    triplets = made(BuildStatic(tmp_path, 3, size=(32, 48), move="all"), draft())
    assert [triplet.key for triplet in triplets] == [f"a-{move.replace(' ', '-')}" for move in MOVES]
    assert [triplet.lineage["static"]["move"] for triplet in triplets] == list(MOVES)
    assert len({triplet.source.frames.tobytes() for triplet in triplets}) == 6


def test_the_draw_depends_on_key_and_seed_alone_and_is_even(tmp_path: Path) -> None:
    drafts = [draft(f"image-{index}", size=(8, 8)) for index in range(300)]
    builder = BuildStatic(tmp_path, 2, size=(8, 8))
    moves = {triplet.key: triplet.lineage["static"]["move"] for triplet in made(builder, *drafts)}
    counts = Counter(moves.values())
    assert set(counts) == set(MOVES) and all(25 <= count <= 75 for count in counts.values())  # 50 +- 4 deviations
    backwards = {triplet.key: triplet.lineage["static"]["move"] for triplet in made(builder, *drafts[::-1])}
    assert backwards == moves
    other = made(BuildStatic(tmp_path, 2, size=(8, 8), seed=1), *drafts)
    assert {triplet.key: triplet.lineage["static"]["move"] for triplet in other} != moves


def test_an_edited_image_of_another_size_is_brought_to_the_sources(tmp_path: Path) -> None:
    flat = np.full((3, 64, 64), 90, np.uint8)
    flat[:, :, 32:] = 200
    [triplet] = made(BuildStatic(tmp_path, 3, size=(48, 72), move="zoom in"), replace(draft(), edited_frame=flat))
    first = triplet.edited.frames[0]
    assert first.shape == (3, 48, 72) and (first[..., :34] == 90).all() and (first[..., 38:] == 200).all()


def test_what_is_no_edited_image_is_rejected_and_the_rest_goes_on(tmp_path: Path) -> None:
    video = replace(draft("video"), source=Clip(np.zeros((4, 3, 48, 72), np.uint8), 10.0))
    bare = replace(draft("bare"), edited_frame=None)
    built = BuildStatic(tmp_path, 2, size=(32, 48)).make([video, bare, draft("good")])
    assert [type(item) for item in built] == [Rejected, Rejected, Triplet]
    reasons = [(item.sample.key, item.reason) for item in built if isinstance(item, Rejected)]
    assert reasons == [
        ("video", "video: the source is a video of 4 frames, but an image is needed"),
        ("bare", "bare: has no edited first frame; run the step that edits first frames before this one"),
    ]


def test_illegal_settings_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"move is 'zom in'; legal are zoom in, .* draw, all; did you mean 'zoom in'"):
        BuildStatic(tmp_path, move="zom in")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="crop of the camera move is 0;"):
        BuildStatic(tmp_path, crop=0)
