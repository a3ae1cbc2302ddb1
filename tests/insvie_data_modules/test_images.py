"""Pictures as drafts of one frame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from insvie_data_modules.images import Images
from insvie_lightning.batch import Draft
from insvie_lightning.errors import InputError
from insvie_lightning.shards.drafts import encode_png


def pixels(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)


def test_a_picture_is_a_draft_of_one_frame(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(encode_png(pixels(1)))
    (tmp_path / "a.PNG").write_bytes(encode_png(pixels(0, 64, 96)))
    (tmp_path / "notes.txt").write_text("no picture")
    found = Images(tmp_path, size=(32, 48), fps=7.0).inputs()
    assert found.keys.to_pylist() == ["a", "b"]
    for index, key in enumerate("ab"):
        draft = found[index].sample
        assert isinstance(draft, Draft) and draft.key == key and draft.edited_frame is None
        assert draft.source.frames.shape == (1, 3, 32, 48)
        assert (draft.source.fps, draft.origin, draft.dataset) == (7.0, "static", tmp_path.name)
    np.testing.assert_array_equal(found[1].sample.source.frames[0], pixels(1))
    assert Images(tmp_path, size=None).inputs()[0].sample.source.size == (64, 96)


def test_a_photo_stands_upright_and_transparency_is_black(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    Image.fromarray(pixels(2).transpose(1, 2, 0)).save(tmp_path / "a.png", exif=exif)
    found = Images(tmp_path, size=None).inputs()[0].sample.source.frames[0]
    np.testing.assert_array_equal(found, np.rot90(pixels(2), -1, axes=(1, 2)))
    Image.new("RGBA", (4, 4), (200, 100, 50, 0)).save(tmp_path / "a.png")
    assert not Images(tmp_path, size=None).inputs()[0].sample.source.frames.any()


def test_bad_pictures_are_rejected_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(encode_png(pixels(0))[:200])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    found = Images(tmp_path).inputs()
    assert [found[index].bad for index in range(3)] == [
        "cut.png: no readable picture (broken, or another format)",
        "empty.png: empty file, but a picture is needed",
        "text.jpg: no readable picture (broken, or another format)",
    ]
    assert len(found[0].sample.source) == 0


def test_sixteen_bits_are_brought_to_eight_and_others_refused(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint32).reshape(8, 8) * 1000
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "b.tif")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "c.tif")
    found = Images(tmp_path, size=None).inputs()
    assert np.array_equal(found[0].sample.source.frames[0], np.stack([values // 256] * 3))
    assert [found[n].bad for n in (1, 2)] == [
        f"{name}: pixels of 32 bits, whose range is not known; 8 or 16 bits are read" for name in ("b.tif", "c.tif")
    ]


def test_no_size_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(pixels(0)))
    for size in ((0, 16), (16, -8)):
        assert "height and width are at least 1 px" in Images(tmp_path, size=size).inputs()[0].bad


def test_a_trap_of_a_picture_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "bomb.png").write_bytes(encode_png(pixels(0)))
    assert Images(tmp_path).inputs()[0].bad == "bomb.png: no readable picture (it is too large)"


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no image; legal endings are \.bmp, \.jpeg"):
        Images(tmp_path).inputs()


def test_real_pictures_become_drafts(shared: Path) -> None:
    found = Images(shared / "real/images").inputs()
    assert found.keys.to_pylist() == ["camping", "street"]
    assert all(found[index].sample.source.frames.shape == (1, 3, 576, 1024) for index in range(2))
