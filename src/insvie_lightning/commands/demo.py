"""The whole chain at toy scale: build, train three stages, test, edit, report. Run by `make demo`."""

import json
import os
import shlex
import time
from pathlib import Path

from insvie_lightning.cli import main as insvie
from insvie_lightning.toy.edits import example, indices, to_triplet
from insvie_lightning.video import write_clip

ROOT = Path("runs/demo")
SAMPLES = 8192
STEPS = {"s1": 3000, "s2": 4000, "s3": 150}
UNTRAINED = "before"  # sorts before the stages and the test, in whose order the page shows them
SCORES = ("recolour_accuracy", "removal_accuracy", "psnr_db")


def main() -> None:
    """Run every step of the chain, in one process so that the libraries are imported once."""
    start = time.monotonic()
    data, latents = ROOT / "data", ROOT / "latents"
    _run(f"predict -c build_toy --model.output {data} --data.samples {SAMPLES}")
    _run(f"shards verify {data}")
    _run(f"shards stats {data}")
    _run(
        f"predict -c build_latents --model.base toy --data.shards {data} --model.output {latents} --model.frames 9 "
        "--model.size [64,96] --model.posterior mean --model.measure_noise false --model.keep_edited true "
        "--data.batch_size 64 --data.num_workers 0 --trainer.accelerator cpu --trainer.devices 1 "
        "--trainer.precision 32-true"
    )
    before = None
    for stage, steps in STEPS.items():
        carry = f"--model.start_from {before}" if before else ""
        _run(f"fit -c {stage} -c toy --data.shards {latents} --trainer.max_steps {steps} {_folder(stage)} {carry}")
        before = ROOT / stage / "weights"
    _run(f"test -c test_toy --model.start_from {before} {_folder('test')}")
    callbacks = "[{class_path: ToyScores, init_args: {baselines: false}}, EditSamples, Summary]"
    _run(f"test -c test_toy --trainer.callbacks {shlex.quote(callbacks)} {_folder(UNTRAINED)}")
    _edit(before)
    _summarise(time.monotonic() - start)
    _run(f"report {ROOT}")
    print(f"\nOpen {ROOT}/report.html")


def _folder(name: str) -> str:
    folder = ROOT / name
    return f"--trainer.default_root_dir {folder} --trainer.logger.init_args.save_dir {folder}"


def _run(arguments: str) -> None:
    print(f"\n$ insvie {' '.join(arguments.split())}", flush=True)
    status = insvie(shlex.split(arguments))
    if status:
        raise SystemExit(status)


def _edit(weights: Path | None) -> None:
    """Edit one held-out scene through the command line, as a user would."""
    sample = example("test", indices("test", 1, ("recolour",), ("real",))[0])
    source = ROOT / "edit" / "source.mp4"
    source.parent.mkdir(parents=True, exist_ok=True)
    write_clip(source, to_triplet(sample).source, crf=4)
    _run(
        f"edit --weights {weights} --video {source} --instruction {shlex.quote(sample.instruction)} "
        f"--output {ROOT / 'edit' / 'edited.mp4'}"
    )


def _summarise(seconds: float) -> None:
    """Collect the scores of the trained editor, its baselines and the untrained editor."""
    trained = json.loads((ROOT / "test" / "summary.json").read_text())
    untrained = json.loads((ROOT / UNTRAINED / "summary.json").read_text())
    scores = {name: value for name, value in trained.items() if name.endswith(SCORES)}
    scores |= {f"untrained_{name}": untrained[name] for name in SCORES}
    scores["seconds"] = round(seconds, 1)
    part = ROOT / ".summary.json.part"
    part.write_text(json.dumps(scores, indent=2) + "\n")
    os.replace(part, ROOT / "summary.json")
    width = max(map(len, scores))
    print("\n" + "\n".join(f"{name:{width}}  {value:.3f}" for name, value in scores.items()))


if __name__ == "__main__":
    main()
