"""Vision-language judges: what is asked, who answers, and what became of it."""

from insvie_lightning.judges.judge import Spent, Verdict, VLMJudge
from insvie_lightning.judges.prompts import FILTERING, QUALITY, SCREENING, TEMPORAL, TEXT, Prompt, Question, pick_frames

__all__ = [
    "FILTERING",
    "QUALITY",
    "SCREENING",
    "TEMPORAL",
    "TEXT",
    "Prompt",
    "Question",
    "Spent",
    "VLMJudge",
    "Verdict",
    "pick_frames",
]
