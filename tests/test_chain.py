"""The command line on real edits and on bad input: what a user meets first."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import mean

import huggingface_hub.constants
import numpy as np
import pytest
import torch

from insvie_lightning.batch import Clip
from insvie_lightning.cli import main
from insvie_lightning.editors.insvie import InsViE
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.video import read_clip
from insvie_lightning.weights.deliverable import load_deliverable

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
LORA = ["--model.lora_rank=8", "--model.lora_alpha=8", "--model.num_inference_steps=2"]


@pytest.fixture(scope="session")
def real_shards(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real edits, converted by the command."""
    folder = tmp_path_factory.mktemp("real") / "shards"
    assert main(["shards", "convert", str(shared / "real/triplets/train.csv"), str(folder)]) == 0
    return folder


def run_folder(folder: Path) -> list[str]:
    return [f"--trainer.default_root_dir={folder}", f"--trainer.logger.init_args.save_dir={folder}"]


def refused(capfd: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run, expect status 2 and one sentence of error as the last line, and return it without its prefix."""
    assert main(argv) == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err
    *notes, last = err.strip().splitlines()
    assert last.startswith("error: ") and not any(note.startswith("error: ") for note in notes)
    return last.removeprefix("error: ")


# ---------------------------------------------------------------- real input


def test_the_released_layout_becomes_twelve_samples(real_shards: Path, shared: Path) -> None:
    rows = open_manifest(real_shards).query().to_pylist()
    with (shared / "real/triplets/train.csv").open() as file:
        expected = {row["source_video"].removesuffix(".mp4"): row["instruction"] for row in csv.DictReader(file)}
    assert len(rows) == len(expected) == 12
    assert {row["key"]: row["instruction"] for row in rows} == expected
    assert {(row["height"], row["width"], row["frames"]) for row in rows} == {(288, 320, 32)}


def test_a_fit_on_real_edits_learns_and_delivers_an_editor(
    real_shards: Path, tiny_base: Path, tmp_path: Path, shared: Path
) -> None:
    recipe = ["fit", "-c", "s1", "-c", "toy", f"--model.base={tiny_base}", f"--data.shards={real_shards}"]
    sizes = ["--trainer.max_steps=40", "--trainer.log_every_n_steps=1", "--data.batch_size=2"]
    rates = ["--model.lr=1e-2", "--model.warmup_steps=2", "--model.condition_dropout={text: 0, video: 0}"]
    assert main([*recipe, *sizes, *rates, *LORA, *QUIET, *run_folder(tmp_path)]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]
    assert len(losses) == 40 and all(map(math.isfinite, losses))
    assert mean(losses[-10:]) < 0.9 * mean(losses[:10])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 40 and summary["train_loss"] == pytest.approx(losses[-1])
    delivered = load_deliverable(tmp_path / "weights")
    assert delivered.ema_updates == 40 and delivered.ema is not None
    assert any(not torch.equal(delivered.raw[name], value) for name, value in delivered.ema.items())
    assert list((tmp_path / "checkpoints").glob("last.ckpt")) and (tmp_path / "config.yaml").exists()
    editor = InsViE.from_pretrained(tmp_path / "weights")
    clip = read_clip(shared / "real/triplets/source/gold-fish_style.mp4")
    edited = editor.edit(Clip(clip.frames[:7], clip.fps), "make it sepia")
    assert edited.frames.shape == (7, 3, 288, 320) and edited.frames.dtype == np.uint8


def test_the_next_stage_starts_from_the_weights_and_average_of_the_last(tiny_base: Path, tmp_path: Path) -> None:
    shards = write_toy(tmp_path / "shards", ["real"] * 4)
    recipe = ["-c", "toy", f"--model.base={tiny_base}", f"--data.shards={shards}", "--data.batch_size=2"]
    small = ["--data.frames=1", "--data.size=[32, 48]", "--trainer.log_every_n_steps=1", *LORA, *QUIET]
    first, second = tmp_path / "s1", tmp_path / "s2"
    assert main(["fit", "-c", "s1", *recipe, *small, "--trainer.max_steps=2", *run_folder(first)]) == 0
    onward = [f"--model.start_from={first / 'weights'}", "--model.lr=0", "--trainer.max_steps=1"]
    assert main(["fit", "-c", "s2", *recipe, *small, *onward, *run_folder(second)]) == 0
    before, after = load_deliverable(first / "weights"), load_deliverable(second / "weights")
    assert (before.ema_updates, after.ema_updates) == (2, 3)
    decay = (1 + 2) / (10 + 2)
    for name, raw in before.raw.items():
        assert torch.equal(after.raw[name], raw)
        torch.testing.assert_close(after.ema[name], decay * before.ema[name] + (1 - decay) * raw)


def test_verify_names_the_sample_whose_byte_flipped(
    real_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(real_shards, damaged)
    assert main(["shards", "verify", str(damaged)]) == 0
    assert "12 samples in 1 shards checked: no problem" in capsys.readouterr().out
    row = open_manifest(damaged).query().to_pylist()[5]
    member = next(member for member in row["members"] if member["name"] == "edited.mp4")
    with (damaged / row["shard"]).open("r+b") as tar:
        tar.seek(member["offset"] + member["size"] // 2)
        (byte,) = tar.read(1)
        tar.seek(-1, os.SEEK_CUR)
        tar.write(bytes([byte ^ 1]))
    assert main(["shards", "verify", str(damaged)]) == 1
    found, summary = capsys.readouterr().out.splitlines()
    assert found == f"shard-000000.tar: {row['key']}: edited.mp4 differs from its hash"
    assert summary == "12 samples in 1 shards checked: 1 problems"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("recipe", ["build_nothing.yaml", "davis.yaml", "missing/config.yaml"])
def test_a_recipe_that_does_not_exist_is_bad_input(capfd: pytest.CaptureFixture[str], recipe: str) -> None:
    said = refused(capfd, "predict" if recipe.startswith("build") else "fit", "--config", recipe)
    assert said.startswith(f"no recipe {recipe!r}: neither a file here nor one of ") and "toy_vae" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model=InsVie"], "model: no class 'InsVie' is registered; did you mean 'InsViE'?"),
        (["--data=Curiculum"], "data: no class 'Curiculum' is registered; did you mean 'Curriculum'?"),
        (
            ["-c", "trainer: {callbacks: [{class_path: LoraEma}]}"],
            "trainer.callbacks: no class 'LoraEma' is registered; did you mean 'LoraEMA'?",
        ),
        (["--model.lorarank=4"], "model: InsViE takes no 'lorarank'; did you mean 'lora_rank'?"),
        (["--data.stages=[{name: a, steps: 0}]"], "stage 'a' has steps: 0; legal is 1 or more"),
    ],
)
def test_a_wrong_name_or_value_is_bad_input(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    said = refused(capfd, "fit", "-c", "s1", "-c", "toy", *run_folder(tmp_path), *arguments)
    assert said.removeprefix(f"{arguments[-1]}: ") == sentence


def test_shards_that_are_not_there_are_bad_input(
    capfd: pytest.CaptureFixture[str], tiny_base: Path, tmp_path: Path
) -> None:
    options = [f"--model.base={tiny_base}", f"--data.shards={tmp_path / 'none'}", *LORA, *QUIET]
    said = refused(capfd, "fit", "-c", "s1", "-c", "toy", *options, *run_folder(tmp_path))
    assert said.startswith(f"there is no shard folder '{tmp_path / 'none'}': make it with `insvie shards convert")


def test_without_weights_and_network_the_sentence_says_what_to_do(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_toy(tmp_path / "shards", ["real"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    said = refused(capfd, "fit", "--config", "s1.yaml", "--data.shards", str(shards))
    assert said.startswith("the weights 'zai-org/CogVideoX-2b' are neither a folder here nor to be had from the hub")
    assert "HF_HUB_OFFLINE" in said and "`-c toy`" in said and "--model.base" in said


# ---------------------------------------------------------------- two processes

SCRIPT = '''
import json
import sys
from pathlib import Path

from lightning import Callback

from insvie_lightning.commands.lightning_cli import InsvieCLI
from insvie_lightning.weights.deliverable import trainable_weights


class Record(Callback):
    """Writes what a rank was fed, and what it ends with."""

    def __init__(self, folder):
        self.folder, self.batches = Path(folder), []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append([list(batch.keys), list(batch.origins)])

    def on_train_end(self, trainer, module):
        weights = {name: value.tolist() for name, value in trainable_weights(module.transformer).items()}
        ema = {name: value.tolist() for name, value in module.ema.items()}
        found = {"world": trainer.world_size, "batches": self.batches, "weights": weights, "ema": ema}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    folder, *args = sys.argv[1:]
    cli = InsvieCLI(args, run=False)
    cli.trainer.callbacks.append(Record(folder))
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
'''


def write_toy(folder: Path, origins: list[str]) -> Path:
    """Toy scenes of given origins as a shard."""
    drawn = (example("train", index) for index in range(10_000))
    with ShardWriter(folder, lossless=True) as writer:
        for origin in origins:
            sample = next(sample for sample in drawn if sample.origin == origin)
            writer.write(to_triplet(sample, 5, 32, 48))
    return folder


def test_two_processes_share_the_order_and_end_with_the_same_weights(tiny_base: Path, tmp_path: Path) -> None:
    from insvie_data_modules.curriculum import Curriculum, Stage

    shards = write_toy(tmp_path / "shards", ["static"] * 20 + ["real"] * 4)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    stage = "--data.stages=[{name: s3, steps: 4, static_to_real: '5:1'}]"
    sizes = ["--data.batch_size=3", "--data.frames=5", "--data.size=[32, 48]", "--trainer.max_steps=4"]
    strategy = "{class_path: DDPStrategy, init_args: {process_group_backend: gloo}}"
    ranks = ["--trainer.devices=2", f"--trainer.strategy={strategy}", "--trainer.enable_checkpointing=false"]
    data = [f"--model.base={tiny_base}", f"--data.shards={shards}", stage, *sizes]
    callbacks = "--trainer.callbacks=[{class_path: LoraEMA}]"
    args = ["-c", "s1", "-c", "toy", *data, *LORA, *QUIET, *ranks, callbacks, *run_folder(tmp_path / "run")]
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path), *args],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    left, right = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert left["world"] == right["world"] == 2 and len(left["batches"]) == len(right["batches"]) == 4

    whole = Curriculum(shards, [Stage("s3", 4, static_to_real="5:1")], batch_size=6, frames=5, size=(32, 48))
    order = [key for batch in whole.train_dataloader() for key in batch.keys]
    for step, ((keys, origins), (others, other_origins)) in enumerate(
        zip(left["batches"], right["batches"], strict=True)
    ):
        window = order[6 * step : 6 * step + 6]
        assert not set(keys) & set(others)
        assert (keys, others) == (window[0::2], window[1::2])
        assert Counter(origins + other_origins) == {"static": 5, "real": 1}
    assert left["weights"] == right["weights"] and left["ema"] == right["ema"]
    assert left["weights"] != left["ema"]
