import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from insvie_lightning.shards.stats import as_table, stats
from insvie_lightning.shards.write import ShardWriter


def test_numbers(dataset: Path) -> None:
    numbers = stats(dataset)
    assert (numbers.accepted, numbers.rejected) == (4, 1)
    assert numbers.origins == {"real": 3, "static": 1}
    assert numbers.datasets == numbers.edit_types == {"unknown": 4}
    assert numbers.shapes == {"5 x 32 x 48, 7 fps": 4}
    assert numbers.scores == {"epe_px": (0.5, 0.5, 0.5, 4), "judge": (1.0, 2.5, 4.0, 4)}
    assert numbers.reasons == {"flow is N.N px": 1}
    assert numbers.static_per_real == 1 / 3
    assert numbers.tar_bytes == sum(path.stat().st_size for path in dataset.glob("*.tar"))


def test_table_shows_them(dataset: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(as_table(stats(dataset)))
    text = console.file.getvalue()
    for part in ("4 samples", "static : real", "0.33 : 1", "1 .. 2.5 .. 4", "flow is N.N px", "20.0%"):
        assert part in text


def test_set_of_rejected_samples_alone(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.reject("a", "too dark")
    numbers = stats(tmp_path)
    assert numbers.accepted == 0
    assert as_table(numbers).row_count > 0


def test_samples_without_a_shape(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write_members({"key": "a", "scores": {}}, {})
    assert stats(tmp_path).shapes == {"unknown": 1}


def test_like_reasons_count_together_whatever_sample_and_file_they_name(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        for key in ("a", "cat", "red-dog"):
            read = {"RawVideos": {"file": f"of {key}/{key}.mp4", "fps": 7.0}, "BuildX": {"file": "shards"}}
            writer.reject(key, f"of {key}/{key}.mp4: 9 frames, a clip of '{key}' has 25", lineage=read)
        writer.reject("none", "")
        writer.reject("shards", "no shards-x for shards")
    assert stats(tmp_path).reasons == {
        "FILE: N frames, KEY clip of 'KEY' has N": 1,  # who calls a sample like a word has to live with it
        "FILE: N frames, a clip of 'KEY' has N": 2,
        "no reason given": 1,
        "no shards-x for KEY": 1,
    }


def test_starts_without_torch(dataset: Path) -> None:
    code = (
        "import sys; from insvie_lightning.commands.shards import main; main(sys.argv[1:]); "
        "import insvie_lightning.shards.convert, insvie_lightning.shards.verify, insvie_lightning.shards.select; "
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "stats", str(dataset)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 samples" in done.stdout
