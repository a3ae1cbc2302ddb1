"""What all steps have in common: storing, rejecting, retrying, resuming, and work shared by processes."""

import errno
import hashlib
import inspect
import json
import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.tensor import DTensor

from insvie_data_modules.drafts import Drafts
from insvie_lightning.batch import Clip, Draft, Rejected, Triplet
from insvie_lightning.builders import (
    BuildCaptions,
    BuildEdits,
    BuildFirstFrames,
    BuildPairs,
    BuildStatic,
    BuildVideos,
    EncodeLatents,
    FilterTriplets,
)
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.units import Input
from insvie_lightning.errors import InputError
from insvie_lightning.fsdp import FullySharded
from insvie_lightning.nets.sharing import place
from insvie_lightning.shards import compact
from insvie_lightning.shards.drafts import decode_sample
from insvie_lightning.shards.ledger import CLAIMS
from insvie_lightning.shards.manifest import COMPACT, open_manifest
from insvie_lightning.shards.read import iterate_samples
from insvie_lightning.shards.verify import verify
from insvie_lightning.shards.write import ShardWriter


class Noise:
    """Drafts of three random frames 16 x 24; `bad` ones cannot be read."""

    def __init__(self, count: int, bad: Sequence[int] = (), prefix: str = "clip", seconds: float = 0.0) -> None:
        self.keys = pa.chunked_array([[f"{prefix}{index:04d}" for index in range(count)]], pa.string())
        self.reading = {"data": "Noise"}
        self.bad, self.seconds = bad, seconds
        self.read: list[int] = []

    def __getitem__(self, index: int) -> Input:
        self.read.append(index)
        bad = "cut in the middle" if index in self.bad else ""
        frames = np.random.default_rng(index).integers(0, 256, (3, 3, 16, 24), np.uint8)
        draft = Draft(self.keys[index].as_py(), Clip(frames[:0] if bad else frames, 8.0), instruction="invert")
        return Input(draft, bad=bad)


