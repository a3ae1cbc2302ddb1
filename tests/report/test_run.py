import json
from collections.abc import Callable
from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.report.media import Budget
from insvie_lightning.report.run import Run, galleries, is_run, read_run, scores


def test_baselines_become_columns() -> None:
    summary = {"copy_psnr_db": 18.0, "psnr_db": 28.0, "steps": 10, "no_source_psnr_db": 11.0, "fill_accuracy": 0.5}
    result = scores(Run("test", {}, summary, "", ()))
    assert result.columns == ("edited", "copy of the source", "no source")
    assert [(name, [cell.text for cell in cells]) for name, cells in result.rows] == [
        ("PSNR", ["28 dB", "18 dB", "11 dB"])
    ]
    assert result.others == (("steps", "10"), ("fill accuracy", "50 %"))


def test_missing_value_leaves_an_empty_cell() -> None:
    result = scores(Run("test", {}, {"a_accuracy": 0.5, "copy_a_accuracy": 0.0, "copy_b": 1}, "", ()))
    assert [[cell.text for cell in cells] for _, cells in result.rows] == [["50 %", "0 %"], ["", "1"]]
    assert [cell.bar for cell in result.rows[0][1]] == [50.0, 0.0]


def test_latest_step_comes_first_and_clips_are_whole(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    latest, earlier = galleries(read_run(make_run(tmp_path / "s1")), Budget())
    assert (latest.name, earlier.name) == ("s1, step 400", "s1, step 200")
    sample = latest.samples[1]
    assert list(sample.clips) == ["source", "edited", "target"]
    assert all(clip.startswith("data:video/mp4;base64,") for clip in sample.clips.values())
    assert sample.scores == {"PSNR": "29.4 dB"}


def test_samples_without_a_list_are_named_by_their_files(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = make_run(tmp_path / "s1")
    (run / "samples/step-000400/samples.json").unlink()
    (run / "samples/step-000400/scene-001.edited.mp4").write_bytes(b"cut")
    latest, _ = galleries(read_run(run), Budget())
    assert [sample.key for sample in latest.samples] == ["scene-000", "scene-001", "scene-002"]
    assert "scene-001.edited.mp4" in latest.samples[1].clips["edited"]


def test_budget_stops_the_samples_but_not_their_count(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(tmp_path / "s1"))
    one = sum(map(len, galleries(run, Budget())[0].samples[0].clips.values()))
    latest, earlier = galleries(run, Budget(one + one // 2))
    assert (len(latest.samples), latest.total, len(earlier.samples)) == (1, 3, 0)


def test_a_key_may_name_a_folder(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = make_run(tmp_path / "s1")
    folder = run / "samples/step-000400"
    (folder / "mine").mkdir()
    (folder / "scene-000.edited.mp4").rename(folder / "mine/a.edited.mp4")
    (folder / "samples.json").write_text(json.dumps([{"key": "mine/a"}]))
    assert list(galleries(read_run(run), Budget())[0].samples[0].clips) == ["edited"]


def test_key_cannot_reach_outside_its_folder(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = make_run(tmp_path / "s1")
    listed = [{"key": "../step-000200/scene-000", "instruction": "x"}]
    (run / "samples/step-000400/samples.json").write_text(json.dumps(listed))
    assert galleries(read_run(run), Budget())[0].samples[0].clips == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("summary.json", "{", "is no readable JSON"),
        ("summary.json", "[1]", "holds a list"),
        ("samples/step-000400/samples.json", '[{"instruction": "x"}]', "an entry is not"),
        ("samples/step-000400/samples.json", '[{"key": "a", "scores": 3}]', "an entry is not"),
    ],
)
def test_broken_file_is_named(
    tmp_path: Path, make_run: Callable[..., Path], name: str, text: str, message: str
) -> None:
    run = make_run(tmp_path / "s1")
    (run / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        galleries(read_run(run), Budget())
    assert name in str(error.value)


def test_empty_folder_is_no_run(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
