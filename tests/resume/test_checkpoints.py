"""Checkpoints that a crash cannot break, and the choice of the one to resume from."""

import os
import pickle
import random
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from insvie_lightning.errors import InputError
from insvie_lightning.resume.checkpoints import AtomicCheckpointIO, newest_checkpoint, resume_path


def checkpoint(step: int = 1, numbers: int = 1000) -> dict[str, Any]:
    return {"global_step": step, "loops": {}, "lr_schedulers": [], "weights": torch.full((numbers,), float(step))}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1 to 3."""
    for step in (1, 2, 3):
        path = tmp_path / f"checkpoints/step={step}.ckpt"
        AtomicCheckpointIO().save_checkpoint(checkpoint(step), path)
        os.utime(path, (step, step))
    return tmp_path / "checkpoints"


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, callbacks=[ModelCheckpoint(folder / "checkpoints")],
        enable_progress_bar=False, **options,
    )  # fmt: skip


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder/a.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(7), path)
    read = AtomicCheckpointIO().load_checkpoint(path)
    assert read["global_step"] == 7 and torch.equal(read["weights"], torch.full((1000,), 7.0))
    assert [file.name for file in path.parent.iterdir()] == ["a.ckpt"]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"x": SimpleNamespace()}, path)
    for told in (None, False):
        with pytest.raises(Exception, match=r"Weights only load failed|weights_only"):
            AtomicCheckpointIO().load_checkpoint(path, weights_only=told)


def test_the_file_has_its_name_only_after_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "a.ckpt", []
    flush = os.fsync

    def look(handle: int) -> None:
        seen.append(sorted(file.name for file in tmp_path.iterdir()))
        flush(handle)

    monkeypatch.setattr(os, "fsync", look)
    AtomicCheckpointIO().save_checkpoint(checkpoint(), path)
    assert seen == [["a.ckpt.part"], ["a.ckpt"]]


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(1), path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * 2**20))
    weights = torch.zeros(2**21)  # 8 MiB, and a view of it that takes no room of its own
    content = {**checkpoint(2), "more": [{"weights": weights, "view": weights[:100]}]}
    with pytest.raises(
        InputError, match=r"needs 9\.0 MiB and 3\.0 MiB are free, 6\.0 MiB too little; .*rerun the same"
    ):
        AtomicCheckpointIO().save_checkpoint(content, path)
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("limit_kib", [0, 40, 700])
def test_a_disk_that_fills_up_while_it_is_written_leaves_the_old_checkpoint(tmp_path: Path, limit_kib: int) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(1), path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kib * 1024, hard))
    try:
        with pytest.raises(InputError, match=r"no room for the checkpoint .*MiB too little \(.*File too large"):
            AtomicCheckpointIO().save_checkpoint(checkpoint(2, numbers=250_000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_newest_is_found(saved: Path) -> None:
    found = newest_checkpoint(saved.iterdir())
    assert (found.path, found.step, found.skipped) == (saved / "step=3.ckpt", 3, {})
    assert newest_checkpoint([]).path is None


def test_no_cut_or_damaged_checkpoint_is_chosen(saved: Path) -> None:
    newest, whole, draw = saved / "step=3.ckpt", (saved / "step=3.ckpt").read_bytes(), random.Random(0)
    data = whole.index(torch.full((1000,), 3.0).numpy().tobytes())
    for length in [0, 1, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(20))]:
        newest.write_bytes(whole[:length])
        found = newest_checkpoint(saved.iterdir())
        assert found.path == saved / "step=2.ckpt" and list(found.skipped) == [newest]
    for place in [data, *(draw.randrange(data, data + 4000) for _ in range(10))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        newest.write_bytes(damaged)
        assert newest_checkpoint(saved.iterdir()).path == saved / "step=2.ckpt"


def test_what_is_skipped_is_named_with_the_reason(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    (saved / "step=4.ckpt.part").write_bytes(b"half")
    torch.save({"state_dict": {}}, saved / "weights.ckpt")
    (saved / "last.ckpt").symlink_to("step=2.ckpt")
    with caplog.at_level("INFO"):
        assert resume_path(trainer(saved.parent), None) == saved / "step=3.ckpt"
    (said,) = [line for line in caplog.messages if line.startswith("resuming")]
    assert said.startswith(f"resuming at step 3 from {saved / 'step=3.ckpt'}; skipped ")
    assert "skipped step=4.ckpt.part: its save was interrupted" in said
    assert "skipped weights.ckpt: it has no global_step, so no run can resume from it" in said
    assert said.endswith("--ckpt_path new starts anew")


def test_a_requeued_job_finds_what_slurm_saved(saved: Path) -> None:
    requeued = saved.parent / "hpc_ckpt_1.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(9), requeued)
    assert resume_path(trainer(saved.parent), None) == requeued
    os.utime(requeued, (2, 2))
    assert resume_path(trainer(saved.parent), "last") == saved / "step=3.ckpt"


@pytest.mark.filterwarnings("ignore")
def test_a_sharded_checkpoint_is_complete_with_its_index_and_all_that_it_names(saved: Path) -> None:
    shard = saved / "step=5.ckpt"
    dcp.save({"w": torch.ones(300), "text": "x"}, checkpoint_id=shard, no_dist=True)
    assert newest_checkpoint(saved.iterdir()).step == 3
    torch.save(checkpoint(5), shard / "meta.pt")
    assert newest_checkpoint(saved.iterdir()).step == 5
    (part,) = shard.glob("*.distcp")
    for path in (part, shard / "meta.pt", shard / ".metadata"):
        whole = path.read_bytes()
        for damaged in (whole[:-1], b"") if path == part else (whole[:-1], b"", pickle.dumps(os.getcwd)):
            path.write_bytes(damaged)
            found = newest_checkpoint(saved.iterdir())
            assert found.step == 3 and list(found.skipped) == [shard], (path, damaged)
        path.write_bytes(whole)
    part.unlink()
    assert "is missing or cut: 0 bytes of" in newest_checkpoint(saved.iterdir()).skipped[shard]


def test_a_folder_is_no_checkpoint_for_one_process(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is the folder of a sharded checkpoint, .*legal are `-c fsdp`"):
        AtomicCheckpointIO().load_checkpoint(tmp_path)


def test_a_run_starts_anew_only_when_told_and_keeps_the_earlier_checkpoints(saved: Path) -> None:
    folder = saved.parent
    (saved / "last.ckpt").symlink_to("step=3.ckpt")
    assert resume_path(trainer(folder), "new") is None
    assert not list(saved.iterdir()) and len(list((folder / "checkpoints.1").iterdir())) == 4
    assert (folder / "checkpoints.1/last.ckpt").resolve().exists()
    assert resume_path(trainer(folder), None) is None
    AtomicCheckpointIO().save_checkpoint(checkpoint(1), saved / "step=1.ckpt")
    assert resume_path(trainer(folder), "new") is None
    assert (folder / "checkpoints.2/step=1.ckpt").exists()


def test_a_path_is_taken_as_it_is_and_a_fast_run_resumes_nothing(saved: Path) -> None:
    assert resume_path(trainer(saved.parent), "elsewhere.ckpt") == "elsewhere.ckpt"
    assert resume_path(trainer(saved.parent, fast_dev_run=True), None) is None
    quiet = Trainer(default_root_dir=saved.parent, accelerator="cpu", logger=False, enable_checkpointing=False)
    assert resume_path(quiet, None) is None