class Invert(Builder[Draft]):
    """Inverts; every tenth draft is rejected.

    Args:
        output: Shard folder.
        shard_size: Drafts a shard.
        max_bad_rate: As of every builder.
        add: Something to change what is made.
        seconds: What one draft takes.
        faulty: Key of a draft that cannot be used.
    """

    elsewhere = Builder.elsewhere | {"seconds"}

    def __init__(
        self,
        output: Path,
        shard_size: int = 4,
        max_bad_rate: float = 0.5,
        add: int = 0,
        seconds: float = 0.0,
        faulty: str = "",
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
        self.add, self.seconds, self.faulty = add, seconds, faulty
        self.calls: list[list[str]] = []

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        self.calls.append([draft.key for draft in drafts])
        if self.faulty in self.calls[-1]:
            raise InputError("the caption breaks JSON")
        time.sleep(self.seconds * len(drafts))
        return [self.one(draft) for draft in drafts]

    def one(self, draft: Draft) -> Built:
        if int(draft.key[-4:]) % 10 == 7:
            return Rejected(draft, "judge 2 is below 3")
        edited = Clip(255 - draft.source.frames + np.uint8(self.add), draft.source.fps)
        return replace(draft, edited_caption="inverted").triplet(draft.source, edited)


class Net(nn.Module):
    """Two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Shared(Invert):
    """Asks a network, whose weights ranks may share, as often as the draft's number says, and adds what it says."""

    step = "Invert"  # type: ignore[assignment]

    def configure_model(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.nets = [place(Net(), self.device)]  # a list keeps it out of the tree of modules

    def one(self, draft: Draft) -> Built:
        answer = torch.ones(1, 4)
        for _ in range(int(draft.key[-4:]) % 5):
            answer = self.nets[0](answer)
        (self.output.parent / f"rank{self.trainer.global_rank}").touch()
        return super().one(replace(draft, source=Clip(draft.source.frames + np.uint8(answer.sum() > 0.5), 8.0)))


def predict(builder: Builder[Any], inputs: Any, batch_size: int = 3, num_workers: int = 0, **options: Any) -> None:
    """Run a step on the CPU, quietly."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", **{"devices": 1, **quiet, **options})
    loader = builder.feed(inputs, batch_size, num_workers)
    trainer.predict(builder, loader, return_predictions=False)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("shard-*"))}


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in open_manifest(folder).query(accepted_only=False).to_pylist()}


def fork(work: Callable[[], None]) -> BaseProcess:
    """Start work in a process of its own, which need not import anything first."""
    process = multiprocessing.get_context("fork").Process(target=work)  # type: ignore[attr-defined]
    process.start()
    return process


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 drafts in twelve shards, made without disturbance."""
    folder = tmp_path_factory.mktemp("straight") / "shards"
    predict(Invert(folder), Noise(48))
    return folder


# ---------------------------------------------------------------- what is stored


def test_unit_n_becomes_shard_n_in_the_inputs_order(straight: Path) -> None:
    found = rows(straight)
    assert list(found) == Noise(48).keys.to_pylist()
    for number, row in enumerate(found.values()):
        assert row["shard"] == f"shard-{number // 4:06d}.tar"
        assert row["accepted"] == (number % 10 != 7)
        assert row["reason"] == ("" if row["accepted"] else "judge 2 is below 3")
        entry = json.loads(row["lineage"])["Invert"]
        assert entry == {"version": 1, "settings": {"add": 0, "faulty": ""}}
    assert verify(straight).problems == () and not (straight / CLAIMS).exists()
    for record, members in iterate_samples(straight):
        triplet = decode_sample(record, members)
        assert isinstance(triplet, Triplet) and triplet.edited_caption == "inverted"
        # Random pixels lose much in a codec; the sign of the correlation tells the two clips apart all the same.
        both = np.corrcoef(triplet.source.frames.ravel(), triplet.edited.frames.ravel())[0, 1]
        assert both < -0.5


def test_bad_inputs_and_bad_drafts_are_rejected_and_their_neighbours_are_not(tmp_path: Path) -> None:
    class Picky(Invert):
        def one(self, draft: Draft) -> Built:
            if draft.key.endswith("2"):
                raise InputError("the caption breaks JSON")
            return super().one(draft)

    builder = Picky(tmp_path)
    predict(builder, Noise(6, bad=[4]))
    found = rows(tmp_path)
    assert {key: row["reason"] for key, row in found.items() if not row["accepted"]} == {
        "clip0002": "the caption breaks JSON",
        "clip0004": "cut in the middle",
    }
    assert found["clip0004"]["frames"] is None and found["clip0002"]["frames"] == 3
    assert builder.calls[:4] == [["clip0000", "clip0001", "clip0002"], ["clip0000"], ["clip0001"], ["clip0002"]]
    assert ["clip0004"] not in builder.calls


def test_a_unit_of_nothing_but_rejects_is_a_finished_shard(tmp_path: Path) -> None:
    predict(Invert(tmp_path, shard_size=2, max_bad_rate=1), Noise(6, bad=[2, 3]))
    assert len(hashes(tmp_path)) == 6
    assert verify(tmp_path).problems == () and verify(tmp_path).samples == 4


def test_too_many_bad_inputs_stop_the_job_with_their_reasons(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stopped: 7 bad rows are more than 50% of 12; commonest: cut in .* \(7\)"):
        predict(Invert(tmp_path), Noise(12, bad=range(7)))


def test_what_another_step_takes_is_one_sentence(straight: Path, tmp_path: Path) -> None:
    class OfDrafts(Invert):
        takes = Draft

    class OfTriplets(Invert):
        takes = Triplet

    with pytest.raises(InputError, match="OfDrafts takes drafts, and 'clip0000' is a triplet: it is another step's"):
        predict(OfDrafts(tmp_path / "a"), Drafts(straight).inputs())
    with pytest.raises(InputError, match="OfTriplets takes triplets, and 'clip0000' is a draft"):
        predict(OfTriplets(tmp_path / "b"), Noise(3))
    assert not hashes(tmp_path / "a") and not hashes(tmp_path / "b")


@pytest.mark.parametrize(
    ("step", "fed"),
    [
        (BuildEdits, Draft),
        (BuildFirstFrames, Draft),
        (BuildPairs, Draft),
        (BuildStatic, Draft),
        (BuildVideos, Draft),
        (EncodeLatents, Triplet),
        (FilterTriplets, Triplet),
    ],
)
def test_every_step_says_what_it_takes_and_lets_one_choose_how_much_may_be_bad(step: type[Builder], fed: type) -> None:
    assert step.takes is fed
    assert all("max_bad_rate" in inspect.signature(kind).parameters for kind in (step, BuildCaptions))


@pytest.mark.parametrize("kind", [RuntimeError, type("Unavailable", (InputError,), {})])
def test_any_other_error_stops_the_job(kind: type[Exception], tmp_path: Path) -> None:
    class Broken(Invert):
        def one(self, draft: Draft) -> Built:
            if draft.key == "clip0004":
                raise kind("no power")
            return super().one(draft)

    with pytest.raises(kind, match="no power") as caught:
        predict(Broken(tmp_path), Noise(6), batch_size=1)
    if kind is RuntimeError:
        assert caught.value.__notes__ == ["Broken failed at 'clip0004'"]
    assert list(hashes(tmp_path)) == ["shard-000000.parquet", "shard-000000.tar"]
    assert not list(tmp_path.glob(".shard*")) and not list((tmp_path / CLAIMS).iterdir())


def test_a_draft_may_give_several_samples_with_keys_made_of_its_own(tmp_path: Path) -> None:
    class Several(Invert):
        words = ("warm", "cold")

        def make(self, drafts: Sequence[Draft]) -> list[Built]:
            # Word by word, to show that the order of results is that of the drafts.
            return [replace(draft, key=f"{draft.key}-{word}") for word in self.words for draft in drafts]

    predict(Several(tmp_path / "a"), Noise(3))
    assert list(rows(tmp_path / "a")) == [f"clip000{n}-{word}" for n in range(3) for word in Several.words]

    Several.words = ("../../evil",)
    with pytest.raises(RuntimeError, match=r"of the key 'clip0000-\.\./\.\./evil'.*legal are these keys, and KEY-WORD"):
        predict(Several(tmp_path / "b"), Noise(3))
    Several.words = ("warm", "warm")
    with pytest.raises(RuntimeError, match="each once"):
        predict(Several(tmp_path / "c"), Noise(3))
    Several.words = ()
    with pytest.raises(RuntimeError, match="made nothing of 'clip0000'"):
        predict(Several(tmp_path / "d"), Noise(3))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "d"}


def test_a_made_key_that_the_input_has_is_refused(tmp_path: Path) -> None:
    class Clash(Invert):
        def make(self, drafts: Sequence[Draft]) -> list[Built]:
            return [replace(draft, key="a-1") for draft in drafts]

    inputs = Noise(2)
    inputs.keys = pa.chunked_array([["a", "a-1"]])
    with pytest.raises(InputError, match="makes 'a-1' of 'a', but the input has it already"):
        predict(Clash(tmp_path), inputs, batch_size=1)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (["a", "b", "a"], "the key 'a' is used twice"),
        (["a", "../../b"], r"the key '../../b' is not legal"),
        ([], "holds nothing to build from"),
    ],
)
def test_keys_of_the_input_are_checked_before_anything_is_written(
    keys: list[str], sentence: str, tmp_path: Path
) -> None:
    inputs = Noise(3)
    inputs.keys = pa.chunked_array([keys], pa.string())
    with pytest.raises(InputError, match=sentence):
        predict(Invert(tmp_path / "out"), inputs)
    assert not (tmp_path / "out").exists()


