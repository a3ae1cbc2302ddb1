"""The static route and captions on real pictures and videos, with tiny models of random weights, by their commands."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from insvie_lightning.cli import main
from insvie_lightning.commands import build
from insvie_lightning.shards.composition import read_composition
from insvie_lightning.shards.manifest import open_manifest

TINY_VLM = Path(__file__).parents[1] / "judges/tiny_vlm"


class _Chat(BaseHTTPRequestHandler):
    """Chat completions of one who says the same of all that he sees: the tiny model has no words, and scores only."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = {"caption": "a place", "instruction": "make it night", "edited_caption": "a place at night"}
        asked = body["response_format"]["json_schema"]["schema"]["required"]
        content = json.dumps({key: known.get(key, 1) for key in asked})
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        kind = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        self.reply({**kind, "choices": [choice]})

    def do_GET(self) -> None:
        self.reply({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]})

    def reply(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("INSVIE_JUDGE_API_KEY", "none")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()


def settings(tmp_path: Path, writer: str) -> dict[str, list[str]]:
    """Options of the steps, so that they end within seconds."""
    server = [f"base_url={writer}", "model=m"]
    everywhere = ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.enable_progress_bar=false"]
    everywhere += [f"trainer.default_root_dir={tmp_path / 'run'}", "data.num_workers=0"]
    texts = [*(f"model.writer.model.{option}" for option in server), "model.instructions_per_video=2"]
    edits = [
        *(f"model.judge.model.{option}" for option in server),
        "model.size=[32, 64]",
        "model.guidance_scales=[3, 8]",
    ]
    # Any picture scores 1 of 5 at least; what a model of random weights paints is no edit, and moves at random.
    judge = ["model.judge.model=insvie_lightning.judges.local.LocalModel", f"model.judge.model.model={TINY_VLM}"]
    score = [*judge, "model.judge.model.device=cpu", "model.min_judge=1", "model.max_epe_px=.inf"]
    steps = {
        "captions": texts,
        "first_frames": edits,
        "static": ["model.frames=5", "model.size=[48, 72]"],
        "filter": score,
    }
    return {step: [*values, *everywhere] for step, values in steps.items()}


def options(settings: dict[str, list[str]]) -> list[str]:
    return [f"--{step}.{value}" for step, values in settings.items() for value in values]


def test_real_pictures_become_a_data_set_and_a_page_by_the_static_route(
    shared: Path, tiny_cosxl: Path, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = settings(tmp_path, writer)
    given["captions"] += [f"data.images={shared / 'real/images'}", "data.size=[64, 96]"]
    given["first_frames"] += [f"model.editor.model={tiny_cosxl}", "model.editor.num_inference_steps=1"]
    assert build.main(["static", *options(given)], main) == 0
    made = tmp_path / "data/static/filtered"
    assert main(["shards", "verify", str(made)]) == 0
    pictures = sorted((shared / "real/images").iterdir())
    rows = open_manifest(made).query().to_pylist()
    # One instruction of two is rejected, since the writer repeats itself.
    assert [row["key"] for row in rows] == [f"{picture.stem}-0" for picture in pictures]
    assert all((row["frames"], row["height"], row["width"]) == (5, 48, 72) for row in rows)
    assert all(1 <= row["judge"] <= 5 and row["epe_px"] >= 0 and row["instruction"] == "make it night" for row in rows)
    steps = ["Images", "BuildCaptions", "BuildFirstFrames", "BuildStatic", "filter"]
    assert all(list(json.loads(row["lineage"])) == steps for row in rows)
    static = read_composition(made)[2]
    sizes = {Image.open(picture).size[::-1] for picture in pictures}
    assert {static.source_size.partition(" (")[0]} <= {"{} x {}".format(*size) for size in sizes}
    assert main(["report", str(made)]) == 0
    page = (made / "report.html").read_text()
    assert all(row["key"] in page for row in rows) and page.count("<video") + page.count("<img") >= 2 * len(rows)


def test_real_videos_are_captioned(shared: Path, writer: str, tmp_path: Path) -> None:
    given = settings(tmp_path, writer)["captions"]
    given += [
        f"data.videos={shared / 'real/videos'}",
        "data.frames=9",
        "data.size=[64, 96]",
        f"model.output={tmp_path / 'made'}",
    ]
    assert main(["predict", "-c", "build_captions", *(f"--{option}" for option in given)]) == 0
    assert main(["shards", "verify", str(tmp_path / "made")]) == 0
    rows = open_manifest(tmp_path / "made").query().to_pylist()
    assert [row["key"] for row in rows] == [f"{video.stem}-0" for video in sorted((shared / "real/videos").iterdir())]
    assert {(row["source_caption"], row["frames"]) for row in rows} == {("a place", 9)}
    assert main(["report", str(tmp_path / "made")]) == 0
