"""There and back between a clip's size and the network's."""

import numpy as np
import pytest

from insvie_lightning.editors.framing import EditResize, aspect_size, frame_clip

SIZES = [(480, 720), (720, 480), (1, 1), (51, 77), (576, 1024), (16, 2000), (2000, 16)]


def smooth(height: int, width: int) -> np.ndarray:
    pixels = np.zeros((2, 3, height, width), np.uint8)
    pixels[:, 0] = np.linspace(0, 255, width).astype(np.uint8)
    pixels[:, 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return pixels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", ["pad", "aspect", "stretch"])
def test_any_size_comes_back(size: tuple[int, int], resize: EditResize) -> None:
    framing, pixels = frame_clip(size, (64, 96), resize), smooth(*size)
    fitted = framing.fit(pixels)
    assert fitted.shape[2:] == framing.network and not fitted.shape[2] % 16 and not fitted.shape[3] % 16
    restored = framing.restore(fitted)
    assert restored.shape == pixels.shape and restored.dtype == np.uint8
    if min(size) > 16:
        assert np.abs(restored.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("resize", ["pad", "aspect", "stretch", "cover"])
def test_a_clip_of_the_network_s_size_is_not_touched(resize: EditResize) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), np.uint8)
    framing = frame_clip((64, 96), (64, 96), resize)
    assert np.array_equal(framing.fit(pixels), pixels) and np.array_equal(framing.restore(pixels), pixels)


def test_pad_keeps_the_aspect_and_repeats_the_border() -> None:
    framing = frame_clip((128, 64), (64, 96), "pad")
    assert framing.inner == (64, 32)
    fitted = framing.fit(smooth(128, 64))
    assert (fitted[:, :, :, :32] == fitted[:, :, :, 32:33]).all() and (
        fitted[:, :, :, 64:] == fitted[:, :, :, 63:64]
    ).all()
    assert (np.diff(fitted[0, 0, 0, 32:64].astype(int)) > 0).all()
    painted = np.zeros_like(fitted)
    painted[:, :, :, 32:64] = 200
    assert (framing.restore(painted) == 200).all()  # nothing of the padding comes back


def test_stretch_fills_the_network() -> None:
    fitted = frame_clip((128, 64), (64, 96), "stretch").fit(smooth(128, 64))
    assert (np.diff(fitted[0, 0, 0].astype(int)) >= 0).all() and fitted[0, 0].min() < 5 and fitted[0, 0].max() > 250


def test_cover_cuts_the_middle_and_stays() -> None:
    framing = frame_clip((64, 192), (64, 96), "cover")
    fitted = framing.fit(smooth(64, 192))
    assert fitted[0, 0].min() > 50 and fitted[0, 0].max() < 205
    assert framing.restore(fitted) is fitted


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1080, 1920), (448, 784)), ((1920, 1080), (784, 448)), ((480, 720), (480, 720)), ((300, 300), (592, 592)),
     ((10, 8000), (208, 1664))],
)  # fmt: skip
def test_aspect_takes_as_many_pixels_of_the_clip_s_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert aspect_size(size, (480, 720)) == expected
    assert abs(expected[0] * expected[1] / (480 * 720) - 1) < 0.04
