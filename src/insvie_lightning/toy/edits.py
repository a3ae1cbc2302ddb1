"""Examples of the toy world: a scene, an edit of it, and the sentence that asks for the edit.

`example(split, index)` is a pure function of its arguments: anybody who knows a sample's key can draw the exact
source, the exact edited video and the mask of the edited object again. Splits never share a seed.
"""

import itertools
import re
from dataclasses import dataclass, replace

import numpy as np

from insvie_lightning.batch import Clip, Origin, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.toy.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    FRAMES,
    HEIGHT,
    SHAPES,
    STYLES,
    WIDTH,
    Scene,
    Shape,
    caption,
    render,
    visible_mask,
)

SPLITS = {"train": 0, "val": 1, "test": 2}
EDIT_TYPES = ("recolour", "remove", "replace", "add", "background", "style", "camera")
EDIT_SHARES = (0.35, 0.30, 0.08, 0.08, 0.07, 0.07, 0.05)
ORIGIN_SHARES = {"real": 0.45, "pair": 0.11, "static": 0.44}
"""Composition of InsViE-1M: 450k real, 110k image pairs, 450k static (paper, section 3)."""
PLACES = {"left": (16, 32), "right": (80, 32), "top": (48, 13), "bottom": (48, 51), "centre": (48, 32)}
FPS = 8.0
MAX_TRAVEL = 40.0
"""Longest way of a shape over a clip in px; at 9 frames up to 5 px a frame, half of that on average."""
MIN_VISIBLE = 0.35
"""Smallest share of an object that must be seen, averaged over the frames, for a sentence to be about it."""


@dataclass(frozen=True, slots=True)
class Example:
    """A scene before and after an edit; `target` is the number of the edited shape in `source`, or None."""

    key: str
    source: Scene
    edited: Scene
    instruction: str
    edit_type: str
    origin: Origin
    target: int | None


def example(split: str, index: int) -> Example:
    """Draw example number `index` (any non-negative number) of a split (`train`, `val` or `test`)."""
    rng = np.random.default_rng([SPLITS[split], index])
    edit_type = str(rng.choice(EDIT_TYPES, p=EDIT_SHARES))
    origin: Origin = str(rng.choice(list(ORIGIN_SHARES), p=list(ORIGIN_SHARES.values())))  # type: ignore[assignment]
    while True:
        scene = _scene(rng, origin, edit_type)
        target = int(rng.integers(len(scene.shapes))) if edit_type in ("recolour", "remove", "replace") else None
        if target is None or _visible_share(scene, target) >= MIN_VISIBLE:
            break
    edited, instruction = _edit(rng, scene, edit_type, target)
    return Example(key_of(split, index), scene, edited, instruction, edit_type, origin, target)


def indices(split: str, count: int, edit_types: tuple[str, ...] = (), origins: tuple[str, ...] = ()) -> list[int]:
    """The first `count` indices of a split whose examples have one of the given edit types and origins (empty: any)."""
    for name, given, legal in (("edit type", edit_types, EDIT_TYPES), ("origin", origins, tuple(ORIGIN_SHARES))):
        for value in given:
            if value not in legal:
                raise InputError(f"{name} {value!r} is not of the toy world: legal are {', '.join(legal)}")
    if not edit_types and not origins:
        return list(range(count))
    wanted = (
        index
        for index in itertools.count()
        if (drawn := example(split, index)).edit_type in (edit_types or EDIT_TYPES)
        and drawn.origin in (origins or ORIGIN_SHARES)
    )
    return list(itertools.islice(wanted, count))


def wrong_instruction(sample: Example) -> str:
    """A sentence that asks for another edit of the same object, e.g. another colour."""
    if sample.target is None:
        return "make the video negative"
    shape = sample.source.shapes[sample.target]
    taken = (shape.colour, sample.edited.shapes[sample.target].colour if sample.edit_type != "remove" else "")
    return f"make the {shape.name} {next(colour for colour in COLOURS if colour not in taken)}"


def key_of(split: str, index: int) -> str:
    """The key of example `index`, such as `toy-test-0000012`."""
    return f"toy-{split}-{index:07d}"


def example_of_key(key: str) -> Example:
    """Draw the example that a key `toy-SPLIT-INDEX` names, e.g. `toy-test-0000012`."""
    found = re.fullmatch(r"toy-(train|val|test)-(\d{7})", key)
    if found is None:
        raise InputError(
            f"sample key {key!r} is not of the toy world: legal are toy-train-, toy-val-, toy-test-0000000"
        )
    return example(found[1], int(found[2]))


