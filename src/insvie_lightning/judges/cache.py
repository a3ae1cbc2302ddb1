"""Answers on disk, so that no question is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from insvie_lightning.judges.asked import Asked


def describe(identity: Mapping[str, Any], question: Asked[Any]) -> dict[str, Any]:
    """What makes two questions the same: the model and how it is asked, and the question's facts.

    Args:
        identity: The model's name, and what else changes its answers.
        question: What is asked.
    """
    return {**identity, **question.facts}


class AnswerCache:
    """A folder with a JSON file for each question, named by a hash of what `describe` gives.

    Files appear whole or not at all, so that any number of processes may share the folder. A file that cannot be read
    counts as absent, and is replaced by the next answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, asked: Mapping[str, Any]) -> Path:
        """Where the answer to a question lies."""
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def read(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to a question; None where there is none."""
        try:
            record = json.loads(self.path(asked).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        answer = record.get("answer") if isinstance(record, dict) else None
        return answer if isinstance(answer, dict) else None

    def write(self, asked: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Keep an answer beside what was asked."""
        path = self.path(asked)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        part.write_text(json.dumps({"asked": asked, "answer": answer}, ensure_ascii=False), encoding="utf-8")
        os.replace(part, path)


def hash_frames(frames: np.ndarray) -> str:
    """SHA-256 of the shape and the pixels of frames."""
    digest = hashlib.sha256(f"{frames.dtype} {frames.shape}".encode())
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()
