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
    from insvie_lightning.commands.lightning_cli import InsvieCLI

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

    def insvie(line: str, log: Path) -> float:
        arguments = line.split()
        ran.append(arguments)
        if arguments[0] == "test":
            folder = Path(arguments[arguments.index("--trainer.default_root_dir") + 1])
            seed = int(arguments[arguments.index("--model.seed") + 1])
            worse = 0.25 * (seed + 1) if "no_judge" in folder.parts else 0.0
            folder.mkdir(parents=True)
            scores = {"recolour_accuracy": 1 - worse, "removal_accuracy": 0.5 + worse, "psnr_db": 20.0 + seed, "x": 1}
            (folder / "summary.json").write_text(json.dumps(scores))
        return 1800.0

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
    assert verbs == ["predict", "predict", *["fit", "fit", "fit", "test"] * 4]
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "| full | 2 | 1.000 +- 0.000 | 0.500 +- 0.000 | 20.500 +- 0.707 |" in lines
    judged = next(line for line in lines if line.startswith("| no_judge"))
    assert judged == (
        "| no_judge | 2 | -0.375 +- 0.177, 2 of 2 worse | +0.375 +- 0.177, 0 of 2 worse | "
        "+0.000 +- 0.000, 0 of 2 worse |"
    )
    assert any("4 runs, 8.0 h" in line and "steps_scale 0.05" in line for line in lines)


def test_a_rerun_makes_only_what_has_no_result(
    start: Callable[..., int], commands: list[list[str]], tmp_path: Path
) -> None:
    assert start() == 0
    before = (tmp_path / "table.md").read_text().splitlines()
    made = tmp_path / "runs/results.jsonl"
    kept = [line for line in made.read_text().splitlines() if '"no_judge", "seed": 1' not in line]
    made.write_text("".join(f"{line}\n" for line in kept))
    shutil.rmtree(tmp_path / "runs/no_judge/seed-1")
    (last,) = commands[-2:-1]
    shutil.rmtree(Path(last[last.index("--trainer.default_root_dir") + 1]).parent)
    commands.clear()
    assert start() == 0
    assert [arguments[0] for arguments in commands] == ["predict", "predict", "fit", "test"]
    assert commands[2] == last and last[last.index("--data.seed") + 1] == "1"
    after = (tmp_path / "table.md").read_text().splitlines()
    assert [line for line in after if " runs, " not in line] == [line for line in before if " runs, " not in line]
    with pytest.raises(InputError, match="choose another --results"):
        start("--steps-scale", "0.1")


def test_another_machine_goes_on_from_the_results_alone(
    start: Callable[..., int], commands: list[list[str]], tmp_path: Path
) -> None:
    results = ("--results", str(tmp_path / "kept.jsonl"))
    assert start(*results, "--seeds", "1") == 0
    shutil.rmtree(tmp_path / "runs")
    commands.clear()
    assert start(*results) == 0
    assert [line[line.index("--data.seed") + 1] for line in commands if line[0] == "fit"] == ["1"] * 6
    assert "| full | 2 |" in (tmp_path / "table.md").read_text()
    commands.clear()
    shutil.rmtree(tmp_path / "runs")
    assert start(*results) == 0 and not commands


def test_a_run_that_fails_is_told_and_the_others_are_made(
    ablations: ModuleType, start: Callable[..., int], commands: list[list[str]], tmp_path: Path, monkeypatch: Any
) -> None:
    good = ablations._insvie

    def insvie(line: str, log: Path) -> float:
        if "no_judge" in line:
            raise RuntimeError("insvie test ended with status 1")
        seconds: float = good(line, log)
        return seconds

    monkeypatch.setattr(ablations, "_insvie", insvie)
    assert start() == 1
    text = (tmp_path / "table.md").read_text()
    assert "- no_judge, seed 0: insvie test ended with status 1" in text and "- no_judge, seed 1" in text
    assert "| full | 2 |" in text and "| no_judge" not in text


def test_a_run_is_trained_stage_by_stage_and_what_is_shared_once(
    ablations: ModuleType, commands: list[list[str]], tmp_path: Path
) -> None:
    settings, names = ablations.Settings(), list(ablations.OVERLAYS)
    weights = {name: ablations.train(ablations.stages_of(name), 0, settings, tmp_path)[0] for name in names}
    assert len(set(weights.values())) == len(names)
    # s1 of all but stage_1 and the two without a filter, s2 of all but those three and stages_1_2, and each one's last.
    assert len(commands) == 1 + 1 + 5 + 1 + 1 + 3 + 3

    def chain(path: Path) -> list[dict[str, Any]]:
        """The recipes that led to some weights."""
        (made,) = (line for line in commands if str(path.parent) in line)
        before = made[made.index("--model.start_from") + 1] if "--model.start_from" in made else None
        own = yaml.safe_load((path.parents[1] / "stage.yaml").read_text())
        return [*(chain(Path(before)) if before else []), own]

    for name, path in weights.items():
        weight = overlay("full" if name == "no_lpips" else name)["model"]["init_args"]["lpips_weight"]
        expected = stages("full" if name == "no_lpips" else name)
        for stage, (query, read) in enumerate(zip(expected.items(), chain(path), strict=True)):
            lpips = 0.0 if name == "no_lpips" else weight[stage] if isinstance(weight, list) else weight
            assert read["model"]["init_args"] == {"lpips_weight": lpips}
            shards = tmp_path / "latents"
            whole = {"name": query[0], "static_to_real": None, **query[1]}
            assert read["data"]["init_args"] == {"shards": str(shards), "stages": [whole]}


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
    fits = sorted((tmp_path / "runs/stages").glob("*/fit/summary.json"))
    assert [json.loads(fit.read_text())["steps"] for fit in fits] == [2, 2, 2, 2, 4, 4]
