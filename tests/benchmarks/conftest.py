"""The benchmarks as modules: their folder is no package, and they import one another as scripts do."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = ("loader", "real_size", "timing", "stock", "train", "steady", "edit", "vae", "calibrate", "gpu", "distributed")


@pytest.fixture(scope="package")
def benchmark() -> Iterator[Callable[[str], ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="package")
def real_size(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("real_size")


@pytest.fixture(scope="package")
def tiny(real_size: ModuleType) -> Any:
    return real_size.Setting(real_size.TINY, torch.device("cpu"), torch.float32)
