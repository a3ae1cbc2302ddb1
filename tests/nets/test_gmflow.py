import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from insvie_lightning.nets.gmflow import MULTIPLE, GMFlow


@pytest.fixture(scope="module")
def fill(shared: Path) -> Any:
    spec = importlib.util.spec_from_file_location("fill", shared / "oracles/fill.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def seeds(shared: Path) -> Any:
    return json.loads((shared / "oracles/inputs.json").read_text())


def test_golden_keys_of_the_released_weights(shared: Path) -> None:
    keys = json.loads(gzip.decompress((shared / "oracles/gmflow.keys.json.gz").read_bytes()))
    state = GMFlow().state_dict()
    assert [[name, list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in state.items()] == keys


def test_golden_flow(shared: Path, fill: Any, seeds: Any) -> None:
    net = GMFlow().eval()
    fill.fill_state(net, seeds["weights_seed"])
    expected = torch.from_numpy(np.load(shared / "oracles/gmflow.npz")["flow"])
    seed = seeds["gmflow"]["input_seed"]
    shape = (expected.shape[0], 3, *expected.shape[2:])
    first, second = (
        torch.from_numpy((fill.array(name, shape, seed) * 40 + 128).clip(0, 255).round())
        for name in ("frame0", "frame1")
    )
    with torch.no_grad():
        flow = net(first, second)
    error = (flow - expected).norm(dim=1)
    print(f"GMFlow: error {error.mean():.1e} px mean, {error.max():.1e} px at most, |flow| {expected.abs().mean():.1f}")
    assert error.mean() <= 1e-3
    assert expected.abs().mean() > 1


def test_pairs_of_a_batch_are_apart_and_features_can_be_shared() -> None:
    torch.manual_seed(0)
    net = GMFlow().eval()
    frames = torch.rand(3, 3, 2 * MULTIPLE, 3 * MULTIPLE) * 255
    with torch.no_grad():
        batch = net(frames[:2], frames[1:])
        features = net.encode(frames)
        alone = [net.match(features[i : i + 1], features[i + 1 : i + 2]) for i in range(2)]
    assert batch.shape == (2, 2, 2 * MULTIPLE, 3 * MULTIPLE)
    assert (batch - torch.cat(alone)).abs().max() < 1e-3 and (batch[0] - batch[1]).abs().max() > 0.1


def test_the_smallest_picture() -> None:
    with torch.no_grad():
        flow = GMFlow().eval()(*torch.rand(2, 1, 3, MULTIPLE, MULTIPLE) * 255)
    assert flow.shape == (1, 2, MULTIPLE, MULTIPLE) and flow.isfinite().all()
