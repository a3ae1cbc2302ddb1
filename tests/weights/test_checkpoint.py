"""Checkpoints are looked at before they are loaded."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from insvie_lightning.errors import InputError
from insvie_lightning.weights.checkpoint import check_checkpoint


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


class Save:
    """A function of torch that writes a file: not every name of torch is harmless."""

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.save, (1, "hacked")


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Lightning writes for a model in shards."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "x.ckpt"
    state = {"state_dict": {"w": torch.ones(3), "h": torch.ones(2, dtype=torch.bfloat16)}, "n": 3, "text": "x"}
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    torch.save({"epoch": 1}, folder / "meta.pt")
    return folder


def test_a_checkpoint_passes(tmp_path: Path) -> None:
    content = {"state_dict": {"w": torch.ones(3)}, "epoch": 1, "pytorch-lightning_version": "2.6.0"}
    torch.save(content, tmp_path / "x.ckpt")
    check_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.filterwarnings("ignore")
def test_a_sharded_checkpoint_passes(sharded: Path) -> None:
    check_checkpoint(sharded)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", [Code(), Save()])
@pytest.mark.parametrize("name", [".metadata", "meta.pt"])
def test_code_in_a_sharded_checkpoint_is_not_run(sharded: Path, name: str, code: Any) -> None:
    (sharded / name).write_bytes(pickle.dumps({"state_dict": code}))
    with pytest.raises(InputError, match=r"\.metadata .*it names (posix\.system|torch\.serialization\.save)|meta\.pt "):
        check_checkpoint(sharded)
    assert not Path("hacked").exists()


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_checkpoint_is_one_sentence(sharded: Path) -> None:
    torch.save({"w": torch.ones(3)}, "y.ckpt")
    with pytest.raises(InputError, match=r"^y\.ckpt is no checkpoint of a run"):
        check_checkpoint(Path("y.ckpt"))
    Path("y.ckpt").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match=r"^y\.ckpt is damaged"):
        check_checkpoint(Path("y.ckpt"))
    (sharded / ".metadata").unlink()
    with pytest.raises(InputError, match="but the index of a sharded checkpoint is needed"):
        check_checkpoint(sharded)
