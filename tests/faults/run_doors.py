"""The doors of runs: a recipe, a checkpoint to go on from, and what a report reads."""

import json
from pathlib import Path

from door import NAMES, Between, Door, Found, clip, command
from shard_doors import shards

from insvie_lightning.report.score_sheet import SHEET
from insvie_lightning.video import write_clip


def recipe(folder: Path) -> None:
    folder.mkdir(parents=True)
    boring = "lightning.pytorch.demos.boring_classes.Boring"
    (folder / "b.yaml").write_text(
        f"# A recipe.\nmodel:\n  class_path: {boring}Model\ndata:\n  class_path: {boring}DataModule\ntrainer:\n"
        f"  accelerator: cpu\n  logger: false\n  enable_progress_bar: false\n  enable_model_summary: false\n"
        f"  default_root_dir: {folder}/run\n  limit_test_batches: 1\n"
    )


def resumable(folder: Path) -> None:
    import lightning
    from lightning.pytorch.demos.boring_classes import BoringModel

    recipe(folder)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(BoringModel())
    trainer.save_checkpoint(folder / "b.ckpt")


def run_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("step,epoch,train/loss\n0,0,1.0\n5,0,0.5\n9,0,0.25\n")
    (folder / "summary.json").write_text(json.dumps({"psnr_db": 20.0, "copy_psnr_db": 10.0, "steps": 9}))
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    samples = folder / "samples/step-000010"
    for name in NAMES:
        write_clip(samples / f"{name}.source.mp4", clip())
    entries = [{"key": name, "instruction": f"do {name}", "scores": {"psnr_db": 20.0}} for name in NAMES]
    (samples / "samples.json").write_text(json.dumps(entries))


def scored_run(folder: Path) -> None:
    from insvie_lightning.report.score_sheet import ScoredEdit, make_sheet, write_sheet

    folder.mkdir(parents=True)
    edits = [ScoredEdit(name, "style", "do", (9, 32, 48), {"pick_score": 20.5}) for name in NAMES]
    write_sheet(folder, make_sheet(edits, ("pick_score",), "tgve", {}))


def quarantined(folder: Path) -> None:
    shards(folder / "shards")
    (folder / "quarantine-rank0.jsonl").write_text('{"key": "u", "reason": "x"}\n{"key": "v", "reason": "y"}\n')


def after_quarantine(folder: Path, between: Between) -> Found:
    from insvie_lightning.quarantine import Quarantine

    between()
    Quarantine(folder / "quarantine-rank0.jsonl", 1.0).add("z", "a reason")
    return Found({"z"})


def report(folder: Path, between: Between) -> Found:
    between()
    return command("report", str(folder))


def read_recipe(folder: Path, between: Between) -> Found:
    between()
    return command("test", "-c", str(folder / "b.yaml"))


def resume(folder: Path, between: Between) -> Found:
    between()
    return command("test", "-c", str(folder / "b.yaml"), "--ckpt_path", str(folder / "b.ckpt"))


DOORS = (
    Door("YAML", "a recipe", recipe, "b.yaml", read_recipe, shared=True),
    Door("checkpoint", "--ckpt_path", resumable, "b.ckpt", resume, shared=True),
    Door("JSON", "a run's quarantine", quarantined, "quarantine-rank0.jsonl", after_quarantine, frozenset("z"),
         shared=True),
    Door("video", "insvie report, a sample", run_folder, "samples/step-000010/b.source.mp4", report),
    Door("CSV", "insvie report, metrics", run_folder, "metrics.csv", report, shared=True),
    Door("JSON", "insvie report, scores", scored_run, SHEET, report, shared=True),
    Door("JSON", "insvie report, summary", run_folder, "summary.json", report, shared=True),
    Door("JSON", "insvie report, samples", run_folder, "samples/step-000010/samples.json", report, shared=True),
    Door("tar", "insvie report", shards, "shard-000000.tar", report),
    Door("manifest", "insvie report", shards, "shard-000000.parquet", report, shared=True),
)  # fmt: skip