def test_what_a_step_leaves_as_it_is_goes_on_byte_for_byte(straight: Path, tmp_path: Path) -> None:
    class Caption(Invert):
        def one(self, draft: Draft) -> Built:
            assert isinstance(draft, Triplet)
            if draft.key == "clip0001":
                return replace(draft, edited=Clip(255 - draft.edited.frames, draft.edited.fps))
            return replace(draft, source_caption="noise")

    predict(Caption(tmp_path), Drafts(straight, limit=6).inputs())
    before, after = rows(straight), rows(tmp_path)
    assert len(after) == 6

    def members(row: dict[str, Any]) -> dict[str, str]:
        return {member["name"]: member["sha256"] for member in row["members"] if member["name"] != "json"}

    for key, row in after.items():
        same = {name for name, sha256 in members(row).items() if sha256 == members(before[key])[name]}
        assert same == ({"source.mp4"} if key == "clip0001" else {"source.mp4", "edited.mp4"})
        assert list(json.loads(row["lineage"])) == ["Invert", "Caption"]


def test_drafts_and_pictures_are_stored_without_loss_where_they_are_pictures(tmp_path: Path) -> None:
    class Paint(Invert):
        def one(self, draft: Draft) -> Built:
            frame = draft.source.frames[0]
            still = Clip(frame[None], 7.0)
            return replace(draft, source=still, edited_frame=255 - frame, scores={"clip": 0.5})

    noise = Noise(3)
    predict(Paint(tmp_path / "first"), noise)
    first = Drafts(tmp_path / "first").inputs()
    for index in range(3):
        draft, expected = first[index].sample, noise[index].sample.source.frames[0]
        assert isinstance(draft, Draft) and draft.edited_frame is not None
        assert draft.source.fps == 7.0 and len(draft.source) == 1 and draft.scores == {"clip": 0.5}
        np.testing.assert_array_equal(draft.source.frames[0], expected)
        np.testing.assert_array_equal(draft.edited_frame, 255 - expected)
    assert set(first[0].members) == {"source.png", "edited_frame.png", "json"}


