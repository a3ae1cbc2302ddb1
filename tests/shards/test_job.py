"""The job of a folder, and what is no job."""

from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.shards.job import open_job, read_job


def test_a_folder_is_of_one_job(tmp_path: Path) -> None:
    job = {"step": "A", "settings": {"n": 1, "size": (2, 3)}, "input": {"at": "here", "samples": 4}, "shard_size": 2}
    folder = tmp_path / "new" / "out"
    open_job(folder, job)
    assert read_job(folder)["settings"] == {"n": 1, "size": [2, 3]}
    open_job(folder, {**job, "input": {"at": "moved away", "samples": 4}})
    assert read_job(folder)["input"]["at"] == "here"
    for name, value, sentence in (
        ("step", "B", 'its step is "A", this one\'s "B"'),
        ("settings", {"n": 2, "size": [2, 3]}, r"its settings\.n is 1, this one's 2"),
        ("settings", {"n": 1}, r"its settings\.size is \[2, 3\], this one's null"),
    ):
        with pytest.raises(InputError, match=sentence):
            open_job(folder, {**job, name: value})
    assert [path.name for path in folder.iterdir()] == ["job.json"]


def test_a_broken_job_or_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    assert read_job(tmp_path) == {}
    (tmp_path / "job.json").write_text("[1")
    with pytest.raises(InputError, match=r"job\.json (is no readable JSON|holds a list).*; remove it"):
        open_job(tmp_path, {"step": "A"})
    for text in ('{"input": 3}', '{"step": 5, "shard_size": 2, "input": {"samples": 4}}', '{"step": "A", "input": {}}'):
        (tmp_path / "job.json").write_text(text)
        with pytest.raises(InputError, match=r"job\.json is no job of a step; remove it"):
            read_job(tmp_path)
    with pytest.raises(InputError, match="cannot be written: not a directory"):
        open_job(tmp_path / "job.json" / "x", {"step": "A"})
