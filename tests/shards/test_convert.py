import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards import compact
from insvie_lightning.shards import convert as module
from insvie_lightning.shards.convert import convert
from insvie_lightning.shards.index import index
from insvie_lightning.shards.manifest import COMPACT, open_manifest
from insvie_lightning.shards.read import decode_triplet, iterate_samples
from insvie_lightning.shards.verify import verify
from insvie_lightning.video import encode_clip, write_clip

ROWS = "video,instruct\na.mp4,make it red\nb.mp4,make it blue\npexel-static-c.mp4,add snow\n"


def table(folder: Path, text: str = ROWS) -> Path:
    path = folder / "train.csv"
    path.write_text(text, encoding="utf-8")
    return path


def reasons(folder: Path) -> dict[str, str]:
    rows = open_manifest(folder).query("not accepted", ["key", "reason"], accepted_only=False).to_pylist()
    return {row["key"]: row["reason"] for row in rows}


def test_mp4s_are_stored_as_they_are(videos: Path, tmp_path: Path) -> None:
    result = convert(table(videos), tmp_path / "dst")
    assert (result.samples, result.rejected) == (3, {})
    for record, members in iterate_samples(tmp_path / "dst"):
        name = f"{record['key']}.mp4"
        assert members["source.mp4"] == (videos / "source" / name).read_bytes()
        assert members["edited.mp4"] == (videos / "edited" / name).read_bytes()
        assert (record["frames"], record["height"], record["width"], record["fps"]) == (5, 32, 48, 7.0)
    assert (record["key"], record["origin"], record["instruction"]) == ("pexel-static-c", "static", "add snow")
    assert record["dataset"] == "raw"
    assert record["lineage"]["line"] == 4
    assert verify(tmp_path / "dst").problems == ()


def test_many_shards_are_compact(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "MANY_PARTS", 2)
    convert(table(videos), tmp_path, shard_size=1)
    assert open_manifest(tmp_path).files == (tmp_path / COMPACT,)


def test_other_codecs_are_encoded(videos: Path, tmp_path: Path, make_triplet: Callable[..., Triplet]) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=7)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame(48, 32, "yuv420p")))
        container.mux(stream.encode(None))
    (videos / "source" / "a.mp4").write_bytes(buffer.getvalue())
    convert(table(videos), tmp_path / "dst")
    record, members = next(iterate_samples(tmp_path / "dst"))
    with av.open(io.BytesIO(members["source.mp4"])) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert len(decode_triplet(record, members["source.mp4"], members["edited.mp4"]).source) == 5


def test_options(videos: Path, tmp_path: Path) -> None:
    (videos / "edited").rename(videos / "after")
    convert(table(videos), tmp_path / "dst", edited_dir="after", origin="pair", dataset="mine")
    rows = open_manifest(tmp_path / "dst").query(columns=["origin", "dataset"]).to_pylist()
    assert rows == [{"origin": "pair", "dataset": "mine"}] * 3


