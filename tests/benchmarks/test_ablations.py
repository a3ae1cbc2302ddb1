"""The ablations: what each overlay leaves out, what a run is made of, and what the table says."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from insvie_lightning.config import config_root
from insvie_lightning.errors import InputError

FILE = Path(__file__).resolve().parents[2] / "benchmarks/ablations.py"
CLAUSES = {"s1": "judge >= 3 and epe_px <= 2", "s2": "judge >= 4 and epe_px <= 1", "s3": "judge >= 4 and epe_px <= 1"}
STEPS = {"s1": 20_000, "s2": 10_000, "s3": 10_000}


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablations", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def overlay(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((config_root() / f"ablations/{name}.yaml").read_text())
    return read


def stages(name: str) -> dict[str, dict[str, Any]]:
    return {stage.pop("name"): stage for stage in overlay(name)["data"]["init_args"]["stages"]}


# ---------------------------------------------------------------- the overlays


def test_every_overlay_is_run(ablations: ModuleType) -> None:
    files = {path.stem for path in (config_root() / "ablations").glob("*.yaml")}
    assert {overlay for overlays in ablations.OVERLAYS.values() for overlay in overlays} == files


def test_each_overlay_leaves_out_what_its_name_says_and_nothing_else() -> None:
    full = {name: {"steps": STEPS[name], "where": CLAUSES[name]} for name in STEPS}
    full["s3"]["static_to_real"] = "5:1"
    assert stages("full") == full
    for name, kept in (("no_judge", 1), ("no_flow", 0)):
        clauses = {stage: CLAUSES[stage].split(" and ")[kept] for stage in STEPS}
        assert stages(name) == {stage: {**query, "where": clauses[stage]} for stage, query in full.items()}
    for name, ratio in (("ratio_0_1", "0:1"), ("ratio_05_1", "1:2"), ("ratio_1_1", "1:1")):
        assert stages(name) == {**full, "s3": {**full["s3"], "static_to_real": ratio}}
    assert stages("stage_1") == {"s1": {**full["s1"], "steps": 40_000}}
    assert stages("stages_1_2") == {"s1": full["s1"], "s2": {**full["s2"], "steps": 20_000}}
    assert overlay("no_lpips") == {"model": {"init_args": {"lpips_weight": 0.0}}}
    for name in ("full", "no_judge", "no_flow", "ratio_0_1", "ratio_05_1", "ratio_1_1"):
        assert overlay(name)["model"] == {"init_args": {"lpips_weight": [0, 0, 0.5]}}


@pytest.mark.parametrize("recipe", ["curriculum", "s1", "s2", "s3"])
def test_an_overlay_means_the_same_after_every_recipe(recipe: str, tmp_path: Path, monkeypatch: Any) -> None:
    from insvie_lightning.lightning_cli import InsvieCLI

    monkeypatch.chdir(tmp_path)
    after = ["-c", "toy", "-c", "ablations/no_flow", "--data.steps_scale=0.001", "--trainer.max_steps=-1"]
    built = InsvieCLI(["-c", recipe, *after, "--data.shards=x", f"--trainer.default_root_dir={tmp_path}"], run=False)
    found = [(stage.name, stage.steps, stage.where, stage.static_to_real) for stage in built.datamodule.stages]
    assert found == [("s1", 20, "judge >= 3", None), ("s2", 10, "judge >= 4", None), ("s3", 10, "judge >= 4", "5:1")]
    assert built.model.lpips_weights == [0, 0, 0.5]


# ---------------------------------------------------------------- the runner


@pytest.fixture
def commands(ablations: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were run, in their order; a test leaves scores that tell its recipe and seed."""
    ran: list[list[str]] = []

    def insvie(line: str, log: Path) -> None:
        arguments = line.split()
        ran.append(arguments)
        if arguments[0] == "test":
            folder = Path(arguments[arguments.index("--trainer.default_root_dir") + 1])
            seed = int(arguments[arguments.index("--model.seed") + 1])
            worse = 0.25 * (seed + 1) if "no_judge" in folder.parts else 0.0
            folder.mkdir(parents=True)
            scores = {"recolour_accuracy": 1 - worse, "removal_accuracy": 0.5 + worse, "psnr_db": 20.0 + seed, "x": 1}
            (folder / "summary.json").write_text(json.dumps(scores))

    monkeypatch.setattr(ablations, "_insvie", insvie)
    return ran


