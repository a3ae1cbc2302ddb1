"""Readers fed with mutations of good bytes: whatever comes, they return, or raise InputError."""

import io
import json
import os
import random
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insvie_lightning.batch import Clip
from insvie_lightning.config import check_recipe
from insvie_lightning.edit_list import list_edits
from insvie_lightning.errors import InputError
from insvie_lightning.quarantine import read_quarantine
from insvie_lightning.shards.archives import list_videos, unzip_member
from insvie_lightning.shards.drafts import decode_png, encode_png
from insvie_lightning.shards.layouts import find_table, read_layout
from insvie_lightning.shards.manifest import read_part
from insvie_lightning.shards.write import ShardWriter, list_tar
from insvie_lightning.video import encode_clip, read_clip
from insvie_lightning.weights.sat_checkpoint import read_tensors

TOKENS = (
    b"\0",
    b"\xff",
    b'"',
    b",",
    b"\n",
    b"{",
    b"[",
    b"..",
    b"/",
    b"-1",
    b"1e999",
    b"NaN",
    b"\xed\xa0\x80",
    b"%s",
    b"&a",
)
SECONDS = 10.0


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to eight edits: bytes flipped, cut out, repeated, overwritten, or a token that grammars care about."""
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at, length = chance.randrange(len(spoilt) + 1), chance.randint(1, max(1, len(data) // 8))
        match chance.randrange(6):
            case 0 if at < len(spoilt):
                spoilt[at] ^= 1 << chance.randrange(8)
            case 1:
                del spoilt[at : at + length]
            case 2:
                spoilt[at:at] = spoilt[at : at + length]
            case 3:
                spoilt[at : at + length] = chance.randbytes(min(length, len(spoilt) - at))
            case 4:
                spoilt[at:at] = chance.choice(TOKENS)
            case _:
                spoilt[at : at + 8] = chance.choice((0, 1, 2**31 - 1, 2**32, 2**63, 2**64 - 1)).to_bytes(
                    8, chance.choice(("little", "big"))
                )
    return bytes(spoilt)


def clip() -> Clip:
    return Clip(np.random.default_rng(0).integers(0, 255, (3, 3, 16, 16), np.uint8), 8.0)


def table() -> bytes:
    return b'video,instruct\na.mp4,"make it red, please"\nb.mp4,blue\n'


def layout(path: Path) -> None:
    for entry in read_layout(path):
        assert entry.key
    assert find_table(path) == path


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.mp4", "x/b.mp4"):
            archive.writestr(name, name.encode() * 50)
    return file.getvalue()


def unzipped(path: Path) -> None:
    broken: dict[str, str] = {}
    data = path.read_bytes()

    def read(size: int, offset: int) -> bytes:
        if not 0 <= offset <= offset + size <= len(data):
            raise InputError("cut")  # as `read_member` does
        return data[offset : offset + size]

    for batch in list_videos(path.with_suffix(""), path.parent, broken):
        for row in batch.to_pylist():
            unzip_member(read, row["offset"], row["size"], "zip")
    assert all(broken.values())


def packed() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a.source.mp4", "a.json"):
            info = tarfile.TarInfo(name)
            info.size = 700
            tar.addfile(info, io.BytesIO(bytes(700)))
    return file.getvalue()


def part(folder: Path) -> bytes:
    with ShardWriter(folder, shard_size=2) as writer:
        for key in "ab":
            writer.reject(key, "too dark", instruction="make it red")
    return (folder / "shard-000000.parquet").read_bytes()


def tensors() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, {"iteration": "3"})


def checkpoint() -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({"module": {"a": torch.ones(3)}, "iteration": 3}, file)
    return file.getvalue()


Good = Callable[[Path], bytes]
Read = Callable[[Path], Any]
READERS: dict[str, tuple[str, Good, Read]] = {
    "video": ("x.mp4", lambda folder: encode_clip(clip()), read_clip),
    "picture": ("x.png", lambda folder: encode_png(clip().frames[0]), lambda path: decode_png(path.read_bytes(), "x")),
    "table of edits": ("x.csv", lambda folder: table(), list_edits),
    "table of a data set": ("x.csv", lambda folder: table(), layout),
    "zip": ("x.zip", lambda folder: zipped(), unzipped),
    "tar": ("x.tar", lambda folder: packed(), list_tar),
    "manifest": ("x.parquet", part, read_part),
    "safetensors": ("x.safetensors", lambda folder: tensors(), read_tensors),
    "checkpoint": ("x.pt", lambda folder: checkpoint(), read_tensors),
    "recipe": ("x.yaml", lambda folder: b"model: &m\n  class_path: X\n  init_args: {a: [1, 2]}\nb: *m\n", check_recipe),
    "quarantine": ("x.jsonl", lambda folder: json.dumps({"key": "a", "reason": "b"}).encode() + b"\n", read_quarantine),
}  # fmt: skip


def fuzz(reader: str, folder: Path, inputs: int, seed: int = 0) -> tuple[int, float]:
    """Feed a reader with mutations; return how many it refused, and its slowest answer in seconds."""
    name, good, read = READERS[reader]
    path, data = folder / name, good(folder / "good")
    path.write_bytes(data)
    read(path)
    chance, refused, slowest = random.Random(f"{seed} {reader}"), 0, 0.0
    for number in range(inputs):
        path.write_bytes(mutate(data, chance))
        start = time.monotonic()
        try:
            read(path)
        except InputError as error:
            assert str(error)
            refused += 1
        except Exception as error:
            raise AssertionError(f"{reader}, seed {seed}, input {number}: {error!r}") from error
        slowest = max(slowest, time.monotonic() - start)
    return refused, slowest


@pytest.mark.parametrize("reader", READERS)
def test_a_few_mutations(reader: str, tmp_path: Path) -> None:
    refused, slowest = fuzz(reader, tmp_path, 25)
    assert slowest < SECONDS
    assert refused or reader in ("tar", "quarantine"), "which give what is before the damage"


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("reader", READERS)
def test_many_mutations(reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`INSVIE_FUZZ` says how many (2000) and `INSVIE_FUZZ_SEED` which (0)."""
    inputs, seed = int(os.environ.get("INSVIE_FUZZ", "2000")), int(os.environ.get("INSVIE_FUZZ_SEED", "0"))
    refused, slowest = fuzz(reader, tmp_path, inputs, seed)
    with capsys.disabled():
        print(f"\n| {reader} | {inputs} | {refused} | {slowest:.2f} s |")
    assert slowest < SECONDS
