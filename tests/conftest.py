"""Fixtures shared by every test."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden files and real videos: skipped when absent, unless `INSVIE_SHARED` says it must be there."""
    named = os.environ.get("INSVIE_SHARED")
    folder = Path(named or "../shared").resolve()
    if not folder.is_dir():
        if named:
            pytest.fail(f"INSVIE_SHARED={named} is not a folder")
        pytest.skip("no shared folder of golden files; set INSVIE_SHARED to run this test")
    return folder


@pytest.fixture(scope="session")
def fill(shared: Path) -> Any:
    """The golden files' maker of weights (`fill_state`) and inputs (`array`)."""
    spec = importlib.util.spec_from_file_location("fill", shared / "oracles/fill.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def seeds(shared: Path) -> Any:
    """The seeds of the golden files' weights and inputs."""
    return json.loads((shared / "oracles/inputs.json").read_text())
