"""Encode once, train many times: the latents of every triplet as a sibling shard set."""

import json
from pathlib import Path

import pyarrow.compute as pc
import torch
from lightning import LightningModule
from safetensors.torch import save

from insvie_lightning.batch import EditBatch
from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import encode_pixels, to_device_pixels
from insvie_lightning.shards.manifest import finished_keys, open_manifest
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.weights.components import load_vae


class EncodeLatents(LightningModule):
    """Writes `KEY.latents.safetensors` (`source` and `edited`, T C h w, bfloat16) beside each sample's record.

    The latents are the mode of the posterior, times the scaling factor. Used on a `ShardSet` whose `frames`, `size`
    and `resize` are those to train with.

    Args:
        shards: The shard folder that is encoded; its records are carried over.
        output: Shard folder of the latents. Samples that are in it already are not encoded again.
        base: Model whose autoencoder is used: a folder, a hub id, or `toy`.
        shard_size: Samples a shard.
    """

    def __init__(self, shards: Path, output: Path, base: str = "zai-org/CogVideoX-2b", shard_size: int = 512) -> None:
        super().__init__()
        self.shards, self.output, self.base, self.shard_size = shards, output, base, shard_size
        self._writer: ShardWriter | None = None

    def configure_model(self) -> None:
        """Load the autoencoder."""
        if not hasattr(self, "vae"):
            self.vae = load_vae(self.base).eval().requires_grad_(False)

    def on_predict_start(self) -> None:
        """Read the records; open the shard folder."""
        if self.trainer.world_size > 1:
            raise InputError("latents are written by one process: set --trainer.devices=1")
        self._rows = open_manifest(self.shards).query()
        self._writer = ShardWriter(self.output, shard_size=self.shard_size)
        self._done = finished_keys(self.output)

    def predict_step(self, batch: EditBatch, batch_idx: int) -> None:
        """Encode both clips of the samples that are not done."""
        assert self._writer is not None and batch.source is not None and batch.edited is not None
        todo = [i for i, key in enumerate(batch.keys) if key not in self._done]
        if not todo:
            return
        pixels = to_device_pixels(torch.cat([batch.source[todo], batch.edited[todo]]))
        latents = encode_pixels(self.vae, pixels).to("cpu", torch.bfloat16)
        for place, i in enumerate(todo):
            row = self._rows.slice(pc.index(self._rows["key"], batch.keys[i]).as_py(), 1).to_pylist()[0]
            tensors = {"source": latents[place].contiguous(), "edited": latents[len(todo) + place].contiguous()}
            made = {"base": self.base, "dtype": "bfloat16", "size": list(pixels.shape[-2:])}
            record = {**row, "lineage": {**json.loads(row["lineage"]), "latents": made}}
            self._writer.write_members(record, {"latents.safetensors": save(tensors)})

    def on_predict_end(self) -> None:
        """Finish the last shard."""
        assert self._writer is not None
        self._writer.close()
