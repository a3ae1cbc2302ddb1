"""Scenes of the toy world, and how they are drawn.

A scene is a few coloured shapes on a plain background, seen by a camera, shown in a style. It draws itself at any size
and length; every edit is a scene-to-scene function (`toy/edits.py`), so the exact edited video is always known.
Positions are in pixels of a 64 x 96 frame; time runs from 0 (first frame) to 1 (last frame).
"""

from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 145, 30),
    "yellow": (235, 215, 50),
    "green": (40, 175, 60),
    "cyan": (50, 205, 215),
    "blue": (50, 80, 225),
    "purple": (160, 60, 200),
    "white": (240, 240, 240),
}
BACKGROUNDS = {
    "night": (30, 30, 36),
    "forest": (45, 70, 50),
    "slate": (60, 72, 86),
    "plum": (76, 50, 76),
    "stone": (112, 110, 115),
}
SHAPES = ("circle", "square", "triangle")
STYLES = ("grayscale", "sepia", "negative")
CAMERAS = ("zoom in", "zoom out", "pan left", "pan right", "pan up", "pan down")
HEIGHT, WIDTH, FRAMES = 64, 96, 9
CAMERA_CROP = 0.8
"""Side of the smallest crop that a camera move shows, as a share of the frame."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One object: kind, colour, radius in px, and the (x, y) of its centre in px at times 0 and 1."""

    kind: str
    colour: str
    radius: float
    start: tuple[float, float]
    end: tuple[float, float]

    @property
    def name(self) -> str:
        """What a sentence calls it, e.g. `red circle`."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Shapes painted in order on a background; `camera` and `style` are empty or one of CAMERAS, STYLES."""

    background: str
    shapes: tuple[Shape, ...]
    camera: str = ""
    style: str = ""


def caption(scene: Scene) -> str:
    """Describe a scene in at most 16 words."""
    words = " and ".join(shape.name for shape in scene.shapes) or "nothing"
    return ", ".join(part for part in (f"{words} on {scene.background}", scene.camera, scene.style) if part)


def render(scene: Scene, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Draw a scene as uint8 RGB of shape F 3 H W."""
    x, y, pixel = _view(scene.camera, frames, height, width)
    canvas = np.empty((frames, 3, height, width), np.float32)
    canvas[:] = np.asarray(BACKGROUNDS[scene.background], np.float32)[:, None, None]
    for shape in scene.shapes:
        cover = _cover(shape, x, y, pixel)[:, None]
        canvas += cover * (np.asarray(COLOURS[shape.colour], np.float32)[:, None, None] - canvas)
    return np.rint(_styled(canvas, scene.style)).clip(0, 255).astype(np.uint8)


def visible_mask(
    scene: Scene, index: int, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray:
    """Where shape number `index` is seen (not covered by a later one): bool, F H W."""
    x, y, pixel = _view(scene.camera, frames, height, width)
    mask = _cover(scene.shapes[index], x, y, pixel) > 0.99
    for above in scene.shapes[index + 1 :]:
        mask &= _cover(above, x, y, pixel) < 0.01
    return mask


def _view(camera: str, frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World x, y (F H W, broadcastable) of every pixel centre, and the side of a pixel in the world (F 1 1)."""
    time = np.linspace(0, 1, frames, dtype=np.float32)[:, None, None]
    margin = 1 - CAMERA_CROP
    still = np.full_like(time, CAMERA_CROP if camera else 1.0)
    scale = {"zoom in": 1 - margin * time, "zoom out": CAMERA_CROP + margin * time}.get(camera, still)
    centre = np.full_like(time, 0.5)
    slide = margin * (time - 0.5)
    centre_x = centre + {"pan right": slide, "pan left": -slide}.get(camera, 0 * slide)
    centre_y = centre + {"pan down": slide, "pan up": -slide}.get(camera, 0 * slide)
    u = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, None, :] - 0.5
    v = ((np.arange(height, dtype=np.float32) + 0.5) / height)[None, :, None] - 0.5
    return (centre_x + scale * u) * WIDTH, (centre_y + scale * v) * HEIGHT, scale * (WIDTH / width)


def _cover(shape: Shape, x: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Share of every pixel that the shape covers (F H W), from the signed distance to its edge."""
    time = np.linspace(0, 1, pixel.shape[0], dtype=np.float32)[:, None, None]
    dx = np.abs(x - (shape.start[0] + (shape.end[0] - shape.start[0]) * time))
    dy = y - (shape.start[1] + (shape.end[1] - shape.start[1]) * time)
    if shape.kind == "circle":
        distance = np.sqrt(dx * dx + dy * dy) - shape.radius
    elif shape.kind == "square":
        distance = np.maximum(dx, np.abs(dy)) - 0.9 * shape.radius
    else:
        distance = np.maximum(dy - shape.radius, (2 * dx - dy - shape.radius) / np.sqrt(np.float32(5)))
    return np.clip(0.5 - distance / pixel, 0, 1)


def _styled(canvas: np.ndarray, style: str) -> np.ndarray:
    if style == "negative":
        return 255 - canvas
    if style in ("grayscale", "sepia"):
        luma = np.tensordot(np.asarray([0.299, 0.587, 0.114], np.float32), canvas, axes=([0], [1]))[:, None]
        tint = (1, 1, 1) if style == "grayscale" else (1.07, 0.74, 0.43)  # the sepia row sums, scaled below saturation
        return luma * np.asarray(tint, np.float32)[:, None, None]
    return canvas
