"""Whether a long training slows down or grows: the toy model on cached latents, through Lightning and its callbacks.

Command:  python benchmarks/steady.py [--steps 2000]
Hardware: any CPU; two minutes.
Result:   milliseconds of a step early and late, their ratio, resident memory early and late, and a line of JSON. Time
          is the process's, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, Trainer

from insvie_callbacks import LoraEMA, Throughput
from insvie_data_modules import Curriculum, Stage
from insvie_lightning.editors import InsViE
from insvie_lightning.nets.latents import encode_pixels, to_device_pixels
from insvie_lightning.shards.latents import LATENTS, LatentRecipe, pack_latents
from insvie_lightning.shards.record import describe
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.weights.components import hash_encoder, load_vae


def steady(steps: int, batch: int = 2) -> dict[str, Any]:
    """Train the toy model on cached latents through Lightning; step times and memory at the start and at the end.

    Returns:
        Median milliseconds (of the process, not of the wall) of a step of the second tenth of the run and of the last,
        their ratio, and the resident memory after a tenth and at the end, in MB.
    """

    class Pace(Callback):
        """Notes the time and the memory after every step."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.memory_mb: list[float] = []
            self.process = psutil.Process()

        def on_train_batch_end(self, *_: Any) -> None:
            self.seconds.append(time.process_time())
            self.memory_mb.append(self.process.memory_info().rss / 2**20)

    pace = Pace()
    with TemporaryDirectory() as temporary:
        write_cached(Path(temporary) / "data", 32)
        data = Curriculum(Path(temporary) / "data", [Stage("s1", steps)], batch_size=batch, frames=9, size=(64, 96))
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, callbacks=[pace, LoraEMA(), Throughput()], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=temporary, gradient_clip_val=1.0,
        )  # fmt: skip
        trainer.fit(InsViE("toy", trainable="all"), data)
    tenth = max(2, steps // 10)
    laps = [after - before for before, after in zip(pace.seconds, pace.seconds[1:], strict=False)]
    early, late = (1000 * torch.tensor(part).median().item() for part in (laps[tenth : 2 * tenth], laps[-tenth:]))
    return {
        "benchmark": "steady", "steps": len(pace.seconds), "early_ms": round(early, 2), "late_ms": round(late, 2),
        "ratio": round(late / early, 3), "memory_mb": [round(pace.memory_mb[tenth], 1), round(pace.memory_mb[-1], 1)],
    }  # fmt: skip


def write_cached(folder: Path, count: int) -> None:
    """Toy samples of 9 frames of 64 x 96, as shards of the latents of the toy autoencoder."""
    vae, recipe = load_vae("toy"), LatentRecipe(hash_encoder("toy"), 9, (64, 96), "cover", "bfloat16")
    with ShardWriter(folder, shard_size=32) as writer, torch.no_grad():
        for number in range(count):
            triplet = to_triplet(example("train", number), frames=9, height=64, width=96)
            clips = {"source": triplet.source, "edited": triplet.edited}
            pixels = {side: to_device_pixels(torch.from_numpy(clip.frames)[None]) for side, clip in clips.items()}
            latents = {side: encode_pixels(vae, value)[0] for side, value in pixels.items()}
            writer.write_members(describe(triplet), {LATENTS: pack_latents(latents, recipe)})


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="default 2000")
    torch.set_num_threads(1)
    result = steady(parser.parse_args().steps)
    print("\n".join(f"{name}: {value}" for name, value in result.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
