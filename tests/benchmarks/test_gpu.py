"""The programme for a GPU, on a CPU: boxes of time, parts that fail, readings, goals, and what is written."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SMI = """#!/bin/sh
echo "$@" >> "{folder}/asked"
echo "1980, 3201, 612.5, 55, 99"
echo "1755, 3201, [N/A], 57, 98"
echo "1800, 3201, 690.0, 57, 98"
exec sleep 60
"""


@pytest.fixture(scope="module")
def gpu(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("gpu")


def parts_of(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, box_seconds: float, **runs: Callable[..., Any]) -> None:
    parts = {name: gpu.Part(box_seconds, run, lambda found: [f"  {found}"]) for name, run in runs.items()}
    monkeypatch.setattr(gpu, "PARTS", parts)


def test_a_part_that_fails_or_hangs_is_told_and_the_others_go_on(
    gpu: ModuleType, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no kernel\nimage")

    def hang(*_: Any) -> None:
        time.sleep(30)

    monkeypatch.setattr(gpu, "GRACE_SECONDS", 0.1)
    parts_of(gpu, monkeypatch, 0.6, fails=fail, hangs=hang, works=lambda *_: {"told": 1})
    results = gpu.run(tiny, tmp_path, ["fails", "hangs", "works"], gpu.PLANNED_SECONDS)
    assert results["fails"] == {"failed": "RuntimeError: no kernel"}
    assert results["hangs"] == {"failed": "TimeoutError: the time of this part is over"}
    assert results["works"] == {"told": 1}
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == results and "no kernel" in (tmp_path / "results.txt").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.txt"]


def test_what_no_time_is_left_for_is_told(
    gpu: ModuleType, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def slow(*_: Any) -> dict[str, int]:
        time.sleep(1.1)
        return {}

    parts_of(gpu, monkeypatch, 0.6, slow=slow, late=slow)
    results = gpu.run(tiny, tmp_path, ["slow", "late"], gpu.PLANNED_SECONDS)
    assert results["slow"] == {} and results["late"] == {"failed": "no time was left"}


def test_a_run_that_is_cut_off_leaves_what_it_has(
    gpu: ModuleType, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts_of(gpu, monkeypatch, 100.0, one=lambda *_: {"told": 1}, cut=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        gpu.run(tiny, tmp_path, ["one", "cut"], gpu.PLANNED_SECONDS)
    assert json.loads((tmp_path / "results.json").read_text())["one"] == {"told": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.txt"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_mfu_is_of_the_data_sheet_until_the_peak_is_measured(
    gpu: ModuleType, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[float | None] = []
    note = lambda setting, _: asked.append(setting.peak_tflops) or {}  # noqa: E731
    found = iter([{}, {"product 8 x 8 x 8, TFLOP/s": 790.0}])
    parts_of(gpu, monkeypatch, 100.0, calibrate=lambda *_: next(found), edit=note)
    for names in (["edit"], ["calibrate", "edit"], ["calibrate", "edit"]):
        gpu.run(replace(tiny, peak_tflops=989.0), tmp_path, names, gpu.PLANNED_SECONDS)
    assert asked == [989.0, 989.0, 790.0]


def test_readings_are_read_and_nothing_else_is_asked(
    gpu: ModuleType, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    parts_of(gpu, monkeypatch, 100.0, one=lambda *_: time.sleep(0.5) or {}, two=lambda *_: {})
    results = gpu.run(tiny, tmp_path / "out", ["one", "two"], gpu.PLANNED_SECONDS)
    assert results["sensors"]["one"]["clocks.sm"] == [1800, 1890, 1980]
    assert results["sensors"]["one"]["power.draw"] == [612.5, 651.25, 690.0]
    assert results["sensors"]["two"] == {}
    assert "power.draw: 612.5 to 690, median 651.25" in (tmp_path / "out/results.txt").read_text()
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert all(option.startswith(("--query-gpu=", "--format=", "--loop-ms=", "--id=")) for option in asked.split())


def test_goals_stand_where_results_are_written(gpu: ModuleType) -> None:
    results: dict[str, Any] = {}
    for number, (keys, _, limit) in enumerate(gpu.GOALS.values()):
        place = results
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = limit if number else 10 * limit
    told = gpu.goals(results)
    assert [goal["met"] for goal in told.values()] == [False] + [True] * (len(gpu.GOALS) - 1)
    del results["vae"]
    assert len(gpu.goals(results)) == len(gpu.GOALS) - 2
    assert {keys[0] for keys, _, _ in gpu.GOALS.values()} <= set(gpu.PARTS)


def test_calibration_and_autoencoder_of_the_command(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--tiny", "--output", str(tmp_path), "--parts", "vae", "calibrate"]
    assert gpu.main(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    found = results["calibrate"]
    assert len(found) == 11 and not any(str(value).startswith(("failed", "not reached")) for value in found.values())
    assert gpu.best_product(found) == max(value for name, value in found.items() if name.startswith("product"))
    assert results["goals"] == {} and "goals" not in capsys.readouterr().out
    assert gpu.main([*arguments, "--seconds", "0.001"]) == 1


def test_a_measure_that_fails_does_not_end_the_calibration(
    gpu: ModuleType, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("not on this device")

    monkeypatch.setattr(torch, "_scaled_mm", fail)
    found = gpu.calibrate(tiny, float("inf"))
    assert [name for name, value in found.items() if value == "failed: not on this device"] == [
        "fp8 product 90 x 64 x 256, TFLOP/s"
    ]
    assert gpu.best_product({}) is None
    late = gpu.calibrate(tiny, 0.0)
    assert list(late.values()).count("not reached in time") == 10


def test_the_boxes_of_the_default_parts_fit_into_nine_minutes(gpu: ModuleType) -> None:
    boxes = [part.seconds for part in gpu.PARTS.values()]
    assert sum(boxes[:-2]) <= gpu.PLANNED_SECONDS and gpu.PLANNED_SECONDS + gpu.GRACE_SECONDS < 540


@pytest.mark.proof
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_whole_programme_runs_and_imports_no_more_than_it_says(gpu: ModuleType, tmp_path: Path, dtype: str) -> None:
    code = (
        "import sys, gpu; status = gpu.main(sys.argv[1:])\n"
        "told = {'duckdb', 'pyarrow', 'webdataset', 'open_clip', 'cv2', 'jsonargparse', 'decord', 'timm'}\n"
        "assert not told & set(sys.modules), told & set(sys.modules)\n"
        "sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "--tiny", "--dtype", dtype, "--output", str(tmp_path), "--seconds", "3000"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
    bounds = (1e-5, 1e-5) if dtype == "float32" else (1e-2, 1e-2)  # so few values do not average rounding out
    assert results.keys() >= gpu.PARTS.keys()
    for part in gpu.PARTS.keys() - {"calibrate"}:
        assert not any("failed" in told for told in results[part]["ways"].values()), part
    for part in ("train", "train long"):
        for told in results[part]["guards"].values():
            assert told["loss"] < bounds[0] and told["gradient_cosine"] > 0.995
    assert results["edit"]["whole"].keys() == {"ours", "stock"}
    for part in ("edit", "edit fast", "edit long"):
        for told in results[part]["guards"].values():
            assert told["first_step"] < bounds[1] and told["pixels_cosine"] > 0.999
