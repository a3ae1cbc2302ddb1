import json

import numpy as np
import pytest
import torch

from insvie_lightning.batch import Clip
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors.editor import Editor
from insvie_lightning.editors.frames import VideoEditor
from insvie_lightning.errors import InputError
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.weights.deliverable import save_deliverable

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(make_editor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_deliverable(make_editor(random_weights=True).deliverable(), folder)
    return folder


def test_candidates_are_first_frames_of_edits_of_a_still_video(weights):
    editor = VideoEditor(str(weights), video_guidance_scale=1.5)
    editor.load(CPU)
    frame = to_triplet(example("test", 0), frames=1).source.frames[0]
    edited = editor.edit(frame, "make it red", (1.0, 6.0), seed=3)
    assert edited.shape == (2, *frame.shape) and edited.dtype == np.uint8
    assert (edited[0] != edited[1]).any()
    still = Clip(np.stack([frame] * 9), 8.0)
    alone = Editor.from_pretrained(weights).edit(still, "make it red", guidance=Guidance(6.0, 1.5), seed=3)
    assert (edited[1] == alone.frames[0]).all()
    assert (editor.edit(frame, "make it red", (6.0,), seed=4)[0] != edited[1]).any()


def test_a_clip_is_edited_with_the_scale_and_the_seed(weights):
    editor = VideoEditor(str(weights), video_guidance_scale=1.5)
    editor.load(CPU)
    clip = to_triplet(example("test", 0)).source
    edited = editor.edit_clip(clip, "make it red", 6.0, seed=3)
    alone = Editor.from_pretrained(weights).edit(clip, "make it red", guidance=Guidance(6.0, 1.5), seed=3)
    assert (edited == alone.frames).all()
    assert (editor.edit_clip(clip, "make it red", 6.0, seed=4) != edited).any()


def test_its_identity_is_json_and_a_folder_that_is_none_is_said(tmp_path):
    assert json.dumps(VideoEditor("a").identity) != json.dumps(VideoEditor("a", num_inference_steps=3).identity)
    with pytest.raises(InputError, match=r"editor\.json"):
        VideoEditor(str(tmp_path)).load(CPU)