def test_bad_rows_are_rejected_with_reasons(videos: Path, tmp_path: Path, make_triplet: Callable[..., Triplet]) -> None:
    clip = make_triplet("x").source
    data = (videos / "source" / "a.mp4").read_bytes()
    names = ("absent", "empty", "cut", "short", "small")
    for name in names:
        write_clip(videos / "source" / f"{name}.mp4", clip)
    (videos / "edited" / "empty.mp4").touch()
    (videos / "edited" / "cut.mp4").write_bytes(data[: len(data) // 2])
    (videos / "edited" / "short.mp4").write_bytes(encode_clip(Clip(clip.frames[:3], 7.0)))
    (videos / "edited" / "small.mp4").write_bytes(encode_clip(Clip(clip.frames[:, :, :16], 7.0)))
    text = ROWS + "".join(f"{name}.mp4,change {name}\n" for name in names) + "row.mp4\n"
    result = convert(table(videos, text), tmp_path / "dst", max_bad_rate=0.9)
    assert result.samples == 3
    assert result.rejected.total() == 6
    found = reasons(tmp_path / "dst")
    assert found["absent"] == "edited clip: no such file"
    assert found["empty"].startswith("edited clip: empty file")
    assert found["cut"].startswith("edited clip: no readable video")
    assert found["short"] == "source and edited clip differ in length: 5 and 3 frames"
    assert found["small"] == "source and edited clip differ in size: 32x48 and 16x48"
    assert found["row"] == "the row has 1 columns, its header 2"
    row = open_manifest(tmp_path / "dst").query("key = 'cut'", accepted_only=False).to_pylist()[0]
    assert row["instruction"] == "change cut"


def test_zips_are_converted_without_being_extracted(videos: Path, tmp_path: Path) -> None:
    convert(table(videos), tmp_path / "files")
    for side in ("source", "edited"):
        with zipfile.ZipFile(videos / f"{side}.zip", "w") as archive:
            for path in sorted((videos / side).iterdir()):
                archive.write(path, f"{side}/{path.name}")
                path.unlink()
        (videos / side).rmdir()
    result = convert(table(videos, ROWS + "d.mp4,x\n"), tmp_path / "zips")
    assert (result.samples, result.rejected) == (3, {"source clip: no such file": 1})
    assert list(iterate_samples(tmp_path / "zips")) == list(iterate_samples(tmp_path / "files"))
    assert sorted(path.name for path in videos.iterdir()) == ["edited.zip", "source.zip", "train.csv"]


def test_a_damaged_member_is_rejected_with_its_reason(videos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(videos / "edited.zip", "w") as archive:
        for path in sorted((videos / "edited").iterdir()):
            archive.write(path, path.name)
            path.unlink()
    (videos / "edited").rmdir()
    data = bytearray((videos / "edited.zip").read_bytes())
    data[100] ^= 1
    (videos / "edited.zip").write_bytes(data)
    assert convert(table(videos), tmp_path / "dst").samples == 2
    assert reasons(tmp_path / "dst") == {"a": f"edited clip: {videos / 'edited.zip'}: the member at byte 0 is damaged"}


def test_too_many_bad_rows_stop_the_job(videos: Path, tmp_path: Path) -> None:
    text = ROWS + "".join(f"gone{index}.mp4,x\n" for index in range(4))
    with pytest.raises(InputError, match=r"more than 50% of 7; commonest: source clip: no such file \(4\)"):
        convert(table(videos, text), tmp_path / "dst")
    assert list((tmp_path / "dst").iterdir()) == []


def test_rerun_continues_and_never_repeats(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded = module._load, []

    def interrupted(folder: Path, row: dict[str, Any]) -> object:
        if len(loaded) == 2:
            raise KeyboardInterrupt
        loaded.append(row["key"])
        return load(folder, row)

    dst = tmp_path / "dst"
    monkeypatch.setattr(module, "_load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(table(videos), dst, shard_size=1)
    loaded.clear()
    assert convert(table(videos), dst, shard_size=1).samples == 3
    assert loaded == ["pexel-static-c"]
    loaded.clear()
    assert convert(table(videos), dst, shard_size=1).samples == 3
    assert loaded == []
    assert open_manifest(dst).query()["key"].to_pylist() == ["a", "b", "pexel-static-c"]


def test_destination_of_another_data_set(videos: Path, dataset: Path) -> None:
    with pytest.raises(InputError, match="holds 5 other samples"):
        convert(table(videos), dataset)


@pytest.mark.parametrize("rows", [ROWS, ROWS.replace("a.mp4", "gone.mp4")])
def test_an_index_is_no_destination(videos: Path, tmp_path: Path, rows: str) -> None:
    """Its keys are those of the rows, but none of its samples is in a shard; not even when the first is rejected."""
    index(table(videos, rows), tmp_path / "dst")
    with pytest.raises(InputError, match=r"dst holds the index of train\.csv, not shards of its own; choose an empty"):
        convert(table(videos, rows), tmp_path / "dst")


def test_real_triplets(shared: Path, tmp_path: Path) -> None:
    result = convert(shared / "real" / "triplets" / "train.csv", tmp_path / "dst", shard_size=5)
    assert (result.samples, result.rejected) == (12, {})
    record, members = next(iterate_samples(tmp_path / "dst"))
    assert record["instruction"] == "Change horse to turtle."
    assert decode_triplet(record, members["source.mp4"], members["edited.mp4"]).edited.frames.shape == (32, 3, 288, 320)
    assert verify(tmp_path / "dst").problems == ()
