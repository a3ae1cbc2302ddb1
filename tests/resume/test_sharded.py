"""Folders of sharded checkpoints: whole, within themselves, and without code."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from insvie_lightning import fsdp
from insvie_lightning.errors import InputError
from insvie_lightning.fsdp import FullySharded, _PlainPlanner
from insvie_lightning.resume.sharded import check_folder

pytestmark = pytest.mark.filterwarnings("ignore")


class Code:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    dcp.save({"w": torch.ones(3), "told": {"lr": 0.5}}, checkpoint_id=tmp_path / "x.ckpt", no_dist=True)
    return tmp_path / "x.ckpt"


def test_a_part_that_lies_elsewhere_is_refused(folder: Path) -> None:
    check_folder(folder)
    (part,) = folder.glob("*.distcp")
    part.rename(folder.parent / part.name)
    index = folder / ".metadata"
    stored = pickle.loads(index.read_bytes())
    for where in stored.storage_data.values():
        where.relative_path = f"../{part.name}"
    index.write_bytes(pickle.dumps(stored))
    with pytest.raises(InputError, match="is missing or cut"):
        check_folder(folder)


def test_what_is_no_tensor_is_read_as_plain_types_only(folder: Path) -> None:
    state: dict[str, Any] = {"w": torch.zeros(3), "told": {"lr": 0.0}}
    dcp.load(state, checkpoint_id=folder, planner=_PlainPlanner(), no_dist=True)
    assert state["told"] == {"lr": 0.5} and state["w"].sum() == 3
    bad = folder.with_name("bad.ckpt")
    dcp.save({"told": Code()}, checkpoint_id=bad, no_dist=True)
    check_folder(bad)  # its index is in order
    with pytest.raises(BaseException, match="Weights only load failed"):  # torch's CheckpointException is no Exception
        dcp.load({"told": 0.0}, checkpoint_id=bad, planner=_PlainPlanner(), no_dist=True)
    assert not Path("hacked").exists()
    dcp.load({"told": 0.0}, checkpoint_id=bad, no_dist=True)
    assert Path("hacked").exists()  # as torch's own planner would


def test_shared_weights_look_at_a_folder_before_they_resume(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"state_dict": {"other": torch.zeros(3)}}
    strategy: Any = SimpleNamespace(
        broadcast=lambda value: value, model=1, optimizers=[], lightning_module=SimpleNamespace(strict_loading=True)
    )
    monkeypatch.setattr(fsdp, "get_state_dict", lambda *_, **__: (state["state_dict"], {}))
    with pytest.raises(InputError, match=r"x\.ckpt cannot be resumed from: .*state_dict\.other"):
        FullySharded.load_checkpoint(strategy, folder)
    (folder / ".metadata").write_bytes(pickle.dumps(Code()))
    with pytest.raises(InputError, match="holds code, which is not run"):
        FullySharded.load_checkpoint(strategy, folder)
    assert not Path("hacked").exists()
