"""The static route: what becomes of an edited image, and of drafts that are none."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from insvie_lightning.batch import Clip, Draft, Triplet
from insvie_lightning.builders.static import BuildStatic
from insvie_lightning.camera import MOVES, camera_path, film
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.verify import verify


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
    assert triplet.lineage["BuildStatic"] == {"move": "zoom out", "interpolation": "bilinear"}


def test_the_defaults_are_the_papers() -> None:
    builder = BuildStatic(Path("unused"))
    [triplet] = made(builder, draft(size=(144, 256)))
    assert triplet.source.frames.shape == triplet.edited.frames.shape == (25, 3, 576, 1024)
    assert triplet.source.fps == 7 and builder.crop == 0.9


def test_all_moves_make_six_triplets_of_their_own_keys(tmp_path: Path) -> None:
    triplets = made(BuildStatic(tmp_path, 3, size=(32, 48), move="all"), draft())
    assert [triplet.key for triplet in triplets] == [f"a-{move.replace(' ', '_')}" for move in MOVES]
    assert [triplet.lineage["BuildStatic"]["move"] for triplet in triplets] == list(MOVES)
    assert len({triplet.source.frames.tobytes() for triplet in triplets}) == 6


def test_the_draw_depends_on_key_and_seed_alone_and_is_even(tmp_path: Path) -> None:
    drafts = [draft(f"image-{index}", size=(8, 8)) for index in range(300)]
    builder = BuildStatic(tmp_path, 2, size=(8, 8))
    moves = {triplet.key: triplet.lineage["BuildStatic"]["move"] for triplet in made(builder, *drafts)}
    counts = Counter(moves.values())
    assert set(counts) == set(MOVES) and all(25 <= count <= 75 for count in counts.values())  # 50 +- 4 deviations
    backwards = {triplet.key: triplet.lineage["BuildStatic"]["move"] for triplet in made(builder, *drafts[::-1])}
    assert backwards == moves
    other = made(BuildStatic(tmp_path, 2, size=(8, 8), seed=1), *drafts)
    assert {triplet.key: triplet.lineage["BuildStatic"]["move"] for triplet in other} != moves


def test_an_edited_image_of_another_size_is_brought_to_the_sources(tmp_path: Path) -> None:
    flat = np.full((3, 64, 64), 90, np.uint8)
    flat[:, :, 32:] = 200
    [triplet] = made(BuildStatic(tmp_path, 3, size=(48, 72), move="zoom in"), replace(draft(), edited_frame=flat))
    first = triplet.edited.frames[0]
    assert first.shape == (3, 48, 72) and (first[..., :34] == 90).all() and (first[..., 38:] == 200).all()


def test_what_is_no_edited_image_is_one_sentence(tmp_path: Path) -> None:
    builder = BuildStatic(tmp_path, 2, size=(32, 48))
    video = replace(draft("video"), source=Clip(np.zeros((4, 3, 48, 72), np.uint8), 10.0))
    with pytest.raises(InputError, match=r"^video: the source is a video of 4 frames, but an image is needed$"):
        builder.make([draft("good"), video])
    with pytest.raises(InputError, match=r"^bare: has no edited first frame; run the step that edits first frames"):
        builder.make([replace(draft("bare"), edited_frame=None)])


def test_the_recipe_makes_whole_shards_of_a_published_pair_set(tmp_path: Path) -> None:
    folder = tmp_path / "pairs/0000000"
    folder.mkdir(parents=True)
    (tmp_path / "pairs/seeds.json").write_text('[["0000000", ["7"]]]')
    (folder / "prompt.json").write_text('{"caption": "a road", "edit": "make it snow", "output": "a road in snow"}')
    for side, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"7_{side}.jpg")
    quiet = ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    data = ["--data=ImagePairs", f"--data.pairs={tmp_path / 'pairs'}", "--data.size=null", "--data.num_workers=0"]
    model = [f"--model.output={tmp_path / 'shards'}", "--model.size=[32, 48]", "--model.frames=3", "--model.move=all"]
    assert main(["predict", "-c", "build_static", *quiet, *data, *model]) == 0
    assert (verify(tmp_path / "shards").samples, verify(tmp_path / "shards").problems) == (6, ())
    rows = open_manifest(tmp_path / "shards").query().to_pylist()
    assert {row["key"].rpartition("-")[2] for row in rows} == {move.replace(" ", "_") for move in MOVES}
    assert all(row["origin"] == "static" and row["instruction"] == "make it snow" for row in rows)
    made = json.loads(rows[0]["lineage"])["BuildStatic"]
    assert made["settings"]["crop"] == 0.9 and made["move"] in MOVES


def test_illegal_settings_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"move is 'zom in'; legal are zoom in, .* draw, all; did you mean 'zoom in'"):
        BuildStatic(tmp_path, move="zom in")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="crop of the camera move is 0;"):
        BuildStatic(tmp_path, crop=0)
    with pytest.raises(InputError, match=r"size is \(0, 16\), fps 7.0; legal are 1 px or more"):
        BuildStatic(tmp_path, size=(0, 16))
    with pytest.raises(InputError, match=r"fps 0; legal are .* numbers above 0"):
        BuildStatic(tmp_path, fps=0)
