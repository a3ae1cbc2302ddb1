import errno
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

import insvie_lightning
from insvie_lightning import cli
from insvie_lightning.batch import Triplet
from insvie_lightning.cli import VERBS, main

PLUGIN = '''"""A third party's plug-in."""
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from lightning import Callback
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from insvie_lightning.errors import InputError


@dataclass(frozen=True)
class Shape:
    """Settings that belong together."""

    corners: int = 4


class AcmeNet(BoringModel):
    """A net that fails on demand."""

    def __init__(
        self,
        width: int = 3,
        rule: Callable[[str], int] = len,
        fail: str = "",
        way: Literal["up", "down"] = "up",
        shape: Shape = Shape(),
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="rule")
        self.fail = fail

    def training_step(self, batch, index):
        if self.fail == "input":
            raise InputError("clip 'a' has no frames")
        if self.fail == "interrupt":
            raise KeyboardInterrupt
        output = super().training_step(batch, index)
        self.log("loss", output["loss"])
        return output


class Broken(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        raise InputError("shard 'x.tar' is cut short")


class AcmeData(BoringDataModule):
    """Random numbers, or a broken shard."""

    def __init__(self, size: int = 3, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken

    def train_dataloader(self):
        if self.broken:
            return torch.utils.data.DataLoader(Broken(), num_workers=1)
        return super().train_dataloader()


class AcmeMeter(Callback):
    """Counts."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale


class AcmeTerm(Callback):
    """Is told to stop in its first batch."""

    def on_train_batch_start(self, *_):
        os.kill(os.getpid(), 15)
'''
RECIPE = """# A recipe of the test.
model: {class_path: AcmeNet, init_args: {width: 5}}
data: {class_path: AcmeData}
trainer:
  accelerator: cpu
  max_steps: 2
  log_every_n_steps: 1
  limit_val_batches: 0
  limit_test_batches: 1
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: runs/acme
  logger:
    class_path: CSVLogger
    init_args: {save_dir: runs/acme, name: "", version: ""}
"""


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Advertise a third party's module beside the installed ones."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "acme_plugin.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        acme = EntryPoint("acme", "acme_plugin", "insvie_lightning.plugins")
        patch.setattr("insvie_lightning.plugins.entry_points", lambda group: [*entry_points(group=group), acme])
        yield


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "acme.yaml"
    path.write_text(RECIPE)
    return path


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run, expect status 2, and return the one line on stderr after Lightning's own notes."""
    assert main(argv) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


def test_help_lists_every_verb_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb, meaning in VERBS.items():
        assert any(line.split(maxsplit=1) == [verb, meaning] for line in lines), verb


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_version_and_the_data_contracts_import_neither_torch_nor_lightning(option: str) -> None:
    code = (
        "import sys, time; from insvie_lightning.cli import main; main(sys.argv[1:]);"
        "print(f'{time.process_time():.2f} s of CPU time');"
        "from insvie_lightning import Clip, EditBatch, Triplet;"
        "print('heavy', sorted({'torch', 'lightning', 'jsonargparse'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=True).stdout
    print(out.splitlines()[-2])
    assert out.splitlines()[-1] == "heavy []"


def test_help_of_a_recipe_is_what_it_says_of_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-c", "build_filter", "-c", "toy", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("build_filter:\n  Score triplets by a judge and by optical flow")
    assert "\n  Command:  insvie predict -c build_filter" in said and "\ntoy:\n  Overlay: " in said
    assert said.endswith(
        "options:\n  insvie predict --model.help FilterTriplets\n  insvie predict --data.help Drafts\n"
        "  insvie predict --help\n"
    )
    assert main(["fit", "-c", "s9", "--help"]) == 2
    (tmp_path / "broken.yaml").write_text("model: [")
    assert main(["fit", "-c", str(tmp_path / "broken.yaml"), "--help"]) == 2


def test_unknown_verb_offers_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "fti") == (
        "no verb 'fti': insvie knows fit, validate, test, predict, build, edit, shards, weights, explain, report, "
        "list, doctor; did you mean 'fit'?"
    )


