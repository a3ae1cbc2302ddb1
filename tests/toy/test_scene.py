"""Drawing: sizes, shapes, occlusion, styles and cameras of a scene."""

from dataclasses import replace

import numpy as np
import pytest

from insvie_lightning.toy.scene import BACKGROUNDS, COLOURS, SHAPES, Scene, Shape, caption, render, visible_mask

STILL = Shape("circle", "red", 10.0, (48.0, 32.0), (48.0, 32.0))
SCENE = Scene("night", (STILL,))


def centre(mask: np.ndarray) -> tuple[float, float]:
    """Mean x and y of a mask in pixels."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean() + 0.5), float(rows.mean() + 0.5)


def test_a_scene_draws_itself_at_any_size() -> None:
    assert render(SCENE).shape == (9, 3, 64, 96)
    large = render(SCENE, 5, 128, 192)
    assert (large.shape, large.dtype) == ((5, 3, 128, 192), np.uint8)
    blocks = large.reshape(5, 3, 64, 2, 96, 2).mean((3, 5))
    assert np.abs(blocks - render(SCENE, 5)).mean() < 0.5


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_shapes_have_their_colour_inside_and_the_background_outside(kind: str, colour: str) -> None:
    pixels = render(replace(SCENE, shapes=(replace(STILL, kind=kind, colour=colour),)), frames=1)[0]
    assert tuple(pixels[:, 32, 48]) == COLOURS[colour]
    assert tuple(pixels[:, 2, 2]) == BACKGROUNDS["night"]


@pytest.mark.parametrize(("kind", "area"), [("circle", np.pi * 100), ("square", 18.0**2), ("triangle", 200.0)])
def test_the_mask_covers_the_area_of_the_shape(kind: str, area: float) -> None:
    """At 8 times the size the soft edge hardly counts."""
    scene = replace(SCENE, shapes=(replace(STILL, kind=kind),))
    assert visible_mask(scene, 0, 1, 512, 768).sum() / 64 == pytest.approx(area, rel=0.05)


def test_shapes_move_evenly_from_start_to_end() -> None:
    scene = replace(SCENE, shapes=(replace(STILL, start=(20.0, 16.0), end=(76.0, 48.0)),))
    mask = visible_mask(scene, 0)
    for frame in range(9):
        assert centre(mask[frame]) == pytest.approx((20 + 7 * frame, 16 + 4 * frame), abs=0.5)


def test_later_shapes_cover_earlier_ones() -> None:
    above = replace(STILL, kind="square", colour="blue", radius=5.0)
    scene = replace(SCENE, shapes=(STILL, above))
    assert tuple(render(scene, 1)[0, :, 32, 48]) == COLOURS["blue"]
    below, top = visible_mask(scene, 0), visible_mask(scene, 1)
    assert not below[:, 32, 48].any() and top[:, 32, 48].all()
    assert not (below & top).any()


def test_a_colour_is_everywhere_in_its_mask() -> None:
    inside = render(SCENE).transpose(0, 2, 3, 1)[visible_mask(SCENE, 0)]
    assert np.abs(inside.astype(int) - COLOURS["red"]).max() <= 2  # cover is above 0.99


@pytest.mark.parametrize(
    ("camera", "shift", "growth"),
    [
        ("", (0, 0), 1.0),
        ("zoom in", (0, 0), 1 / 0.64),
        ("zoom out", (0, 0), 0.64),
        ("pan right", (-24, 0), 1.0),
        ("pan left", (24, 0), 1.0),
        ("pan down", (0, -16), 1.0),
        ("pan up", (0, 16), 1.0),
    ],
)
def test_cameras_move_what_is_seen(camera: str, shift: tuple[int, int], growth: float) -> None:
    """A pan crosses 0.2 of the world at a zoom of 1 / 0.8; a zoom changes the side by 0.8."""
    mask = visible_mask(replace(SCENE, camera=camera), 0, 9, 256, 384)
    (x0, y0), (x1, y1) = centre(mask[0]), centre(mask[-1])
    assert ((x1 - x0) / 4, (y1 - y0) / 4) == pytest.approx(shift, abs=0.3)
    assert mask[-1].sum() / mask[0].sum() == pytest.approx(growth, rel=0.03)


def test_styles_change_the_colours_alone() -> None:
    plain = render(SCENE).astype(int)
    assert np.array_equal(render(replace(SCENE, style="negative")), 255 - plain)
    grey = render(replace(SCENE, style="grayscale")).astype(int)
    assert (grey == grey[:, :1]).all()
    assert np.abs(grey[:, 0] - (0.299 * plain[:, 0] + 0.587 * plain[:, 1] + 0.114 * plain[:, 2])).max() <= 1
    sepia = render(replace(SCENE, style="sepia")).astype(int)
    assert (
        (sepia[:, 0] >= sepia[:, 1]).all() and (sepia[:, 1] >= sepia[:, 2]).all() and (sepia[:, 0] > grey[:, 0]).any()
    )


def test_captions_name_everything() -> None:
    scene = Scene("plum", (STILL, replace(STILL, kind="square", colour="blue")), "zoom in", "sepia")
    assert caption(scene) == "red circle and blue square on plum, zoom in, sepia"
    assert caption(Scene("stone", ())) == "nothing on stone"
