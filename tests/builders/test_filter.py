"""The filter of triplets: what it scores, what it rejects and why, and judges that misbehave."""

import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from insvie_lightning.batch import Clip, Rejected, Triplet
from insvie_lightning.builders.filter import FilterTriplets
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.judges import Question, VLMJudge
from insvie_lightning.judges.reply import Reply, Unavailable
from insvie_lightning.judges.server import Server
from insvie_lightning.metrics.clip import ClipTemporal, ClipText
from insvie_lightning.metrics.epe import end_point_error_px
from insvie_lightning.metrics.flow import DisBackend
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.verify import verify
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.toy.judge import ToyJudge


class Scripted:
    """A model that replies what it is told to, by instruction; it keeps the questions."""

    def __init__(self, replies: dict[str, list[str]]) -> None:
        self.replies = {instruction: iter(texts) for instruction, texts in replies.items()}
        self.questions: list[Question] = []
        self.identity = {"model": "scripted"}

    def check(self) -> None:
        pass

    def reply(self, question: Any, earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        self.questions.append(question)
        return Reply(next(self.replies[question.instruction]))


def triplet(name: str, shift: int = 0) -> Triplet:
    """A textured clip that moves 1 px a frame to the right, its edit `1 + shift` px; the instruction is the name."""
    texture = np.random.default_rng(0).integers(0, 256, (3, 16, 24), dtype=np.uint8).repeat(4, 1).repeat(4, 2)

    def clip(step: int) -> Clip:
        return Clip(np.stack([np.roll(texture, step * frame, -1) for frame in range(5)]), 8.0)

    lineage = {"earlier": {"seed": 3}}
    return Triplet(name, clip(1), clip(1 + shift), name, "before", "after", scores={"other": 1.0}, lineage=lineage)


def build(replies: dict[str, list[str]], **options: Any) -> tuple[FilterTriplets, Scripted]:
    model = Scripted(replies)
    return FilterTriplets(Path("unused"), VLMJudge(model, reasks=1), **options), model


def test_each_triplet_has_both_scores_and_those_beyond_a_threshold_their_reasons() -> None:
    replies = {"good": ['{"score": 3}'], "poor": ['{"score": 2}'], "moved": ['{"score": 5}'], "both": ['{"score": 1}']}
    builder, _ = build(replies, min_judge=3, max_epe_px=1.0)
    triplets = [triplet("good"), triplet("poor"), triplet("moved", 2), triplet("both", 2)]
    made = builder.make(triplets)
    flow = DisBackend()
    clips = (torch.from_numpy(clip.frames) for clip in (triplets[2].source, triplets[2].edited))
    moved_px = end_point_error_px(*map(flow, clips))
    assert moved_px == pytest.approx(2, abs=0.4)
    assert isinstance(made[0], Triplet) and made[0].scores == {"other": 1.0, "judge": 3.0, "epe_px": 0.0}
    rejected = [result for result in made[1:] if isinstance(result, Rejected)]
    assert [result.reason for result in rejected] == [
        "judge 2 is below 3",
        f"epe_px {moved_px:.2f} is above 1",
        f"judge 1 is below 3; epe_px {moved_px:.2f} is above 1",
    ]
    edge, _ = build({"moved": ['{"score": 5}']}, max_epe_px=rejected[1].sample.scores["epe_px"])
    assert isinstance(edge.make([triplets[2]])[0], Triplet)  # the largest error that is accepted
    assert [result.sample.scores["judge"] for result in rejected] == [2, 5, 1]
    assert [result.sample.scores["epe_px"] for result in rejected] == pytest.approx([0, moved_px, moved_px])


def test_the_lineage_says_who_judged_what_was_replied_and_whose_flow_it_was() -> None:
    builder, _ = build({"good": ["Well, hm.", 'Score: {"score": 4}']})
    (made,) = builder.make([triplet("good")])
    assert isinstance(made, Triplet) and made.lineage["earlier"] == {"seed": 3}
    judged = {"model": "scripted", "prompt": "filtering", "version": "1", "frames": 3}
    assert made.lineage["filter"] == {
        "judge": {**judged, "reason": "", "replies": ["Well, hm.", 'Score: {"score": 4}']},
        "flow": {"backend": "dis", "weights": None},
        "min_judge": 3.0,
        "max_epe_px": 5.0,
    }
    json.dumps(made.lineage, allow_nan=False)
    open_end, _ = build({"good": ['{"score": 4}']}, max_epe_px=math.inf)
    json.dumps(open_end.make([triplet("good")])[0].lineage, allow_nan=False)  # type: ignore[union-attr]
    json.dumps(open_end.settings, allow_nan=False)  # it goes into the job and into every lineage


def test_the_judge_sees_three_frames_of_each_clip_and_six_criteria() -> None:
    builder, model = build({"good": ['{"score": 4}']})
    sample = triplet("good", 1)
    builder.make([sample])
    (question,) = model.questions
    assert np.array_equal(question.source, sample.source.frames[[0, 2, 4]])
    assert np.array_equal(question.edited, sample.edited.frames[[0, 2, 4]])
    assert len(question.prompt.criteria) == 6
    assert (question.instruction, question.caption) == ("good", "after")


def test_no_verdict_and_no_finite_error_are_rejections_not_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    prose = "What a lovely video! I like the dog."
    builder, _ = build({"prose": [prose] * 2, "nothing": ["", ""], "nine": ['{"score": 9}'] * 2, "x": ['{"score": 5}']})
    made = builder.make([triplet(name) for name in ("prose", "nothing", "nine")])
    # The reason is the same whatever was replied, so that the funnel counts all as one; the lineage says the rest.
    assert {result.reason for result in made if isinstance(result, Rejected)} == {
        "no verdict: its replies could not be read"
    }
    assert [result.sample.lineage["filter"]["judge"]["reason"] for result in made] == [  # type: ignore[union-attr]
        f"the reply {prose!r} has no 'score'",
        "the reply '' has no 'score'",
        "the reply '{\"score\": 9}' has a 'score' that is no whole number of 1 to 5",
    ]
    for result in made:
        assert isinstance(result, Rejected) and math.isnan(result.sample.scores["judge"])
    assert made[0].sample.lineage["filter"]["judge"]["replies"] == [prose] * 2  # type: ignore[union-attr]
    monkeypatch.setattr(builder.epe, "flow", lambda clip: torch.full((len(clip) - 1, 2, *clip.shape[2:]), math.nan))
    (made_x,) = builder.make([triplet("x")])
    assert isinstance(made_x, Rejected) and made_x.reason == "epe_px is nan, no finite number"


def test_what_cannot_be_scored_is_rejected_before_anybody_is_asked() -> None:
    builder, model = build({"good": ['{"score": 5}']})
    good = triplet("good")
    made = builder.make(
        [
            replace(good, key="mute", instruction=" "),
            replace(good, key="short", edited=Clip(good.edited.frames[:4], 8.0)),
            replace(
                good, key="still", source=Clip(good.source.frames[:1], 8.0), edited=Clip(good.edited.frames[:1], 8.0)
            ),
            good,
        ]
    )
    assert [result.reason for result in made if isinstance(result, Rejected)] == [
        "it has no instruction, by which a judge scores",
        "source and edited clip differ in shape F 3 H W: (5, 3, 64, 96) and (4, 3, 64, 96)",
        "a clip of one frame has no flow",
    ]
    assert isinstance(made[3], Triplet) and len(model.questions) == 1


def test_questions_are_asked_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{number}" for number in range(8)]
    builder, model = build({name: [f'{{"score": {1 + number % 5}}}'] for number, name in enumerate(names)})
    together, most, lock = 0, 0, threading.Lock()
    reply = model.reply

    def slowly(*args: Any) -> Reply:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.05)
        with lock:
            together -= 1
        return reply(*args)

    monkeypatch.setattr(model, "reply", slowly)
    made = builder.make([triplet(name) for name in names])
    samples = [result.sample if isinstance(result, Rejected) else result for result in made]
    assert [sample.scores["judge"] for sample in samples] == [1 + number % 5 for number in range(8)]
    assert most >= 3