def test_other_verbs_reach_their_module_with_the_rest_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        cli, "import_module", lambda name: type("M", (), {"main": lambda argv: seen.append((name, argv)) or 7})
    )
    assert main(["shards", "verify", "DIR"]) == 7
    assert seen == [("insvie_lightning.commands.shards", ["verify", "DIR"])]


def test_threads_are_quiet_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "active"})
    main(["nothing"])
    assert os.environ == {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "1000", "TOKENIZERS_PARALLELISM": "false"}


def test_fit_leaves_config_metrics_and_checkpoint_in_the_run_folder_and_reruns(
    recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert main(["fit", "-c", "acme.yaml"]) == 0
    assert "Seed set to 0" in caplog.text
    assert main(["fit", "-c", "acme.yaml", "-c", "trainer: {max_steps: 1}", "--ckpt_path=new"]) == 0
    run = recipe.parent / "runs/acme"
    assert (run / "metrics.csv").read_text().splitlines()[0] == "epoch,loss,step"
    assert "max_steps: 1" in (run / "config.yaml").read_text()
    assert list(run.glob("checkpoints/*.ckpt"))


def test_a_rerun_goes_on_by_itself_until_told_to_start_anew(
    recipe: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fit = ["fit", "-c", "acme.yaml", "--trainer.callbacks=RunCheckpoint"]
    saved = Path("runs/acme/checkpoints").resolve()

    def said(*more: str, status: int = 0) -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO"):
            assert main([*fit, *more]) == status
        return [line for line in caplog.messages if line.startswith(("resum", "start", "Restor"))]

    assert said("--trainer.callbacks+=AcmeTerm", status=143) == []
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        f"stopped: SIGTERM; step 1 is in {saved}/step=1.ckpt; the same command goes on from there"
    )
    anew = "--ckpt_path new starts anew"
    assert said() == [f"resuming at step 1 from runs/acme/checkpoints/step=1.ckpt; {anew}"]
    assert said("--ckpt_path=last") == [f"resuming at step 2 from runs/acme/checkpoints/step=2.ckpt; {anew}"]
    (saved / "step=2.ckpt").write_bytes(b"")
    assert said()[0].startswith("starting anew, because no checkpoint is complete; skipped step=2.ckpt: ")
    assert said("--ckpt_path=new") == [
        "starting anew; the checkpoints of the earlier run are now in runs/acme/checkpoints.1"
    ]
    assert said() == [f"resuming at step 2 from runs/acme/checkpoints/step=2.ckpt; {anew}"]


def test_a_full_disk_is_one_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2**20}))
    said = refused(capsys, "fit", "-c", "acme.yaml", "--trainer.callbacks=RunCheckpoint")
    assert (
        said.startswith("no room for the checkpoint ")
        and "MiB too little; free some and rerun the same command" in said
    )


