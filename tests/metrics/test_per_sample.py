import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.metrics.per_sample import EditedSample, PerSample, samples_of


class Brightness(PerSample):
    """Mean of the edited clip in 0..255, and how many frames; a black clip has no value."""

    names = ("brightness", "frames")
    source_names = ("brightness",)

    def __init__(self, with_source: bool = True) -> None:
        super().__init__(with_source)
        self.scored = 0

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        self.scored += 1
        mean = float(sample.edited.float().mean())
        return (mean or math.nan, float(len(sample.edited)))


def clips(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None, None].expand(-1, 2, 3, 4, 4).contiguous()


def batch(keys: str, source: int = 10) -> EditBatch:
    return EditBatch(keys=tuple(keys), instructions=("make it",) * len(keys), source=clips(*[source] * len(keys)))


def test_means_over_samples_beside_those_of_the_source():
    metric = Brightness()
    metric.update(batch("ab"), EditedVideos(clips(20, 40)))
    result = metric.compute()
    assert {name: value.item() for name, value in result.items()} == {
        "brightness": 30.0,
        "frames": 2.0,
        "source_brightness": 10.0,
    }
    assert metric.rows == {"a": (20.0, 2.0, 10.0), "b": (40.0, 2.0, 10.0)}
    assert metric.scored == 3  # two edits, and their one source once


def test_a_source_has_one_value_whichever_of_its_edits_comes_first():
    class Keyed(Brightness):
        def score(self, sample: EditedSample) -> tuple[float, ...]:
            return (float(sum(sample.key.encode())), 1.0)

    found = []
    for keys in ("ab", "ba"):
        metric = Keyed()
        for key in keys:
            metric.update(batch(key), EditedVideos(clips(20)))
        found.append({key: row[2] for key, row in metric.rows.items()})
    assert found[0] == found[1] and found[0]["a"] == found[0]["b"]


@pytest.mark.parametrize("reads", [False, True])
def test_a_sources_value_sees_nothing_but_what_its_edits_share(reads: bool) -> None:
    seen: list[EditedSample] = []

    class Noting(Brightness):
        reads_captions = reads

        def score(self, sample: EditedSample) -> tuple[float, ...]:
            seen.append(sample)
            return super().score(sample)

    metric = Noting()
    for key, caption in (("a", "rain"), ("b", "snow"), ("c", "snow")):
        whole = replace(batch(key), instructions=(key,), edited=clips(30), source_captions=("sun",))
        metric.update(replace(whole, edited_captions=(caption,)), EditedVideos(clips(20)))
    told = [(each.source_caption, each.edited_caption) for each in seen if each.edited is each.source]
    assert told == ([("sun", "rain"), ("sun", "snow")] if reads else [("", "")])
    for each in (each for each in seen if each.edited is each.source):
        assert each.target is None and not each.instruction and each.key not in ("a", "b", "c")


def test_the_edits_of_a_video_need_not_follow_one_another() -> None:
    metric = Brightness()
    for _ in range(2):
        for source in range(1, 101):
            metric.update(batch("a", source), EditedVideos(clips(20)))
    assert metric.scored == 200 + 100


def test_edits_in_floating_point_are_rounded_to_pixels():
    metric = Brightness(with_source=False)
    metric.update(batch("a"), EditedVideos(torch.full((1, 2, 3, 4, 4), 0.2)))
    assert metric.compute()["brightness"] == 153


def test_a_sample_seen_twice_counts_once():
    metric = Brightness(with_source=False)
    for value in (20, 90):
        metric.update(batch("a"), EditedVideos(clips(value)))
    metric.update(batch("b"), EditedVideos(clips(40)))
    assert metric.compute()["brightness"] == 30


def test_a_missing_value_is_left_out_and_counted():
    metric = Brightness(with_source=False)
    metric.update(batch("abc"), EditedVideos(clips(20, 0, 40)))
    result = metric.compute()
    assert result["brightness"] == 30 and result["frames"] == 2
    assert result["brightness_missing"] == 1 and "frames_missing" not in result


def test_without_samples_the_means_are_nan_and_reset_forgets():
    metric = Brightness()
    assert metric.compute()["brightness"].isnan()
    metric.update(batch("a"), EditedVideos(clips(20)))
    metric.reset()
    assert metric.compute()["brightness"].isnan() and not metric.rows


@pytest.mark.filterwarnings("error:The ``compute`` method")
def test_samples_may_be_added_one_by_one():
    metric = Brightness(with_source=False)
    for value, sum_of in ((20, 20), (40, 30)):
        metric.add(next(samples_of(batch(f"{value}"[0]), EditedVideos(clips(value)))))
        assert metric.compute()["brightness"] == sum_of


def test_a_metric_saves_nothing():
    metric = Brightness()
    metric.update(batch("a"), EditedVideos(clips(20)))
    assert not metric.state_dict() and not list(metric.parameters())


def test_the_source_an_editor_returns_goes_before_that_of_the_batch():
    shorter = EditedVideos(clips(20)[:, :1], source=clips(70)[:, :1])
    assert next(samples_of(batch("a"), shorter)).source.float().mean() == 70


def test_the_target_an_editor_returns_goes_before_that_of_the_batch_and_missing_edits_are_left_out():
    whole = replace(batch("ab"), edited=clips(30, 30))
    edits = EditedVideos(clips(20, 40), target=clips(80, 90), missing=frozenset("a"))
    (sample,) = samples_of(whole, edits)
    assert sample.key == "b" and sample.edited.float().mean() == 40
    assert sample.target is not None and sample.target.float().mean() == 90


def test_clips_of_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"sample 'a': the source is \(2, 3, 4, 4\), the edit \(1, 3, 4, 4\)"):
        list(samples_of(batch("a"), EditedVideos(clips(20)[:, :1])))


def _rank(rank: int, store: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    metric = Brightness()
    # Five samples on two ranks, of which a sampler repeats the first; the third rank has none.
    shares = [["a", "c", "e"], ["b", "d", "a"], []]
    for key in shares[rank]:
        metric.update(batch(key), EditedVideos(clips(10 * (1 + "abcde".index(key)))))
    torch.save({name: float(value) for name, value in metric.compute().items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_agree_with_one_process(tmp_path):
    mp.spawn(_rank, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=3)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3)]
    assert results[0] == results[1] == results[2] == {"brightness": 30.0, "frames": 2.0, "source_brightness": 10.0}
