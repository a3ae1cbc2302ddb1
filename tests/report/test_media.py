import base64

import numpy as np

from insvie_lightning.batch import Clip
from insvie_lightning.report.media import PREVIEW_SIDE, preview
from insvie_lightning.video import encode_clip, read_clip


def noise(frames: int, height: int, width: int) -> Clip:
    return Clip(np.random.default_rng(0).integers(0, 256, (frames, 3, height, width), dtype=np.uint8), 8.0)


def shown(uri: str) -> Clip:
    return read_clip(base64.b64decode(uri.removeprefix("data:video/mp4;base64,")))


def test_large_clip_is_shrunk_and_small_one_kept() -> None:
    large = shown(preview(encode_clip(noise(2, 300, 700)), "large"))
    assert (len(large), large.size) == (2, (154, PREVIEW_SIDE))
    assert shown(preview(encode_clip(noise(9, 64, 96)), "small")).size == (64, 96)


def test_odd_size_becomes_even_so_that_browsers_play_it() -> None:
    assert shown(preview(encode_clip(noise(2, 33, 47)), "odd")).size == (32, 48)


def test_broken_clip_gives_a_sentence() -> None:
    assert "edited clip" in preview(b"no video", "edited clip")
