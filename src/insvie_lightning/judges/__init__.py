"""Vision-language judges: what is asked, who answers, and what became of it."""

from insvie_lightning.judges.judge import Spent, Verdict, VLMJudge
from insvie_lightning.judges.prompts import (
    FILTERING,
    NONE_GOOD,
    QUALITY,
    SCREENING,
    TEMPORAL,
    TEXT,
    Prompt,
    Question,
    pick_frames,
)
from insvie_lightning.judges.writing import TextRequest

__all__ = [
    "FILTERING",
    "NONE_GOOD",
    "QUALITY",
    "SCREENING",
    "TEMPORAL",
    "TEXT",
    "Prompt",
    "Question",
    "Spent",
    "TextRequest",
    "VLMJudge",
    "Verdict",
    "pick_frames",
]
