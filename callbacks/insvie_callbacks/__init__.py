"""First-party callbacks and the run's logger; importing this package registers them."""

from insvie_callbacks.build_progress import BuildProgress, Preflight
from insvie_callbacks.clip import ClipFrame, ClipTemporal, ClipText, PickScore
from insvie_callbacks.dover import Dover
from insvie_callbacks.edit_samples import EditSamples
from insvie_callbacks.epe import EPE
from insvie_callbacks.heartbeat import Heartbeat
from insvie_callbacks.judge import Judge
from insvie_callbacks.lora_ema import LoraEMA
from insvie_callbacks.pixels import Pixels
from insvie_callbacks.run_checkpoint import RunCheckpoint
from insvie_callbacks.run_log import RunLog
from insvie_callbacks.save_editor import SaveEditor
from insvie_callbacks.score_table import ScoreTable
from insvie_callbacks.skip_bad_steps import SkipBadSteps
from insvie_callbacks.summary import Summary
from insvie_callbacks.throughput import Throughput
from insvie_callbacks.toy_scores import ToyScores
from insvie_callbacks.ultra_edit import UltraEdit
from insvie_callbacks.viclip import ViClip
from insvie_callbacks.write_edits import WriteEdits

__all__ = [
    "EPE",
    "BuildProgress",
    "ClipFrame",
    "ClipTemporal",
    "ClipText",
    "Dover",
    "EditSamples",
    "Heartbeat",
    "Judge",
    "LoraEMA",
    "PickScore",
    "Pixels",
    "Preflight",
    "RunCheckpoint",
    "RunLog",
    "SaveEditor",
    "ScoreTable",
    "SkipBadSteps",
    "Summary",
    "Throughput",
    "ToyScores",
    "UltraEdit",
    "ViClip",
    "WriteEdits",
]
