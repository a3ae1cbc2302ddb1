"""Exact scores in the toy world, where the edited object's mask and the true video are known."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

from insvie_lightning.toy.edits import Example, example_of_key
from insvie_lightning.toy.scene import BACKGROUNDS, COLOURS, STYLES, render, visible_mask

_PALETTE = torch.tensor(list(COLOURS.values()), dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class ToyScore:
    """Squared error in the unit interval, and whether the edit happened (None where its type has no test)."""

    mse: float
    recoloured: bool | None
    removed: bool | None


def toy_score(edited: Tensor, sample: Example) -> ToyScore:
    """Score an edited clip F 3 H W (float in [-1, 1]) against the exact edit.

    recoloured: the mean colour inside the true mask, over all frames, is nearer to the asked colour than to the other
    seven. removed: inside the mask, the mean colour is nearer to what is truly behind the object than to the object.
    """
    frames, _, height, width = edited.shape
    pixels = (edited.float().cpu().clamp(-1, 1) + 1) / 2
    truth = torch.from_numpy(render(sample.edited, frames, height, width)).float() / 255
    mse = float((pixels - truth).square().mean())
    if sample.target is None or sample.edit_type not in ("recolour", "remove"):
        return ToyScore(mse, None, None)
    mask = torch.from_numpy(visible_mask(sample.source, sample.target, frames, height, width))
    inside = pixels.movedim(1, -1)[mask].mean(0) * 255
    if sample.edit_type == "recolour":
        asked = list(COLOURS).index(sample.edited.shapes[sample.target].colour)
        return ToyScore(mse, int((_PALETTE - inside).norm(dim=1).argmin()) == asked, None)
    behind = truth.movedim(1, -1)[mask].mean(0) * 255
    colour = torch.tensor(COLOURS[sample.source.shapes[sample.target].colour], dtype=torch.float32)
    return ToyScore(mse, None, bool((inside - behind).norm() < (inside - colour).norm()))


class ToyEditScore(Metric):
    """Recolour and removal accuracy, and PSNR over both kinds of edit.

    `update` takes edited clips B F 3 H W (float in [-1, 1]) and their keys; `compute` gives `recolour_accuracy`,
    `removal_accuracy` (shares in 0..1) and `psnr_db` = -10 log10 of the mean squared error over recolour and removal.
    """

    higher_is_better = True
    full_state_update = False
    recoloured: Tensor
    recolours: Tensor
    removed: Tensor
    removals: Tensor
    squared_error: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("recoloured", "recolours", "removed", "removals", "squared_error"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, edited: Tensor, keys: tuple[str, ...]) -> None:
        """Add edited clips and the keys of their samples."""
        for clip, key in zip(edited, keys, strict=True):
            score = toy_score(clip, example_of_key(key))
            if score.recoloured is not None:
                self.recolours += 1
                self.recoloured += score.recoloured
            elif score.removed is not None:
                self.removals += 1
                self.removed += score.removed
            else:
                continue
            self.squared_error += score.mse

    def compute(self) -> dict[str, Tensor]:
        """The three scores; nan where no sample had the edit type."""
        return {
            "recolour_accuracy": (self.recoloured / self.recolours).float(),
            "removal_accuracy": (self.removed / self.removals).float(),
            "psnr_db": (-10 * torch.log10(self.squared_error / (self.recolours + self.removals))).float(),
        }


def caption_recall(videos: Tensor, captions: tuple[str, ...]) -> float:
    """Share of the colours and backgrounds named in captions that videos B F 3 H W (in [-1, 1]) show.

    A colour is shown when at least 0.4 % of the pixels are within 60 (of 255) of it, a background when 40 % are within
    40. Captions that name a style are left out. nan when nothing is left.
    """
    found = []
    for video, caption in zip(videos, captions, strict=True):
        words = caption.replace(",", "").split()
        if set(words) & set(STYLES):
            continue
        pixels = (video.float().clamp(-1, 1).movedim(1, -1).reshape(-1, 3).cpu() + 1) * 127.5
        for word in words:
            reference, radius, share = (
                (COLOURS[word], 60, 0.004) if word in COLOURS else (BACKGROUNDS.get(word), 40, 0.4)
            )
            if reference is not None:
                near = (pixels - torch.tensor(reference, dtype=torch.float32)).norm(dim=1) < radius
                found.append(bool(near.float().mean() >= share))
    return sum(found) / len(found) if found else float("nan")