def test_further_metrics_add_their_scores_and_what_they_lack_is_told() -> None:
    metrics = [ClipText("toy", with_source=False), ClipTemporal("toy", with_source=False)]
    builder, _ = build({"good": ['{"score": 5}'] * 2}, metrics=metrics)
    good = triplet("good")
    told, mute = builder.make([good, replace(good, key="mute", edited_caption="")])
    assert isinstance(told, Triplet) and isinstance(mute, Triplet)
    assert told.scores.keys() == {"other", "judge", "epe_px", "clip_text", "clip_temporal"}
    assert 0 <= told.scores["clip_temporal"] <= 1 and "missing" not in told.lineage["filter"]
    assert mute.scores.keys() == {"other", "judge", "epe_px", "clip_temporal"}
    assert "has no caption" in mute.lineage["filter"]["missing"]["clip_text"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"min_judge": 6}, "min_judge is 6; a judge scores from 1 to 5"),
        ({"min_judge": math.nan}, "min_judge is nan; a judge scores from 1 to 5"),
        ({"max_epe_px": 0}, "max_epe_px is 0; legal are pixels above 0"),
        ({"max_epe_px": math.nan}, "max_epe_px is nan; legal are pixels above 0"),
        ({"frames": 0}, "at least one frame of each clip, not 0"),
        ({"flow": "gmflow"}, "'gmflow' needs weights"),
        ({"flow": "raf"}, "did you mean 'raft'"),
    ],
)
def test_settings_that_are_not_legal(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build({}, **options)


def test_the_job_is_who_judges_and_the_thresholds_not_how_many_are_asked_at_a_time() -> None:
    settings = [FilterTriplets(Path("x"), VLMJudge(Scripted({}), concurrency=number)).settings for number in (1, 4)]
    assert settings[0] == settings[1] and settings[0]["judge"] == {
        "model": "scripted",
        "prompt": "filtering",
        "version": "1",
    }
    assert FilterTriplets(Path("x"), VLMJudge(ToyJudge())).settings["judge"] != settings[0]["judge"]
    assert build({}, min_judge=4)[0].settings != settings[0]


# ---------------------------------------------------------------- a server that fails


@pytest.fixture
def statuses() -> Iterator[tuple[str, list[int]]]:
    """The address of a server that answers with the statuses of a list, one after the other, the last one for ever."""
    wanted = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status = wanted.pop(0) if len(wanted) > 1 else wanted[0]
            choice = {"index": 0, "message": {"role": "assistant", "content": '{"score": 5}'}, "finish_reason": "stop"}
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            body = json.dumps(reply if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", wanted
    server.shutdown()
    server.server_close()


def test_errors_that_pass_are_retried_a_broken_question_is_rejected_and_no_quota_stops_the_job(
    statuses: tuple[str, list[int]],
) -> None:
    address, wanted = statuses
    builder = FilterTriplets(Path("x"), VLMJudge(Server("m", address, max_retries=2), concurrency=1))
    wanted[:] = [429, 500, 200]
    assert isinstance(builder.make([triplet("good")])[0], Triplet)
    wanted[:] = [500]
    (made,) = builder.make([triplet("good")])
    assert isinstance(made, Rejected) and made.reason.startswith(
        "no verdict: the server refused the question (HTTP 500)"
    )
    wanted[:] = [429]
    with pytest.raises(Unavailable, match="requests come too fast"):
        builder.make([triplet("good"), triplet("good")])


# ---------------------------------------------------------------- as a command


def test_the_recipe_filters_the_toy_world(toy_shards: Path, tmp_path: Path) -> None:
    command = ["predict", "-c", "build_filter", f"--data.shards={toy_shards}", f"--model.output={tmp_path / 'kept'}"]
    judge = ["--model.judge.model=insvie_lightning.toy.judge.ToyJudge", f"--model.judge.cache={tmp_path / 'cache'}"]
    own = ["--trainer.accelerator=cpu", "--data.num_workers=0", "--model.max_epe_px=1", "--model.shard_size=16"]
    run = [f"--trainer.default_root_dir={tmp_path / 'run'}", "--trainer.enable_progress_bar=false"]
    assert main([*command, *judge, *own, *run]) == 0
    before = open_manifest(toy_shards).query()
    rows = open_manifest(tmp_path / "kept").query(accepted_only=False).to_pylist()
    assert [row["key"] for row in rows] == before["key"].to_pylist()  # nothing is thrown away
    assert verify(tmp_path / "kept").problems == ()
    flaw = {row["key"]: json.loads(row["lineage"])["BuildToy"]["flaw"] for row in rows}
    for row in rows:
        fit = row["judge"] >= 3 and row["epe_px"] <= 1
        assert row["accepted"] == fit and bool(row["reason"]) != fit
        assert json.loads(row["lineage"])["filter"]["judge"]["model"] == "toy-clip"
    # The tops of these clips are known: what was made without a flaw scores best.
    judged = {kind: [row["judge"] for row in rows if flaw[row["key"]] == kind] for kind in ("", "late")}
    assert np.mean(judged[""]) > 4.4 and np.mean(judged["late"]) < np.mean(judged[""]) - 0.8


def test_the_toy_judge_cannot_score_without_a_caption() -> None:
    mute = replace(to_triplet(example("test", 0), 3, 16, 24), edited_caption="")
    (made,) = FilterTriplets(Path("x"), VLMJudge(ToyJudge())).make([mute])
    assert isinstance(made, Rejected) and "none of what the edit should show" in made.reason
