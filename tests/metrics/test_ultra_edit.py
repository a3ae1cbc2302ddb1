"""UltraEdit's six scores against their plain form."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from insvie_lightning.errors import InputError
from insvie_lightning.metrics.clip import ClipFrame, clip_encoder
from insvie_lightning.metrics.per_sample import EditedSample
from insvie_lightning.metrics.ultra_edit import UltraEdit, dino_encoder, ssim


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DINOv2 with registers and random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dino")
    config = Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=42, patch_size=14, num_register_tokens=4
    )
    Dinov2WithRegistersModel(config).save_pretrained(folder)
    return folder


def noise(seed: int) -> Tensor:
    return torch.randint(0, 256, (3, 3, 40, 60), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def sample() -> EditedSample:
    captions = {"source_caption": "a horse in the sun", "edited_caption": "a horse in the rain"}
    return EditedSample(key="s", source=noise(0), edited=(noise(0).float() * 0.7 + noise(1) * 0.3).byte(), **captions)


def skimage_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """scikit-image's definition of one channel in [0, 1], window by window."""
    x, y = (sliding_window_view(v, (7, 7)).reshape(-1, 49) for v in (x, y))
    mean_x, mean_y = x.mean(1), y.mean(1)
    covariance = ((x - mean_x[:, None]) * (y - mean_y[:, None])).sum(1) / 48
    above = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    below = (mean_x**2 + mean_y**2 + 0.01**2) * (x.var(1, ddof=1) + y.var(1, ddof=1) + 0.03**2)
    return float((above / below).mean())


def test_ssim_is_that_of_scikit_image() -> None:
    edit = sample()
    pairs = zip(edit.source.flatten(0, 1), edit.edited.flatten(0, 1), strict=True)
    expected = np.mean([skimage_ssim(x.double().numpy() / 255, y.double().numpy() / 255) for x, y in pairs])
    assert ssim(edit.source, edit.edited) == pytest.approx(expected, abs=1e-5)
    assert ssim(edit.source, edit.source) == pytest.approx(1)
    with pytest.raises(InputError, match="frames are 5 x 60"):
        ssim(edit.source[:, :, :5], edit.edited[:, :, :5])


@torch.no_grad()
def test_the_six_scores_frame_by_frame(clip_folder: Path, dino: Path) -> None:
    edit, model = sample(), CLIPModel.from_pretrained(clip_folder)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    tokens = CLIPTokenizer.from_pretrained(clip_folder)([edit.source_caption, edit.edited_caption], return_tensors="pt")
    told, asked = F.normalize(model.get_text_features(**tokens).pooler_output)
    network = Dinov2WithRegistersModel.from_pretrained(dino)
    rows = []
    for x, y in zip(edit.source[:, None] / 255, edit.edited[:, None] / 255, strict=True):
        small = (F.interpolate(torch.cat([x, y]), 28, mode="bicubic") - mean[:, None, None]) / std[:, None, None]
        a, b = F.normalize(model.get_image_features(small).pooler_output)
        c, d = network(F.interpolate(torch.cat([x, y]), 42)).last_hidden_state[:, 0]
        direction = F.cosine_similarity(b - a, asked - told, dim=0)
        rows.append([a @ told, b @ asked, direction, a @ b, F.cosine_similarity(c, d, dim=0)])
    expected = [float(value) for value in torch.tensor(rows).mean(0)]
    metric = UltraEdit(str(clip_folder), str(dino))
    assert metric.score(edit) == pytest.approx([*expected, ssim(edit.source, edit.edited)], abs=1e-5)
    assert metric.columns[:6] == (
        "clip_sim_source", "clip_sim_target", "clip_sim_dir", "clip_sim_image", "dinov2_sim", "ssim_to_source",
    )  # fmt: skip


def test_an_unedited_clip_has_no_direction_and_is_like_itself(clip_folder: Path, dino: Path) -> None:
    copy = replace(sample(), edited=sample().source)
    scores = UltraEdit(str(clip_folder), str(dino)).score(copy)
    assert scores[2] == 0 and scores[3:] == pytest.approx((1, 1, 1), abs=1e-5)


def test_what_captions_and_networks_are_there_decides_the_columns(clip_folder: Path) -> None:
    metric = UltraEdit(str(clip_folder), dino=None)
    metric.add(replace(sample(), source_caption=""))
    assert metric.columns == (
        "clip_sim_source", "clip_sim_target", "clip_sim_dir", "clip_sim_image", "ssim_to_source",
        "source_clip_sim_target",
    )  # fmt: skip
    assert [math.isnan(value) for value in metric.rows["s"]] == [True, False, True, False, False, False]
    with pytest.raises(InputError, match="sample 's' has no caption of the edited clip"):
        metric.score(replace(sample(), edited_caption=""))


def test_the_usual_pixels_share_their_encoding(clip_folder: Path, dino: Path) -> None:
    passes: list[int] = []
    net = clip_encoder(str(clip_folder)).net.on("cpu")
    hooks = [net.model.vision_model.register_forward_hook(lambda *args: passes.append(1))]  # type: ignore[union-attr]
    hooks += [dino_encoder(str(dino)).net.on("cpu").register_forward_hook(lambda *args: passes.append(100))]
    edit = replace(sample(), source=noise(80), edited=noise(81))
    ClipFrame(str(clip_folder)).add(edit)
    UltraEdit(str(clip_folder), str(dino), preprocessing="pil").add(edit)
    for hook in hooks:
        hook.remove()
    assert sum(passes) == 202


def test_a_folder_of_something_else_is_refused(clip_folder: Path, dino: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="type 'clip'; legal are dinov2 and dinov2_with_registers"):
        UltraEdit(str(clip_folder), str(clip_folder)).prepare()
    (tmp_path / "config.json").write_text(json.dumps(json.loads((dino / "config.json").read_text())))
    with pytest.raises(InputError, match="cannot be read"):
        UltraEdit(str(clip_folder), str(tmp_path)).prepare()
