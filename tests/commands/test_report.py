from pathlib import Path

import pytest

from insvie_lightning.cli import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n0,0,1.0\n1,0,0.5\n")
    return tmp_path


def test_path_of_the_page_is_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert "train/loss" in (run / "report.html").read_text()


def test_output_and_open(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["report", str(run), "--output", str(run / "page.html"), "--open"]) == 0
    assert opened == [(run / "page.html").as_uri()]
    assert not (run / "report.html").exists()


def test_other_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "neither a run nor a data set" in error
    assert error.count("\n") == 1
