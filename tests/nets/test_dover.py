"""The whole network against the released one; both maps at full size, about 10 s on one core."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from insvie_lightning.nets.dover import DoverNet


@pytest.fixture(scope="module")
def net(fill: Any, seeds: Any) -> DoverNet:
    net = DoverNet().eval().requires_grad_(False)
    fill.fill_state(net, seeds["weights_seed"])
    return net


def test_golden_keys_of_the_released_weights(shared: Path, net: DoverNet) -> None:
    keys = json.loads(gzip.decompress((shared / "oracles/dover.keys.json.gz").read_bytes()))
    found = [
        [name, list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in net.state_dict().items()
    ]
    assert found == keys


@pytest.mark.parametrize("view", ["technical", "aesthetic"])
def test_golden_maps(shared: Path, fill: Any, seeds: Any, net: DoverNet, view: str) -> None:
    expected = torch.from_numpy(np.load(shared / "oracles/dover.npz")[view])
    clips, _, frames, rows, columns = expected.shape
    shape = (clips, 3, 2 * frames, 32 * rows, 32 * columns)
    result = getattr(net, view)(torch.from_numpy(fill.array(view, shape, seeds["dover"]["input_seed"])))
    error = float((result - expected).abs().max())
    print(f"DOVER {view}: error {error:.1e} at most, values up to {expected.abs().max():.2f}")
    assert expected.std() > 0.05
    assert error <= 1e-4 and error <= 1e-4 * expected.abs().max()
