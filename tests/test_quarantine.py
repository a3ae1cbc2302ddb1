"""Bad samples: written once, counted, and too many of them stop the job."""

from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.quarantine import Quarantine, read_quarantine


def test_a_bad_sample_is_written_once_even_over_reruns(tmp_path: Path) -> None:
    path = tmp_path / "run" / "quarantine.jsonl"
    assert read_quarantine(path) == {}
    for _ in range(2):
        quarantine = Quarantine(path, max_rate=0.5)
        quarantine.add("a", "cut")
        quarantine.add("a", "cut")
        quarantine.add("b", "größer")
    assert read_quarantine(path) == {"a": "cut", "b": "größer"}
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_a_rate_over_few_samples_is_taken_over_two_hundred(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", max_rate=0.05)
    for number in range(10):
        quarantine.add(f"k{number}", "cut")
    with pytest.raises(InputError, match="11 of 11 samples are bad"):
        quarantine.add("k10", "cut")


def test_a_rate_at_the_limit_is_borne(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", max_rate=0.05)
    for _ in range(290):
        quarantine.accept()
    for number in range(15):
        quarantine.add(f"k{number}", "cut")
    with pytest.raises(InputError, match=r"16 of 306 samples are bad, more than max_bad_rate 0\.05"):
        quarantine.add("c", "cut")


def test_the_three_commonest_reasons_are_named_without_their_keys(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", max_rate=0.025)
    for _ in range(20):
        quarantine.accept()
    reasons = ["clip of 'X' is cut"] * 3 + ["empty"] * 2 + ["short", "short", "rare"]
    with pytest.raises(InputError, match=r"3 x clip of 'KEY' is cut; 2 x empty; 1 x short$"):
        for number, reason in enumerate(reasons):
            quarantine.add(f"sample{number}", reason.replace("X", f"sample{number}"))


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", max_rate=1.0)
    (tmp_path / "q.jsonl").symlink_to(tmp_path / "q.jsonl")
    with pytest.raises(InputError, match=r"q\.jsonl: too many levels.*, but bad samples such as 'a' are noted there"):
        quarantine.add("a", "cut")