# ---------------------------------------------------------------- resuming


def test_a_rerun_makes_nothing_and_other_settings_are_refused(straight: Path) -> None:
    before = hashes(straight)
    again = Invert(straight, seconds=0.001)
    predict(again, Noise(48))
    assert again.calls == [] and hashes(straight) == before
    with pytest.raises(InputError, match=r"holds another job: its settings.add is 0, this one's 3; choose an empty"):
        predict(Invert(straight, add=3), Noise(48))
    with pytest.raises(InputError, match=r"its input.samples is 48, this one's 47"):
        predict(Invert(straight), Noise(47))
    with pytest.raises(InputError, match=r"its input.sha256_of_keys"):
        predict(Invert(straight), Noise(48, prefix="film"))
    with pytest.raises(InputError, match=r"its shard_size is 4, this one's 5"):
        predict(Invert(straight, shard_size=5), Noise(48))
    assert hashes(straight) == before


def test_a_finished_job_of_many_shards_leaves_one_file_of_rows(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "MANY_PARTS", 12)
    predict(Invert(tmp_path), Noise(48), batch_size=2, limit_predict_batches=5)
    assert not (tmp_path / COMPACT).exists()
    predict(Invert(tmp_path), Noise(48))
    assert open_manifest(tmp_path).files == (tmp_path / COMPACT,)
    assert rows(tmp_path) == rows(straight)


def test_a_folder_of_other_shards_is_left_alone(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.reject("a", "nothing there")
    with pytest.raises(InputError, match=r"holds shards of no job, such as shard-000000\.parquet"):
        predict(Invert(tmp_path), Noise(4))


def test_batches_workers_and_ranks_do_not_change_a_byte(straight: Path, tmp_path: Path) -> None:
    predict(Invert(tmp_path), Noise(48), batch_size=7, num_workers=2)
    assert hashes(tmp_path) == hashes(straight)


def test_a_run_that_is_cut_short_leaves_whole_units(straight: Path, tmp_path: Path) -> None:
    predict(Invert(tmp_path), Noise(48), batch_size=2, limit_predict_batches=5)
    assert len(hashes(tmp_path)) == 4 and not list(tmp_path.glob(".shard*"))
    predict(Invert(tmp_path), Noise(48))
    assert hashes(tmp_path) == hashes(straight)


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = ShardWriter._append, []

    def full(writer: ShardWriter, row: dict[str, Any]) -> None:
        written.append(row)
        if len(written) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, row)

    monkeypatch.setattr(ShardWriter, "_append", full)
    with pytest.raises(InputError, match=re.escape(f"the disk of {tmp_path} is full; free some space and run again")):
        predict(Invert(tmp_path), Noise(48))
    assert len(hashes(tmp_path)) == 4 and not list(tmp_path.glob(".shard*"))
    monkeypatch.setattr(ShardWriter, "_append", write)
    predict(Invert(tmp_path), Noise(48))
    assert hashes(tmp_path) == hashes(straight)


def kill_and_rerun(folder: Path, moments: int, seed: int) -> int:
    """Kill the job so often, at random moments, then run it to its end; return how often it was still at work."""
    rng, struck = random.Random(seed), 0
    kept: dict[str, tuple[int, int]] = {}
    for _ in range(moments):
        process = fork(lambda: predict(Invert(folder, seconds=0.03), Noise(48)))
        process.join(rng.uniform(0, 0.3))
        struck += process.is_alive()
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        unfinished = {claim.stem for claim in (folder / CLAIMS).glob("*")} - {
            part.stem.removeprefix("shard-") for part in folder.glob("*.parquet")
        }
        assert len(unfinished) <= 1
        finished = {part.stem: part.stat() for part in folder.glob("*.parquet")}
        kept |= {stem: (stat.st_ino, stat.st_mtime_ns) for stem, stat in finished.items() if stem not in kept}
    predict(Invert(folder), Noise(48))
    now = {stem: (folder / f"{stem}.parquet").stat() for stem in kept}
    assert {stem: (stat.st_ino, stat.st_mtime_ns) for stem, stat in now.items()} == kept  # finished ones stay
    return struck


def test_killed_twice_at_random_moments_it_ends_as_if_undisturbed(straight: Path, tmp_path: Path) -> None:
    assert kill_and_rerun(tmp_path / "shards", 2, seed=3) >= 1
    assert hashes(tmp_path / "shards") == hashes(straight)
    assert not list((tmp_path / "shards").glob(".*"))


