import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import decode_triplet, iterate_samples, read_member


def members_of(folder: Path, key: str) -> dict[str, dict[str, int]]:
    row = open_manifest(folder).query(f"key = '{key}'").to_pylist()[0]
    return {member["name"]: member for member in row["members"]}


def test_triplet_comes_back_exactly(dataset: Path, make_triplet: Callable[..., Triplet]) -> None:
    row = open_manifest(dataset).query("key = 's3'").to_pylist()[0]
    data = {
        member["name"]: read_member(dataset / row["shard"], member["offset"], member["size"])
        for member in row["members"]
    }
    scores = {"judge": 4.0, "epe_px": 0.5}
    expected = make_triplet("s3", origin="static", scores=scores, lineage={"seed": 3})
    for record in (row, json.loads(data["json"])):
        triplet = decode_triplet(record, data["source.mp4"], data["edited.mp4"])
        np.testing.assert_array_equal(triplet.source.frames, expected.source.frames)
        np.testing.assert_array_equal(triplet.edited.frames, expected.edited.frames)
        for name in ("key", "instruction", "origin", "scores", "lineage", "source_caption"):
            assert getattr(triplet, name) == getattr(expected, name)


def test_undecodable_clip_is_named(dataset: Path) -> None:
    record, members = next(iterate_samples(dataset))
    with pytest.raises(InputError, match="edited clip of 's0': no readable video"):
        decode_triplet(record, members["source.mp4"], b"nonsense")


def test_iterate_yields_records_and_members_in_order(dataset: Path) -> None:
    samples = list(iterate_samples(dataset))
    assert [record["key"] for record, _ in samples] == ["s0", "s1", "s2", "s3"]
    assert all(list(members) == ["source.mp4", "edited.mp4", "json"] for _, members in samples)
    assert [record["key"] for record, _ in iterate_samples(dataset, "judge > 2")] == ["s2", "s3"]


def test_cut_tar_yields_what_lies_before_the_cut(dataset: Path) -> None:
    cut = members_of(dataset, "s1")["edited.mp4"]["offset"] + 10
    os.truncate(dataset / "shard-000000.tar", cut)
    bad: dict[str, str] = {}
    samples = iterate_samples(dataset, on_bad=bad.__setitem__)
    assert [record["key"] for record, _ in samples] == ["s0", "s3"]
    assert bad.keys() == {"s1", "s2"}
    assert "shard-000000.tar is cut" in bad["s1"]


def test_flipped_byte_is_one_bad_sample(dataset: Path) -> None:
    _flip(dataset / "shard-000000.tar", members_of(dataset, "s1")["edited.mp4"]["offset"])
    bad: dict[str, str] = {}
    samples = iterate_samples(dataset, on_bad=bad.__setitem__)
    assert [record["key"] for record, _ in samples] == ["s0", "s2", "s3"]
    assert bad == {"s1": "shard-000000.tar: edited.mp4 of 's1' is not the file that was written"}


def test_bad_sample_raises_where_nobody_listens(dataset: Path) -> None:
    _flip(dataset / "shard-000000.tar", members_of(dataset, "s0")["json"]["offset"])
    with pytest.raises(InputError, match="json of 's0'"):
        list(iterate_samples(dataset))


def test_absent_tar(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tar: no such file or directory, but a shard is needed"):
        read_member(tmp_path / "none.tar", 0, 1)


def test_many_tars_do_not_exhaust_descriptors(tmp_path: Path) -> None:
    for number in range(100):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(bytes([number]))
        assert read_member(path, 0, 1) == bytes([number])
    assert sum("tar" in os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()) <= 64


def _descriptors() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
