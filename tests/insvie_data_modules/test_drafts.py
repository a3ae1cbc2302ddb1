"""What an earlier step built, as the input of the next."""

import json
from pathlib import Path

import numpy as np
import pytest

from insvie_data_modules.drafts import Drafts
from insvie_lightning.batch import Clip, Draft, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.drafts import clips_of, encode_member
from insvie_lightning.shards.record import describe
from insvie_lightning.shards.write import ShardWriter


def write(folder: Path) -> list[Draft | Triplet]:
    rng = np.random.default_rng(0)

    def clip(frames: int) -> Clip:
        return Clip(rng.integers(0, 256, (frames, 3, 16, 24), np.uint8), 8.0)

    texts = {"instruction": "add a cat", "source_caption": "a room", "origin": "pair", "dataset": "x"}
    samples = [
        Draft("video", clip(3), None, **texts, scores={"judge": 4.0}, lineage={"RawVideos": {"file": "a"}}),
        Draft("picture", clip(1), clip(1).frames[0], **texts),
        Triplet("done", clip(3), clip(3), **texts, edited_caption="a cat"),
        Draft("poor", clip(1), None, **texts, scores={"judge": 1.0}),
    ]
    with ShardWriter(folder) as writer:
        for sample in samples:
            members = {name: encode_member(name, clip, lossless=True) for name, clip in clips_of(sample).items()}
            writer.write_members(describe(sample), members)
        writer.reject("rejected", "judge 1 is below 3")
    return samples


def test_drafts_and_triplets_come_back_as_they_were(tmp_path: Path) -> None:
    written = write(tmp_path)
    found = Drafts(tmp_path).inputs()
    assert found.keys.to_pylist() == ["video", "picture", "done", "poor"]
    for index, expected in enumerate(written):
        sample = found[index].sample
        assert type(sample) is type(expected) and describe(sample) == describe(expected)
        assert clips_of(sample).keys() == clips_of(expected).keys() == set(found[index].members) - {"json"}
        for name, clip in clips_of(expected).items():
            np.testing.assert_array_equal(clips_of(sample)[name].frames, clip.frames)


def test_a_clause_and_a_limit_choose(tmp_path: Path) -> None:
    write(tmp_path)
    assert Drafts(tmp_path, where="judge >= 3").inputs().keys.to_pylist() == ["video"]
    assert Drafts(tmp_path, limit=2).inputs().keys.to_pylist() == ["video", "picture"]
    with pytest.raises(InputError, match="limit is -1; legal are 1 or more"):
        Drafts(tmp_path, limit=-1)  # which a table takes for all but the last
    with pytest.raises(InputError, match=r"no accepted sample of .* matches `judge > 5`"):
        Drafts(tmp_path, where="judge > 5").inputs()


def test_damage_is_found_and_only_that_sample_is_bad(tmp_path: Path) -> None:
    write(tmp_path)
    inputs = Drafts(tmp_path).inputs()
    member = inputs.rows["members"][1].as_py()[0]
    with (tmp_path / "shard-000000.tar").open("r+b") as file:
        file.seek(member["offset"])
        file.write(b"damage")
    assert [bool(inputs[index].bad) for index in range(4)] == [False, True, False, False]
    assert inputs[1].bad.endswith("source.png of 'picture' is not the file that was written")
    assert inputs[1].sample.instruction == "add a cat" and len(inputs[1].sample.source) == 0


def test_a_folder_that_is_still_being_built_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "job.json").write_text(json.dumps({"step": "BuildX", "shard_size": 5, "input": {"samples": 11}}))
    with pytest.raises(InputError, match="is not finished: 2 of 3 shards are missing; run BuildX again"):
        Drafts(tmp_path).inputs()