@pytest.mark.proof
def test_killed_at_twenty_random_moments_it_ends_as_if_undisturbed(straight: Path, tmp_path: Path) -> None:
    assert kill_and_rerun(tmp_path / "shards", 20, seed=1) >= 10
    assert hashes(tmp_path / "shards") == hashes(straight)
    assert verify(tmp_path / "shards").problems == ()


# ---------------------------------------------------------------- several processes


def ranks(count: int) -> dict[str, Any]:
    return {"devices": count, "strategy": DDPStrategy(process_group_backend="gloo", start_method="fork")}


def test_two_ranks_make_what_one_makes(straight: Path, tmp_path: Path) -> None:
    class Signed(Invert):
        step = "Invert"  # type: ignore[assignment]

        def make(self, drafts: Sequence[Draft]) -> list[Built]:
            (tmp_path / f"rank{self.trainer.global_rank}").touch()
            return super().make(drafts)

    predict(Signed(tmp_path / "shards", seconds=0.01), Noise(48), **ranks(2))
    assert hashes(tmp_path / "shards") == hashes(straight)
    assert (tmp_path / "rank0").exists() and (tmp_path / "rank1").exists()


def test_ranks_that_share_weights_make_what_one_makes_though_their_work_is_uneven(
    on_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    # Units of 4, 4 and 1 drafts in batches of 3; one draft cannot be read, and of one nothing can be made.
    inputs = Noise(9, bad=[6])
    predict(Shared(tmp_path / "one/shards", faulty="clip0001", seconds=0.02), inputs)

    def work(rank: int) -> int:
        strategy = FullySharded(process_group_backend="gloo")
        builder = Shared(tmp_path / "two/shards", faulty="clip0001", seconds=0.02)
        predict(builder, inputs, devices=2, strategy=strategy)
        assert all(isinstance(weight, DTensor) for weight in builder.nets[0].parameters())
        predict(Shared(tmp_path / "two/shards", faulty="clip0001"), inputs, devices=2, strategy=FullySharded())
        return len(builder.calls)

    (tmp_path / "two").mkdir()
    assert 0 not in on_ranks(work)
    assert hashes(tmp_path / "two/shards") == hashes(tmp_path / "one/shards")
    assert len(hashes(tmp_path / "one/shards")) == 6
    assert (tmp_path / "two/rank0").exists() and (tmp_path / "two/rank1").exists()


def test_two_jobs_share_a_folder_and_its_work(straight: Path, tmp_path: Path) -> None:
    def job() -> None:
        step = Invert(tmp_path / "shards", seconds=0.01)
        predict(step, Noise(48))
        (tmp_path / f"made{os.getpid()}").write_text(str(sum(map(len, step.calls))))

    jobs = [fork(job) for _ in range(2)]
    for process in jobs:
        process.join(60)
    assert [process.exitcode for process in jobs] == [0, 0]
    made = [int(path.read_text()) for path in tmp_path.glob("made*")]
    assert sum(made) == 48 and min(made) > 0
    assert hashes(tmp_path / "shards") == hashes(straight)


def test_what_a_dead_job_has_claimed_is_taken_over_by_a_running_one(straight: Path, tmp_path: Path) -> None:
    slow = fork(lambda: predict(Invert(tmp_path / "shards", seconds=5), Noise(48)))
    while not list((tmp_path / "shards" / CLAIMS).glob("*")):
        time.sleep(0.01)
    fast = fork(lambda: predict(Invert(tmp_path / "shards"), Noise(48)))
    while len(hashes(tmp_path / "shards")) < 2 * 11:
        time.sleep(0.05)
    assert fast.is_alive()
    slow.kill()
    fast.join(60)
    assert fast.exitcode == 0
    assert hashes(tmp_path / "shards") == hashes(straight)


def test_the_funnel_counts_every_step(straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Judge(Invert):
        def one(self, draft: Draft) -> Built:
            kept = int(draft.key[-1]) < 5
            return draft if kept else Rejected(draft, f"judge {draft.key[-1]} is not below 5")

    predict(Judge(tmp_path), Drafts(straight).inputs())
    steps = json.loads((tmp_path / "funnel.json").read_text())["steps"]
    assert steps == [
        {"step": "Invert", "inputs": 48, "accepted": 43, "rejected": {"judge N is below N": 5}},
        {"step": "Judge", "inputs": 43, "accepted": 25, "rejected": {"judge N is not below N": 18}},
    ]
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("Invert", "Judge", "judge N is not below N", "58.1%"))
