"""Sentences about weights that do not fit."""

from pathlib import Path

import pytest
import torch

from insvie_lightning.errors import InputError
from insvie_lightning.weights.checks import is_free, name_keys, require_fit, require_keys


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (["b", "a"], "a, b"),
        (["x.0.w", "x.1.w", "x.2.w"], "x.{0-2}.w"),
        (["x.0.w", "x.2.w", "x.3.w", "x.10.w"], "x.0.w, x.{2-3}.w, x.10.w"),
        (["x.0.net.2.w", "x.1.net.2.w", "x.1.net.0.w"], "x.1.net.0.w, x.{0-1}.net.2.w"),
        (["l.weight", "l.bias", "m.weight"], "l.{weight,bias}, m.weight"),
        (["x.0.l.weight", "x.0.l.bias", "x.1.l.weight", "x.1.l.bias"], "x.{0-1}.l.{weight,bias}"),
    ],
)
def test_keys_are_named_briefly(keys: list[str], named: str) -> None:
    assert name_keys(keys) == named


def test_keys_must_be_the_same() -> None:
    require_keys({"a"}, ["a"], "x")
    with pytest.raises(InputError, match=r"^x holds the weights of another model: without a; with unknown b$"):
        require_keys({"a"}, ["b"], "x")


def test_shapes_must_be_the_same() -> None:
    expected = {"a": torch.ones(2, 3), "b": torch.ones(2)}
    require_fit(expected, expected, "x")
    with pytest.raises(InputError, match=r"a has shape \(3, 2\) instead of \(2, 3\)"):
        require_fit(expected | {"a": torch.ones(3, 2)}, expected, "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_must_be_finite(value: float) -> None:
    expected = {"h.0.a": torch.ones(2), "h.1.a": torch.ones(2)}
    broken = {"h.0.a": torch.ones(2), "h.1.a": torch.tensor([1, value], dtype=torch.float16)}
    with pytest.raises(InputError, match=r"^x is spoilt: h\.1\.a has values that are nan or infinite$"):
        require_fit(broken, expected, "x")


def test_only_nothing_and_an_empty_folder_are_free(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    free = {name: is_free(tmp_path / name) for name in ("absent", "empty", "file", ".")}
    assert free == {"absent": True, "empty": True, "file": False, ".": False}