@pytest.fixture
def start(ablations: ModuleType, tmp_path: Path) -> Callable[..., int]:
    def run(*options: str) -> int:
        paths = ["--folder", str(tmp_path / "runs"), "--output", str(tmp_path / "table.md")]
        status: int = ablations.main([*paths, "--seeds", "2", "--jobs", "1", "--only", "no_judge", *options])
        return status

    return run


def test_the_table_has_differences_at_the_same_seed(
    start: Callable[..., int], commands: list[list[str]], tmp_path: Path
) -> None:
    assert start() == 0
    verbs = [arguments[0] for arguments in commands]
    assert verbs == ["predict", "predict", *["fit", "test"] * 4]
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "| full | 2 | 1.000 +- 0.000 | 0.500 +- 0.000 | 20.500 +- 0.707 |" in lines
    judged = next(line for line in lines if line.startswith("| no_judge"))
    assert judged == (
        "| no_judge | 2 | -0.375 +- 0.177, 2 of 2 worse | +0.375 +- 0.177, 0 of 2 worse | "
        "+0.000 +- 0.000, 0 of 2 worse |"
    )
    assert any("4 runs" in line and "steps_scale 0.05" in line for line in lines)


def test_a_rerun_makes_only_what_has_no_result(
    start: Callable[..., int], commands: list[list[str]], tmp_path: Path
) -> None:
    assert start() == 0
    before = (tmp_path / "table.md").read_text()
    shutil.rmtree(tmp_path / "runs/no_judge/seed-1")
    commands.clear()
    assert start() == 0
    assert [arguments[0] for arguments in commands] == ["predict", "predict", "fit", "test"]
    assert "ablations/no_judge" in commands[2] and commands[2][commands[2].index("--data.seed") + 1] == "1"
    assert (tmp_path / "table.md").read_text() == before
    with pytest.raises(InputError, match="choose another --folder"):
        start("--steps-scale", "0.1")


def test_a_run_that_fails_is_told_and_the_others_are_made(
    ablations: ModuleType, start: Callable[..., int], commands: list[list[str]], tmp_path: Path, monkeypatch: Any
) -> None:
    good = ablations._insvie

    def insvie(line: str, log: Path) -> None:
        if "no_judge" in line:
            raise RuntimeError("insvie fit ended with status 1")
        good(line, log)

    monkeypatch.setattr(ablations, "_insvie", insvie)
    assert start() == 1
    text = (tmp_path / "table.md").read_text()
    assert "- no_judge, seed 0: insvie fit ended with status 1" in text and "- no_judge, seed 1" in text
    assert "| full | 2 |" in text and "| no_judge" not in text


def test_only_stages_that_compare_pixels_are_fed_with_them(ablations: ModuleType) -> None:
    def fed(name: str) -> dict[str, str]:
        stages = ablations.feed(name, Path("runs"))["data"]["init_args"]["stages"]
        return {stage["name"]: stage["shards"] for stage in stages}

    assert fed("full") == {"s1": "runs/latents", "s2": "runs/latents", "s3": "runs/data"}
    assert fed("no_lpips") == dict.fromkeys(STEPS, "runs/latents")
    assert fed("stage_1") == {"s1": "runs/latents"}
    for name in ablations.OVERLAYS:
        for stage in ablations.feed(name, Path("runs"))["data"]["init_args"]["stages"]:
            read = stages("full" if name == "no_lpips" else name)[stage.pop("name")]
            assert {**read, "shards": stage["shards"]} == stage


def test_a_command_that_fails_names_its_log(ablations: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"insvie fitt ended with status 2; see .*x\.log"):
        ablations._insvie("fitt -c s1", tmp_path / "x.log")
    assert "fitt" in (tmp_path / "x.log").read_text()


def test_an_ablation_that_does_not_exist(ablations: ModuleType) -> None:
    with pytest.raises(InputError, match=r"no ablation 'no_juge'; .* did you mean 'no_judge'"):
        ablations.main(["--only", "no_juge"])


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_two_runs_of_a_few_steps(ablations: ModuleType, tmp_path: Path) -> None:
    paths = ["--folder", str(tmp_path / "runs"), "--output", str(tmp_path / "table.md")]
    tiny = ["--steps-scale", "0.0002", "--samples", "128", "--test-samples", "4", "--batch-size", "4"]
    assert ablations.main([*paths, *tiny, "--seeds", "1", "--only", "no_judge"]) == 0
    text = (tmp_path / "table.md").read_text()
    assert "| full | 1 |" in text and "| no_judge | 1 |" in text
    fits = [tmp_path / f"runs/{name}/seed-0/fit/summary.json" for name in ("full", "no_judge")]
    assert [json.loads(fit.read_text())["steps"] for fit in fits] == [8, 8]
