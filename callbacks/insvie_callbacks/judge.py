"""Scores of a vision-language judge, at validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from insvie_callbacks.edit_metric import EditMetric
from insvie_lightning.errors import InputError
from insvie_lightning.judges import VLMJudge
from insvie_lightning.judges.judge import VisionLanguageModel
from insvie_lightning.metrics.judge import JudgeScores


class Judge(EditMetric):
    """`judge_temporal`, `judge_text`, `judge_quality` (1 to 5) of a vision-language model; three questions an edit.

    Args:
        model: The model's name on the server, None for `INSVIE_JUDGE_MODEL`; or a folder or hub id with `kind: local`.
        kind: `server` asks any OpenAI-compatible server, with the key in `OPENAI_API_KEY` or `INSVIE_JUDGE_API_KEY`;
            `local` loads the model into this process.
        base_url: The server's address; None is `INSVIE_JUDGE_BASE_URL` or `OPENAI_BASE_URL`, else OpenAI's.
        cache: Folder that keeps all answers for later runs; None keeps none.
        frames: Frames of each clip, evenly spread; None shows all, as the paper does.
        detail: How closely a server looks at pictures, where it offers a choice.
        max_tokens: Of a reply; models that think before they answer need some thousand.
        temperature: Of a server's replies; None leaves it to the server.
        reasks: How often a reply that cannot be read is asked for again.
        concurrency: Questions at the same time, of the three of an edit.
        max_retries: Of a server's request.
        timeout_seconds: Of a server's request.
        usd_per_million_input: Price of a million prompt tokens, for the count of costs.
        usd_per_million_output: Price of a million reply tokens.
        max_seconds: Of each validation, on each process; samples beyond are left out and counted.
    """

    def __init__(
        self,
        model: str | None = None,
        kind: Literal["server", "local"] = "server",
        base_url: str | None = None,
        cache: Path | None = Path("runs/judge_cache"),
        frames: int | None = None,
        detail: Literal["auto", "low", "high"] = "auto",
        max_tokens: int = 256,
        temperature: float | None = 0.0,
        reasks: int = 2,
        concurrency: int = 3,
        max_retries: int = 6,
        timeout_seconds: float = 120.0,
        usd_per_million_input: float = 0.0,
        usd_per_million_output: float = 0.0,
        max_seconds: float | None = None,
    ) -> None:
        answers: VisionLanguageModel
        if kind == "server":
            from insvie_lightning.judges.server import Server

            answers = Server(model, base_url, detail, max_tokens, temperature, max_retries, timeout_seconds)
        else:
            from insvie_lightning.judges.local import LocalModel

            if model is None:
                raise InputError("a local judge needs a `model`: a folder, or a hub id")
            answers = LocalModel(model, max_tokens=max_tokens)
        judge = VLMJudge(answers, cache, reasks, concurrency, usd_per_million_input, usd_per_million_output)
        super().__init__(JudgeScores(judge, frames), max_seconds)
