"""Published pairs of pictures as drafts, in the layouts in which they were released."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insvie_data_modules.image_pairs import ImagePairs
from insvie_lightning.batch import Draft
from insvie_lightning.errors import InputError
from insvie_lightning.shards.drafts import encode_png


def pixels(seed: int, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 32, width), np.uint8)


@pytest.fixture
def instructpix2pix(tmp_path: Path) -> Path:
    (tmp_path / "shard-00" / "0000001").mkdir(parents=True)
    for seed in (11, 12):
        for side in (0, 1):
            # The ending is that of the release; what counts is what is in the file.
            (tmp_path / f"shard-00/0000001/{seed}_{side}.jpg").write_bytes(encode_png(pixels(seed + side)))
    prompt = {"caption": "a barn", "edit": "make it snow", "output": "a barn in the snow", "url": "x"}
    (tmp_path / "shard-00/0000001/prompt.json").write_text(json.dumps(prompt))
    (tmp_path / "seeds.json").write_text(json.dumps([["shard-00/0000001", [11, "12"]], ["../../etc", ["1"]]]))
    return tmp_path


def test_instructpix2pix_gives_pairs_with_instruction_and_captions(instructpix2pix: Path) -> None:
    found = ImagePairs(instructpix2pix, size=None).inputs()
    assert found.keys.to_pylist()[:2] == [f"instructp2p_shard-00_0000001_{seed}" for seed in (11, 12)]
    draft = found[1].sample
    assert isinstance(draft, Draft) and draft.edited_frame is not None
    np.testing.assert_array_equal(draft.source.frames, pixels(12)[None])
    np.testing.assert_array_equal(draft.edited_frame, pixels(13))
    assert (draft.instruction, draft.source_caption, draft.edited_caption) == (
        "make it snow",
        "a barn",
        "a barn in the snow",
    )
    assert (draft.origin, draft.dataset, draft.source.fps) == ("pair", "instructp2p", 7.0)
    assert found[2].bad == "the list names '../../etc/prompt.json', which is not below its folder"


def test_magicbrush_gives_pairs_with_instruction_and_captions(tmp_path: Path) -> None:
    turns = [
        {"input": "5-input.png", "mask": "5-mask1.png", "output": "5-output1.png", "instruction": "add a cat"},
        {"input": "5-output1.png", "mask": "5-mask2.png", "output": "5-output2.png", "instruction": "remove it"},
        {"input": "6-input.png", "output": "6-output1.png", "instruction": ""},
    ]
    (tmp_path / "images/5").mkdir(parents=True)
    for name, seed, width in (("input", 1, 48), ("output1", 2, 48), ("output2", 3, 40)):
        (tmp_path / f"images/5/5-{name}.png").write_bytes(encode_png(pixels(seed, width)))
    (tmp_path / "edit_turns.json").write_text(json.dumps(turns))
    (tmp_path / "global_descriptions.json").write_text(json.dumps({"5": {"5-output1.png": "a room with a cat"}}))
    found = ImagePairs(tmp_path, size=(16, 24)).inputs()
    assert found.keys.to_pylist() == ["magicbrush_5-output1", "magicbrush_5-output2", "magicbrush_6-output1"]
    draft = found[0].sample
    assert isinstance(draft, Draft) and draft.edited_frame is not None
    assert draft.source.frames.shape == (1, 3, 16, 24) and draft.edited_frame.shape == (3, 16, 24)
    assert (draft.instruction, draft.source_caption, draft.edited_caption) == ("add a cat", "", "a room with a cat")
    assert found[1].bad == "the pictures differ in size: 32x48 and 32x40"
    assert found[2].bad == "the pair has no instruction"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("nothing.json", [], "is no folder of image pairs: it has neither seeds.json nor edit_turns.json"),
        ("seeds.json", {}, "seeds.json holds a dict, but a JSON list is needed"),
        ("seeds.json", [["a"]], "an entry is no pair of a folder and its seeds"),
        ("edit_turns.json", ["a"], "an entry has no input and output: a"),
        ("edit_turns.json", [], "lists no image pair"),
    ],
)
def test_a_folder_of_another_layout_is_one_sentence(name: str, content: Any, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=sentence):
        ImagePairs(tmp_path).inputs()
