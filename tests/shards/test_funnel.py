"""The funnel of a folder: what its steps made of their inputs."""

import json
from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.shards.funnel import Step, read_funnel, write_funnel
from insvie_lightning.shards.job import open_job
from insvie_lightning.shards.write import ShardWriter


def step(folder: Path, before: Path, *bad: str) -> tuple[Step, ...]:
    """What is told of a folder with one good sample and some that name themselves in their reasons."""
    read = {"samples": len(bad) + 1, "at": f"../{before.name}"}
    open_job(folder, {"step": folder.name, "shard_size": 8, "input": read})
    with ShardWriter(folder) as writer:
        writer.write_members({"key": "good", "scores": {}}, {})
        for key in bad:
            writer.reject(key, f"{key}.mp4: too short, 3 frames", lineage={"RawVideos": {"file": f"{key}.mp4"}})
    return write_funnel(folder)


def test_steps_add_up_and_reasons_count_without_the_names_of_samples(tmp_path: Path) -> None:
    videos, first, second = (tmp_path / name for name in ("videos", "first", "second"))
    told = Step("first", 4, 1, {"FILE: too short, N frames": 3})
    assert step(first, videos, "cat", "dog", "owl") == (told,)
    assert step(second, first) == read_funnel(second) == (told, Step("second", 1, 1))
    assert read_funnel(videos) == ()


def test_what_is_shown_ends_with_where_the_samples_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step(tmp_path / "first", tmp_path / "videos", "cat")
    write_funnel(tmp_path / "first", shown=True)
    assert capsys.readouterr().out.endswith(f"1 samples in {tmp_path / 'first'}\n")


@pytest.mark.parametrize("text", ["[]", '{"steps": 3}', json.dumps({"steps": [{"step": "A"}]})])
def test_what_is_no_funnel_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "funnel.json").write_text(text)
    with pytest.raises(InputError, match="is no readable funnel; remove it"):
        read_funnel(tmp_path)
