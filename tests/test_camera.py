"""Camera moves against ground truth: where crops lie, that steps are equal, and that the known path explains all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import grid_sample

from insvie_lightning.camera import MOVES, Move, View, camera_path, film, flow_px
from insvie_lightning.errors import InputError

FRAMES = 25
BORDER = 0.02
"""Share of a side that is left out where a warped frame may look over the border."""


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise of many scales, like a photograph's."""
    rng = np.random.default_rng(seed)
    sum_of_scales = np.zeros((height, width, 3))
    for side in (4, 8, 16, 32):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        sum_of_scales += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 4
    return sum_of_scales.round().astype(np.uint8).transpose(2, 0, 1)


def pixel_centres(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    return rows.double(), columns.double()


def warp(frame: np.ndarray, view: View, other: View) -> tuple[np.ndarray, np.ndarray]:
    """Frame `frame`, seen by `view`, as `other` would see it, 3 H W; and where that is known, H W."""
    size = frame.shape[1:]
    back = torch.from_numpy(flow_px(other, view, size))
    rows, columns = pixel_centres(size)
    places = torch.stack([(columns + back[0]) / size[1], (rows + back[1]) / size[0]], -1)
    image = torch.tensor(frame).double()[None]
    warped = grid_sample(image, 2 * places[None] - 1, padding_mode="border", align_corners=False)[0]
    return warped.round().numpy(), ((places > BORDER) & (places < 1 - BORDER)).all(-1).numpy()


def worst_psnr(clip: np.ndarray, path: tuple[View, ...]) -> float:
    """Of all frames, each against the first one warped by the known path, in dB."""
    values = []
    for frame, view in zip(clip[1:], path[1:], strict=True):
        warped, known = warp(clip[0], path[0], view)
        assert known.mean() > 0.7
        squared = np.square(warped - frame)[:, known].mean()
        values.append(10 * np.log10(255**2 / max(squared, 1e-9)))
    return min(values)


def measured_flow(first: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Flow between two frames 3 H W at the four corners, 2 x 4: the zoom and shift of least squared difference.

    Gauss-Newton on the pixels, which knows nothing of paths.
    """
    size = first.shape[1:]
    rows, columns = pixel_centres(size)
    x, y = columns - size[1] / 2, rows - size[0] / 2
    image, goal = torch.from_numpy(first).double()[None], torch.from_numpy(other).double()
    known = ((x / size[1]).abs() < 0.4) & ((y / size[0]).abs() < 0.4)
    zoom, right, down = 1.0, 0.0, 0.0

    def seen(zoom: float, right: float, down: float) -> torch.Tensor:
        places = torch.stack([2 * (zoom * x + right) / size[1], 2 * (zoom * y + down) / size[0]], -1)
        return grid_sample(image, places[None], padding_mode="border", align_corners=False)[0][:, known]

    for _ in range(12):
        now = seen(zoom, right, down)
        slopes = torch.stack(
            [
                (seen(zoom + 1e-4, right, down) - seen(zoom - 1e-4, right, down)).flatten() / 2e-4,
                (seen(zoom, right + 0.05, down) - seen(zoom, right - 0.05, down)).flatten() / 0.1,
                (seen(zoom, right, down + 0.05) - seen(zoom, right, down - 0.05)).flatten() / 0.1,
            ],
            1,
        )
        step = torch.linalg.lstsq(slopes, (goal[:, known] - now).flatten()[:, None]).solution.flatten().tolist()
        zoom, right, down = zoom + step[0], right + step[1], down + step[2]
    corners = np.array([(h * size[1] / 2, v * size[0] / 2) for h in (-1, 1) for v in (-1, 1)])
    # `other` at q shows `first` at zoom q + shift, so what is at p in `first` goes to (p - shift) / zoom.
    return ((corners - np.array([right, down])) / zoom - corners).T


@pytest.mark.parametrize(
    ("move", "first", "last"),
    [
        ("zoom in", View(1), View(0.9)),
        ("zoom out", View(0.9), View(1)),
        ("move left", View(0.9, 0.55), View(0.9, 0.45)),
        ("move right", View(0.9, 0.45), View(0.9, 0.55)),
        ("move down", View(0.9, 0.5, 0.45), View(0.9, 0.5, 0.55)),
        ("move up", View(0.9, 0.5, 0.55), View(0.9, 0.5, 0.45)),
    ],
)
def test_a_path_goes_in_equal_steps_between_the_papers_crops(move: Move, first: View, last: View) -> None:
    path = np.array([(view.side, view.x, view.y) for view in camera_path(move, FRAMES)])
    np.testing.assert_allclose(path[0], (first.side, first.x, first.y), atol=1e-12)
    np.testing.assert_allclose(path[-1], (last.side, last.x, last.y), atol=1e-12)
    steps = np.diff(path, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-12)
    assert len(path) == FRAMES and np.abs(steps[0]).max() == pytest.approx(0.1 / 24)


def test_frames_are_bilinear_samples_at_sub_pixel_places() -> None:
    size = (48, 72)
    image = picture(*size)
    for move in MOVES:
        path = camera_path(move, 7)
        clip = film(image, path, size, 7.0).frames
        for frame, view in zip(clip, path, strict=True):
            # A picture that is not made smaller is sampled as grid_sample does, but for two roundings to whole levels.
            rows, columns = pixel_centres(size)
            places = torch.stack([view.left + view.side * columns / 72, view.top + view.side * rows / 48], -1)
            pixels = torch.tensor(image).double()[None]
            sampled = grid_sample(pixels, 2 * places[None] - 1, padding_mode="border", align_corners=False)
            assert np.abs(sampled[0].numpy() - frame).max() <= 1.01


def test_the_whole_picture_is_itself_and_the_aspect_is_kept() -> None:
    image = picture(48, 72)
    np.testing.assert_array_equal(film(image, (View(1),), (48, 72), 7.0).frames[0], image)
    tall = np.zeros((3, 100, 72), np.uint8)
    tall[:, 26:74] = image
    np.testing.assert_array_equal(film(tall, (View(1),), (48, 72), 7.0).frames[0], image)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("shape", [(96, 144), (200, 300)], ids=["own size", "made smaller"])
def test_warping_the_first_frame_by_the_known_path_gives_every_frame(move: Move, shape: tuple[int, int]) -> None:
    path = camera_path(move, FRAMES)
    clip = film(picture(*shape), path, (96, 144), 7.0)
    assert worst_psnr(clip.frames, path) >= 35
    still = np.broadcast_to(clip.frames[:1], clip.frames.shape)
    assert worst_psnr(still, path) < 30  # a path that was not filmed does not explain the frames


@pytest.mark.parametrize("move", ["zoom in", "zoom out", "move left", "move down"])
def test_warping_real_pictures_by_the_known_path(move: Move, shared: Path) -> None:
    images = sorted((shared / "real/images").glob("*.jpg"))
    assert images
    path = camera_path(move, 5)
    for image in images:
        pixels = np.asarray(Image.open(image).convert("RGB")).transpose(2, 0, 1)
        assert worst_psnr(film(pixels, path, (480, 720), 7.0).frames, path) >= 35, image


@pytest.mark.parametrize("move", MOVES)
def test_source_and_edited_flow_are_the_same_and_the_paths(move: Move) -> None:
    path = camera_path(move, FRAMES)
    source = picture(96, 144)
    edited = (255 - source // 2)[[1, 2, 0]]
    before, after = (film(pixels, path, (96, 144), 7.0).frames for pixels in (source, edited))
    for index in (0, 11, 23):  # the flow from one frame to the next, as the end-point error is taken
        truth = flow_px(path[index], path[index + 1], (96, 144))
        corners = np.stack([truth[:, v, h] for h in (0, -1) for v in (0, -1)], 1)
        flows = [measured_flow(clip[index], clip[index + 1]) for clip in (before, after)]
        assert np.abs(flows[0]).max() > 0.2
        assert np.abs(flows[0] - flows[1]).max() < 0.05
        assert np.abs(flows[0] - corners).max() < 0.1


def test_flow_is_zero_between_equal_views_and_constant_under_a_shift() -> None:
    path = camera_path("move right", FRAMES)
    np.testing.assert_allclose(flow_px(path[3], path[3], (8, 12)), 0, atol=1e-12)
    shift = flow_px(path[0], path[-1], (8, 12))
    np.testing.assert_allclose(shift[0], -0.1 / 0.9 * 12)
    np.testing.assert_allclose(shift[1], 0, atol=1e-12)
    zoom = flow_px(View(1), View(0.5), (8, 12))
    np.testing.assert_allclose(zoom[0, 0], (np.arange(12) + 0.5) - 6)


def test_illegal_moves_are_one_sentence() -> None:
    with pytest.raises(InputError, match=r"'zoom inn'; legal are zoom in, .*; did you mean 'zoom in'\?"):
        camera_path("zoom inn", 25)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"crop of the camera move is 1.0; legal are shares above 0 and below 1"):
        camera_path("zoom in", 25, 1.0)
    with pytest.raises(InputError, match=r"1 frames is no move; legal are 2 or more"):
        camera_path("zoom in", 1)
