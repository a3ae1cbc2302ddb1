import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.report.page import write_report
from insvie_lightning.report.score_sheet import ScoredEdit, make_sheet, write_sheet


class Page(HTMLParser):
    """What a browser would see: start tags with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def test_page_of_a_run(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = make_run(tmp_path / "s1")
    path = write_report(run)
    page = Page(path)
    assert path == run / "report.html"
    assert [name.name for name in run.iterdir() if name.name.startswith(".")] == []
    assert page.count("video") == 2 * 3 * 3
    assert page.count("svg") == 6
    words = (
        "97.1 %",
        "copy of the source",
        "28.42 dB",
        "396",
        "train/loss",
        "samples_per_second",
        "3 of 3 samples shown",
    )
    assert [word for word in words if word not in page.text] == []


def test_cards_of_several_runs_are_of_the_outcome(tmp_path: Path) -> None:
    for name, accuracy in (("before", 0.1), ("test", 0.9)):
        write_summary(tmp_path / name, a_accuracy=accuracy, copy_a_accuracy=0.0)
    assert cards(write_report(tmp_path)) == ["90 %"]
    write_summary(tmp_path, a_accuracy=0.8, untrained_a_accuracy=0.1)
    assert cards(write_report(tmp_path)) == ["80 %"]
    write_summary(tmp_path, seconds=5)  # says nothing beside a baseline
    assert cards(write_report(tmp_path)) == ["90 %"]


def write_summary(folder: Path, **values: float) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(values))


def cards(page: Path) -> list[str]:
    return re.findall(r'<dd class="value">(.*?)</dd>', page.read_text())


def test_page_shows_the_tables_of_a_test(tmp_path: Path) -> None:
    edits = [ScoredEdit("a", "<b>style</b>", "x", (32, 480, 480), {"pick_score": 20.5})]
    write_sheet(tmp_path, make_sheet(edits, ("pick_score",), "tgve", {"pick_score": "toy"}))
    page = Page(write_report(tmp_path))
    words = ("TGVE, 1 edit", "Tune-A-Video", "InsViE Table 6", "20.90", "this run", "20.5*", "<b>style</b> (1)")
    assert [word for word in words if word not in page.text] == []
    assert "published means are of all 304 edits" in page.text
    assert page.text.index("20.90") < page.text.index("20.5*")


def test_nothing_of_the_run_becomes_markup(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    page = Page(write_report(make_run(tmp_path / "s1")))
    assert page.count("script") == 1
    assert "alert('instruction')" in page.text
    assert page.count("b") == page.html.count("<b>") > 0
    assert "<b>bold</b>" in page.text


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    """Names of folders, files, metrics and scores come from outside, too."""
    evil = "<script>alert(1)<img src=x onerror=alert(1)>'\""
    run = tmp_path / evil
    samples = run / "samples/step-000010"
    samples.mkdir(parents=True)
    quoted = evil.replace('"', '""')
    (run / "metrics.csv").write_text(f'step,"{quoted}"\n0,1\n5,2\n')
    (run / "summary.json").write_text(json.dumps({evil: 1.0, f"copy_{evil}": evil, "other": evil}))
    (run / "config.yaml").write_text(evil)
    (samples / f"{evil}.source.mp4").write_bytes(b"no video")
    (samples / "samples.json").write_text(json.dumps([{"key": evil, "instruction": evil, "scores": {evil: 1.0}}]))
    page = Page(write_report(run, tmp_path / "page.html"))
    assert page.count("script") == 1 and page.count("img") == 0
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert page.text.count("<script>alert(1)") >= 8


def test_page_loads_nothing(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    page = Page(write_report(make_run(tmp_path / "s1")))
    addresses = [
        value or "" for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "xlink:href")
    ]
    assert [address[:40] for address in addresses if not address.startswith(("data:", "#"))] == []
    assert "default-src 'none'" in page.html
    assert not re.search(r"url\((?!#)", page.html)


def test_page_of_a_folder_of_runs_joins_them(
    tmp_path: Path, make_run: Callable[..., Path], make_dataset: Callable[..., Path]
) -> None:
    for name in ("s1", "s2", "s10"):
        make_run(tmp_path / "demo" / name)
    make_dataset(tmp_path / "demo" / "data")
    page = Page(write_report(tmp_path / "demo"))
    assert "3 runs, 1 data set" in page.text
    assert "s1 396 + s2 396 + s10 396" in page.text
    assert "12 of 12 samples shown" in page.text
    assert page.text.index("s10, step 400") < page.text.index("s1, step 400")


def test_page_of_a_data_set(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    page = Page(write_report(make_dataset(tmp_path / "data", 20), tmp_path / "pages" / "data.html"))
    assert (tmp_path / "pages" / "data.html").is_file()
    assert "12 of 20 samples shown" in page.text
    assert "66.7 % of 30 made" in page.text
    assert page.count("video") == 24
    assert page.count("script") == 1


def test_diverged_run_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n0,0,nan\n1,0,nan\n")
    assert "Not one finite value" in Page(write_report(tmp_path)).text


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither a run nor a data set.*metrics\.csv.*shard-\*\.parquet"):
        write_report(tmp_path)
    (tmp_path / "demo").mkdir()
    with pytest.raises(InputError, match="did you mean 'demo'"):
        write_report(tmp_path / "dmo")


def test_output_must_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a\n0,1\n")
    with pytest.raises(InputError, match="is a folder"):
        write_report(tmp_path, tmp_path)


def test_failed_report_leaves_the_earlier_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a\n0,1\n")
    page = write_report(tmp_path)
    before = page.read_text()
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError):
        write_report(tmp_path)
    assert page.read_text() == before


def test_report_starts_without_torch() -> None:
    code = "import sys, insvie_lightning.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