def to_triplet(sample: Example, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> Triplet:
    """Render an example as a perfect triplet (`judge` 5, `epe_px` 0)."""
    return Triplet(
        key=sample.key,
        source=Clip(render(sample.source, frames, height, width), FPS),
        edited=Clip(render(sample.edited, frames, height, width), FPS),
        instruction=sample.instruction,
        source_caption=caption(sample.source),
        edited_caption=caption(sample.edited),
        origin=sample.origin,
        dataset="toy",
        edit_type=sample.edit_type,
        scores={"judge": 5.0, "epe_px": 0.0},
    )


def _scene(rng: np.random.Generator, origin: str, edit_type: str) -> Scene:
    count = int(rng.integers(1, 4 if edit_type != "add" else 3))
    names = rng.choice(len(COLOURS) * len(SHAPES), count, replace=False)
    drift = rng.uniform(-20, 20, 2)
    shapes = tuple(_shape(rng, origin, list(COLOURS)[n // len(SHAPES)], SHAPES[n % len(SHAPES)], drift) for n in names)
    # A camera edit needs a source that stands still, whatever its origin.
    moves = origin == "static" and edit_type != "camera"
    return Scene(str(rng.choice(list(BACKGROUNDS))), shapes, str(rng.choice(CAMERAS)) if moves else "")


def _shape(rng: np.random.Generator, origin: str, colour: str, kind: str, drift: np.ndarray) -> Shape:
    radius = float(rng.uniform(7, 11))
    low, high = np.full(2, radius + 1), np.asarray([WIDTH, HEIGHT]) - radius - 1
    start = rng.uniform(low, high)
    end = {"real": rng.uniform(low, high), "pair": start + drift, "static": start}[origin]
    travel = np.clip(end, low, high) - start
    travel *= min(1.0, rng.uniform(0, MAX_TRAVEL) / max(float(np.hypot(*travel)), 1e-6))
    stop = start + travel
    return Shape(kind, colour, radius, (float(start[0]), float(start[1])), (float(stop[0]), float(stop[1])))


def _visible_share(scene: Scene, index: int) -> float:
    alone = visible_mask(replace(scene, shapes=(scene.shapes[index],)), 0, 3)
    return float(visible_mask(scene, index, 3).sum() / max(1, alone.sum()))


def _edit(rng: np.random.Generator, scene: Scene, edit_type: str, target: int | None) -> tuple[Scene, str]:
    """Apply an edit of the given type; return the edited scene and the instruction."""
    if target is not None:
        return _edit_shape(rng, scene, edit_type, target)
    if edit_type == "add":
        taken = {shape.name for shape in scene.shapes}
        free = [(c, k) for c in COLOURS for k in SHAPES if f"{c} {k}" not in taken]
        colour, kind = free[rng.integers(len(free))]
        place = str(rng.choice(list(PLACES)))
        x, y = PLACES[place]
        added = Shape(kind, colour, 9.0, (x, y), (x, y))
        return replace(scene, shapes=(*scene.shapes, added)), f"add {_article(added)} at the {place}"
    if edit_type == "background":
        background = str(rng.choice([name for name in BACKGROUNDS if name != scene.background]))
        return replace(scene, background=background), f"change the background to {background}"
    if edit_type == "style":
        style = str(rng.choice(STYLES))
        return replace(scene, style=style), f"make the video {style}"
    camera = str(rng.choice(CAMERAS))
    return replace(scene, camera=camera), f"{camera} slowly"


def _edit_shape(rng: np.random.Generator, scene: Scene, edit_type: str, target: int) -> tuple[Scene, str]:
    shape = scene.shapes[target]
    others = {other.name for other in scene.shapes}
    if edit_type == "remove":
        verb = ("remove", "delete")[rng.integers(2)]
        return replace(scene, shapes=scene.shapes[:target] + scene.shapes[target + 1 :]), f"{verb} the {shape.name}"
    if edit_type == "recolour":
        colour = str(rng.choice([c for c in COLOURS if c != shape.colour and f"{c} {shape.kind}" not in others]))
        verb = ("make", "turn")[rng.integers(2)]
        changed, instruction = replace(shape, colour=colour), f"{verb} the {shape.name} {colour}"
    else:
        free = [(c, k) for c in COLOURS for k in SHAPES if k != shape.kind and f"{c} {k}" not in others]
        colour, kind = free[rng.integers(len(free))]
        changed = replace(shape, colour=colour, kind=kind)
        instruction = f"replace the {shape.name} with {_article(changed)}"
    return replace(scene, shapes=(*scene.shapes[:target], changed, *scene.shapes[target + 1 :])), instruction


def _article(shape: Shape) -> str:
    return f"{'an' if shape.colour == 'orange' else 'a'} {shape.name}"
