"""Fixtures shared by every test."""

import os
from pathlib import Path

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