def test_testing_a_checkpoint_keeps_the_config_of_the_fit_and_the_recipe_decides(recipe: Path) -> None:
    assert main(["fit", "-c", "acme.yaml"]) == 0
    run = recipe.parent / "runs/acme"
    trained = (run / "config.yaml").read_text()
    (checkpoint,) = run.glob("checkpoints/*.ckpt")
    assert main(["test", "-c", "acme.yaml", "--model.width=7", "--ckpt_path", str(checkpoint)]) == 0
    assert (run / "config.yaml").read_text() == trained
    assert "width: 7" in (run / "config.test.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model=AcmeNut"], "model: no class 'AcmeNut' is registered; did you mean 'AcmeNet'?"),
        (["--data=AcmeDate"], "data: no class 'AcmeDate' is registered; did you mean 'AcmeData'?"),
        (["--model.widht=3"], "model: AcmeNet takes no 'widht'; did you mean 'width'?"),
        (["--model.width=wide"], "model.width: expected int, got wide"),
        (["--model.way=dwon"], "model.way: expected one of up, down, got dwon; did you mean 'down'?"),
        (
            ["--model.shape.corner=3"],
            "model: no option 'shape.corner' here; did you mean 'shape.corners'?",
        ),
        (
            ["-c", "model: {class_path: AcmeNet, init_args: {shape: {cornrs: 3}}}"],
            "model: no option 'cornrs' here; did you mean 'corners'?",
        ),
        (["--trainer.max_step=3"], "no option 'trainer.max_step' here; did you mean 'trainer.max_steps'?"),
        (["--trainer.max_steps=many"], "trainer.max_steps: expected int, got many"),
        (["--trainer.max_stepz=3"], "no option 'trainer.max_stepz' here; did you mean 'trainer.max_steps'?"),
        (["-c", "trainer: {max_stepz: 3}"], "no option 'trainer.max_stepz' here; did you mean 'trainer.max_steps'?"),
        (["--seed_everything=x"], "seed_everything: expected bool or int, got x"),
        (["-c", "trainer: null"], "trainer: expected its settings, got null; give some, or leave the key out"),
        (["-c", "model: 3"], "model: Not a valid subclass of LightningModule, got 3"),
        (
            ["-c", "trainer: {callbacks: [{class_path: AcmeMetre}]}"],
            "trainer.callbacks: no class 'AcmeMetre' is registered; did you mean 'AcmeMeter'?",
        ),
        (
            ["-c", "trainer: {callbacks: [{class_path: AcmeMeter, init_args: {scale: big}}]}"],
            "trainer.callbacks.scale: expected float, got big",
        ),
        (["--ckpt_path=gone.ckpt"], "--ckpt_path gone.ckpt: no such file or folder; last, best and new are legal, too"),
        (["--model.fail=input"], "clip 'a' has no frames"),
        (["--data.broken=true"], "shard 'x.tar' is cut short"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    said = refused(capsys, "fit", "-c", str(recipe), *arguments)
    assert said.removeprefix(f"{arguments[-1]}: ") == sentence


def test_unknown_recipe_names_the_shipped_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insvie_lightning.config.config_root", lambda: tmp_path)
    (tmp_path / "toy.yaml").write_text("# Overlay: the toy world.\n")
    assert refused(capsys, "fit", "-c", "toi") == (
        "no recipe 'toi': neither a file here nor one of toy; did you mean 'toy'?"
    )


def test_missing_recipe_and_refused_trainer_arguments_are_bad_input(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "fit").endswith("fit.data, fit.model; give a recipe with -c")
    assert refused(capsys, "fit", "-c", str(recipe), "--trainer.strategy=nope").startswith("trainer: ")


def test_broken_yaml_is_reported_with_its_path(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text("# Broken.\nmodel: [1\n")
    assert refused(capsys, "fit", "-c", str(recipe)).startswith(f"{recipe}: ")


@pytest.mark.parametrize(
    "name", ["os.system", "acme_plugin.os.system", "torch.hub.load", "torch.load", "shutil.rmtree"]
)
def test_a_recipe_cannot_name_a_callable_from_outside(
    recipe: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    recipe.write_text(RECIPE.replace("width: 5", f"rule: {name}"))
    assert refused(capsys, "fit", "-c", str(recipe)).startswith(f"{recipe}: model.rule: a recipe may not name ")


@pytest.mark.parametrize("name", ["torch.numel", "acme_plugin.AcmeMeter.setup"])
def test_a_recipe_may_name_what_torch_and_plugins_bring(recipe: Path, name: str) -> None:
    assert main(["fit", "-c", str(recipe), "-c", f"model: {{init_args: {{rule: {name}}}}}"]) == 0


@pytest.mark.parametrize("how", ["option", "recipe"])
def test_nobody_can_ask_for_checkpoints_to_be_unpickled(
    recipe: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    if how == "recipe":
        recipe.write_text(f"{RECIPE}weights_only: false\n")
    said = refused(capsys, "fit", "-c", str(recipe), *(["--weights_only=false"] if how == "option" else []))
    assert "weights_only" in said


def test_a_checkpoint_with_code_is_not_run(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "x": Code()}, "x.ckpt")
    for verb in ("fit", "test"):
        assert "holds code (posix.system), which is not run" in refused(
            capsys, verb, "-c", str(recipe), "--ckpt_path=x.ckpt"
        )
    assert not Path("hacked").exists()


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def test_every_verb_loads_weights_only(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, dict[str, Any]] = {}

    def noting(verb: str) -> Callable[..., None]:
        kept = inspect.signature(getattr(Trainer, verb))

        def note(self: Trainer, *args: Any, **options: Any) -> None:
            given[verb] = options

        note.__signature__ = kept  # type: ignore[attr-defined]  # the options of the verb are read from it
        return note

    for verb in ("fit", "validate", "test"):
        monkeypatch.setattr(Trainer, verb, noting(verb))
        assert main([verb, "-c", str(recipe)]) == 0
    assert [given[verb]["weights_only"] for verb in given] == [True, True, True]


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "no space left on device"), (errno.EIO, "input/output")])
def test_a_full_or_failing_disk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, said: str
) -> None:
    def fail(verb: str, rest: list[str]) -> int:
        raise OSError(number, os.strerror(number), "/data/x.mp4")

    monkeypatch.setattr(cli, "_run", fail)
    assert refused(capsys, "list").startswith(f"/data/x.mp4: {said}")
    with pytest.raises(FileNotFoundError):  # which is a fault of the program
        monkeypatch.setattr(cli, "_run", lambda verb, rest: Path("nowhere").read_text())
        main(["list"])


