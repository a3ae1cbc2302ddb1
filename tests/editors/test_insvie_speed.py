"""Fast editing against plain editing; training that waits for nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from insvie_callbacks import Heartbeat, LoraEMA, RunCheckpoint, Throughput
from insvie_lightning.batch import EditBatch
from insvie_lightning.editors import InsViE
from insvie_lightning.editors.editor import Editor
from insvie_lightning.editors.lineage import hash_weights
from insvie_lightning.nets.execution import Execution
from insvie_lightning.weights.deliverable import trainable_weights

Make = Callable[..., InsViE]
PLAIN = Execution(attention="torch", fused_lora=False, channels_last=False, hoist=False, merge_lora=False)


@pytest.mark.parametrize(
    "change", [{"hoist": True}, {"fused_lora": True}, {"merge_lora": True}, {"channels_last": True}]
)
@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_fast_edits_are_plain_edits(make_editor: Make, batch: EditBatch, change: dict[str, bool], sampler: str) -> None:
    edits = []
    for execution in (PLAIN, replace(PLAIN, **change)):
        editor = make_editor(execution=execution, sampler=sampler, random_weights=True, num_inference_steps=4)
        edits.append(Editor.place(editor, "cpu").model.edit_batch(batch))
    torch.testing.assert_close(*edits, rtol=0, atol=1e-5)


def test_merged_weights_are_delivered_as_they_were(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor(random_weights=True)
    before = {name: value.clone() for name, value in trainable_weights(editor.transformer).items()}
    told, plain = hash_weights(editor), editor.transformer.transformer_blocks[0].attn1.to_q.weight.clone()
    Editor.place(editor, "cpu")
    merged = editor.transformer.transformer_blocks[0].attn1.to_q
    assert merged.merged and not torch.equal(merged.weight, plain)
    after = trainable_weights(editor.transformer)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert hash_weights(editor) == told
    once = merged.weight.clone()
    Editor.place(editor, "cpu")
    assert torch.equal(merged.weight, once)


class Reads(TorchDispatchMode):
    """Counts how often the value of a tensor is asked for, which waits for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.bincount.default)
        self.count += func in waits
        return func(*args, **(kwargs or {}))


class OnGpu(InsViE):
    """Trains as on a GPU."""

    on_gpu = True  # type: ignore[assignment]


def test_no_value_is_waited_for_in_a_training_step(
    base: Path, batch: EditBatch, fit: Callable[..., None], tmp_path: Path
) -> None:
    class Noted(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            seen.append(reads.count)

    seen: list[int] = []
    editor = OnGpu(base=str(base), lora_rank=2, warmup_steps=2, identity_pairs=0.5)
    callbacks = [Noted(), LoraEMA(), RunCheckpoint(), Throughput(), Heartbeat()]
    with Reads() as reads:
        fit(editor, DataLoader([batch] * 5, batch_size=None), tmp_path, *callbacks, log_every_n_steps=100)  # type: ignore[arg-type]
    assert len(set(seen)) == 1
