"""Fast editing against plain editing."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

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
