"""Before weights are taken or written: are they those that a network needs, if not which; is there room for them."""

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from insvie_lightning.errors import InputError

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def require_keys(legal: Collection[str], found: Collection[str], origin: str) -> None:
    """Pass only exactly the legal keys.

    Raises:
        InputError: Otherwise; `origin` (a file, say) begins the sentence, which names every key missing or left over.
    """
    missing, extra = set(legal) - set(found), set(found) - set(legal)
    if missing or extra:
        lists = [f"{what} {name_keys(keys)}" for what, keys in (("without", missing), ("with unknown", extra)) if keys]
        raise InputError(f"{origin} holds the weights of another model: {'; '.join(lists)}")


def require_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], origin: str) -> None:
    """Pass only finite weights of the expected names and shapes.

    Raises:
        InputError: Otherwise; names every misfit.
    """
    require_keys(expected.keys(), weights.keys(), origin)
    misfits = [name for name, value in expected.items() if weights[name].shape != value.shape]
    if misfits:
        first = misfits[0]
        raise InputError(
            f"{origin} holds the weights of another model: {first} has shape {tuple(weights[first].shape)} instead of "
            f"{tuple(expected[first].shape)}, and so on for {name_keys(misfits)}"
        )
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise InputError(f"{origin} is spoilt: {name_keys(broken)} has values that are nan or infinite")


def is_free(path: Path) -> bool:
    """Whether something can be written at a path without loss: nothing is there, or an empty folder."""
    return not any(path.iterdir()) if path.is_dir() else not path.exists()


def name_keys(keys: Iterable[str]) -> str:
    """The keys in order, those that differ by their first number or their end only as one: `h.{0-29}.{weight,bias}`."""
    given = set(keys)

    def fold(key: str) -> str:
        module = re.sub(r"\.(weight|bias)$", "", key)
        return f"{module}.{{weight,bias}}" if {f"{module}.weight", f"{module}.bias"} <= given else key

    folded = {fold(key) for key in given}
    split = sorted((_NUMBER.sub("{}", key, count=1), int((_NUMBER.findall(key) or [-1])[0])) for key in folded)
    names = []
    for name, group in groupby(split, lambda pair: pair[0]):
        numbers = [number for _, number in group]
        for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
            first, *rest = [number for _, number in run]
            names.append(name.replace("{}", f"{{{first}-{rest[-1]}}}" if rest else str(first)))
    return ", ".join(names)
