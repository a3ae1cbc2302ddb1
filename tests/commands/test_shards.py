import re
from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.cli import main as insvie
from insvie_lightning.commands.shards import main
from insvie_lightning.errors import InputError
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import write_clip


@pytest.fixture
def clip() -> Clip:
    return Clip(np.full((3, 3, 16, 16), 128, np.uint8), 7.0)


@pytest.fixture
def dataset(tmp_path: Path, clip: Clip) -> Path:
    with ShardWriter(tmp_path / "set") as writer:
        for index in range(3):
            writer.write(Triplet(f"s{index}", clip, clip, "x", scores={"judge": index}))
    return tmp_path / "set"


Output = pytest.CaptureFixture[str]


def test_convert(tmp_path: Path, clip: Clip, capsys: Output) -> None:
    for folder in ("before", "edited"):
        write_clip(tmp_path / folder / "a.mp4", clip)
    (tmp_path / "train.csv").write_text("video,instruct\na.mp4,make it red\nb.mp4,make it blue\n")
    arguments = ["--source-dir", "before", "--max-bad-rate", "0.6"]
    assert main(["convert", str(tmp_path / "train.csv"), str(tmp_path / "dst"), *arguments]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1 samples in {tmp_path / 'dst'}, 1 rows rejected",
        "  1 x source clip: no such file",
    ]


def test_index(tmp_path: Path, clip: Clip, capsys: Output) -> None:
    for folder in ("source", "after"):
        write_clip(tmp_path / folder / "a.mp4", clip)
    (tmp_path / "train.csv").write_text("video,instruct\na.mp4,make it red\n")
    assert main(["index", str(tmp_path / "train.csv"), "--edited-dir", "after", "--origin", "pair"]) == 0
    assert capsys.readouterr().out == f"1 samples in {tmp_path}, 0 rows rejected\n"
    assert main(["index", str(tmp_path), str(tmp_path / "dst"), "--edited-dir", "after"]) == 0
    assert [path.name for path in (tmp_path / "dst").iterdir()] == ["shard-000000.parquet"]
    assert main(["stats", str(tmp_path)]) == 0
    assert "pair" in capsys.readouterr().out


def test_verify(dataset: Path, capsys: Output) -> None:
    assert main(["verify", str(dataset)]) == 0
    assert capsys.readouterr().out == "3 samples in 1 shards checked: no problem\n"
    (dataset / "shard-000000.tar").unlink()
    assert main(["verify", str(dataset)]) == 1
    assert capsys.readouterr().out.startswith("shard-000000.tar: the tar is missing\n")


def test_stats(dataset: Path, capsys: Output) -> None:
    assert main(["stats", str(dataset)]) == 0
    assert "3 samples" in capsys.readouterr().out


def test_select(dataset: Path, tmp_path: Path, capsys: Output) -> None:
    assert main(["select", str(dataset), str(tmp_path / "dst"), "--where", "judge >= 1"]) == 0
    assert capsys.readouterr().out == f"2 samples in {tmp_path / 'dst'}\n"
    assert main(["select", str(dataset), str(tmp_path / "list"), "--where", "judge >= 1", "--keys-only"]) == 0
    assert (tmp_path / "list" / "keys.txt").read_text() == "s1\ns2\n"


def test_select_with_an_unknown_column(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'judge'"):
        main(["select", str(dataset), str(tmp_path / "dst"), "--where", "judgee >= 1"])


def test_compact(dataset: Path) -> None:
    assert main(["compact", str(dataset)]) == 0
    assert (dataset / "manifest.parquet").is_file()


@pytest.mark.parametrize("arguments", [[], ["sort"], ["select", "a", "b"]])
def test_usage_errors_exit_with_2(arguments: list[str], capsys: Output) -> None:
    assert insvie(["shards", *arguments]) == 2
    assert re.fullmatch(
        r"error: .*; (insvie shards .*--help tells more|did you mean '\w+'\?)\n", capsys.readouterr().err
    )


@pytest.mark.parametrize("verb", ["convert", "index", "verify", "stats", "select", "compact"])
def test_help(verb: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"usage: insvie shards {verb}" in capsys.readouterr().out


def test_composition(dataset: Path, tmp_path: Path, capsys: Output) -> None:
    assert main(["composition", str(dataset), "--output", str(tmp_path / "it.csv")]) == 0
    assert "16 x 16" in capsys.readouterr().out
    assert (tmp_path / "it.csv").read_text().splitlines()[1] == "set,real,3,,16 x 16,1.0,"


def test_select_with_a_ratio(dataset: Path, tmp_path: Path, capsys: Output) -> None:
    arguments = ["select", str(dataset), str(tmp_path / "dst"), "--where", "true", "--static-to-real"]
    assert main([*arguments, "0:1"]) == 0
    assert capsys.readouterr().out.startswith("3 samples in")
    with pytest.raises(InputError, match="keeps 0 static and 3 real"):
        main([*arguments, "1:1"])