def test_ctrl_c_ends_with_130_and_a_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["fit", "-c", str(recipe), "--model.fail=interrupt"]) == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == "stopped: insvie fit was interrupted by Ctrl+C"


def test_the_package_offers_its_public_names_and_no_other() -> None:
    assert insvie_lightning.Triplet is Triplet
    with pytest.raises(AttributeError, match="'insvie_lightning' has no attribute 'Tripplet'"):
        _ = insvie_lightning.Tripplet


def test_a_warning_of_ours_is_a_line_without_code() -> None:
    from insvie_lightning.commands.lightning_cli import _as_a_line

    formatted = _as_a_line({"insvie_data_modules"})
    ours = formatted("1 edit is bad", UserWarning, "/any/insvie_data_modules/edits.py", 92, "warn(1)")
    assert ours == "warning: 1 edit is bad\n"
    assert "/any/torch/nn.py:7" in formatted("old", UserWarning, "/any/torch/nn.py", 7, "warn(1)")


def test_a_null_on_the_command_line_takes_a_recipe_s_value_away() -> None:
    from insvie_lightning.commands.lightning_cli import InsvieCLI

    built = InsvieCLI(["-c", "build_filter", "--model.judge.cache", "null"], run=False)
    assert built.model.judge.cache is None


def test_the_bar_is_as_long_as_the_run_and_ends_before_others_speak() -> None:
    from insvie_lightning.commands.lightning_cli import InsvieCLI
    from insvie_lightning.commands.step_bar import StepBar

    recipe = ["-c", "s1", "-c", "toy"]
    assert isinstance(InsvieCLI(recipe, run=False).trainer.callbacks[0], StepBar)
    assert InsvieCLI([*recipe, "--trainer.enable_progress_bar=false"], run=False).trainer.progress_bar_callback is None


def test_the_strategy_fsdp_is_fsdp2() -> None:
    from insvie_lightning.commands.lightning_cli import InsvieCLI
    from insvie_lightning.fsdp import FullySharded

    for args in (["--trainer.strategy=fsdp"], ["-c", "fsdp"]):
        built = InsvieCLI(["-c", "s1", *args, "--trainer.accelerator=cpu", "--trainer.devices=1"], run=False)
        assert isinstance(built.trainer.strategy, FullySharded)


@pytest.mark.parametrize("name", ["FSDPStrategy", "fsdp_cpu_offload"])
def test_fsdp1_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    option = "strategy" if name.startswith("fsdp") else "strategy.class_path"
    assert main(["fit", "-c", "s1", "-c", "toy", f"--trainer.{option}={name}", "--data.shards=x"]) == 2
    assert "which is FSDP1: it runs on GPUs only" in capsys.readouterr().err
