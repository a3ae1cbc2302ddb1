"""ViCLIP scores: directions, presets, what may be missing, and the files that weights come in."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.metrics.per_sample import EditedSample
from insvie_lightning.metrics.viclip import (
    Preset,
    ViClip,
    direction_cosine,
    frame_indices,
    load_viclip,
    viclip_encoder,
    viclip_pixels,
)
from insvie_lightning.nets.viclip import ViClipNet, ViClipSize
from insvie_lightning.video import read_clip

CPU = torch.device("cpu")
TINY = ViClipSize(side=28, width=64, layers=1, features=24, text_width=64, text_layers=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViCLIP for the real vocabulary, in a folder as the hub has it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("viclip")
    save_file(
        {key: value.contiguous() for key, value in ViClipNet(TINY).state_dict().items()}, folder / "model.safetensors"
    )
    return folder


def noise(seed: int, frames: int = 9) -> Tensor:
    return torch.randint(0, 256, (frames, 3, 40, 60), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def sample(frames: int = 9) -> EditedSample:
    return EditedSample(
        key="s",
        source=noise(0, frames),
        edited=noise(1, frames),
        instruction="make it rain",
        source_caption="a horse in the sun",
        edited_caption="a horse in the rain",
    )


def test_a_change_as_asked_is_one_and_its_opposite_minus_one() -> None:
    asked = torch.tensor([0.3, -0.2, 0.1])
    assert direction_cosine(2 * asked, asked) == pytest.approx(1)
    assert direction_cosine(-asked, asked) == pytest.approx(-1)
    assert direction_cosine(torch.tensor([0.2, 0.3, 0.0]), asked) == pytest.approx(0, abs=1e-6)
    assert direction_cosine(torch.zeros(3), asked) is None and direction_cosine(asked, torch.zeros(3)) is None


class Constructed:
    """An encoder whose embeddings are chosen by hand: videos by their first value, sentences by their words."""

    def __init__(self, embeddings: dict[Any, list[float]]) -> None:
        self.embeddings = {name: F.normalize(torch.tensor(value), dim=0) for name, value in embeddings.items()}

    def video(self, clip: Tensor, preset: Preset) -> Tensor:
        return self.embeddings[int(clip[0, 0, 0, 0])]

    def sentence(self, sentence: str, device: torch.device) -> Tensor:
        return self.embeddings[sentence]


def test_both_scores_of_constructed_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {0: [2.0, 0.0], 1: [0.0, 5.0], "sun": [0.1, 0.0], "rain": [0.0, 0.3], "both": [1.0, 1.0]}
    monkeypatch.setattr("insvie_lightning.metrics.viclip.viclip_encoder", lambda model: Constructed(table))
    zeros, ones = (torch.full((8, 3, 4, 4), value, dtype=torch.uint8) for value in (0, 1))
    metric, edit = ViClip(), EditedSample("s", zeros, ones, source_caption="sun", edited_caption="rain")
    assert metric.score(edit) == pytest.approx((1, 1, 0))
    assert metric.score(replace(edit, source=ones, edited=zeros)) == pytest.approx((-1, 0, 0))
    # From (1, 0) to (0, 1) where (1, 0) to (1, 1) / sqrt 2 was asked: 67.5 degrees less 45.
    part = metric.score(replace(edit, edited_caption="both"))
    assert part == pytest.approx((math.cos(math.pi / 8), 2**-0.5, 0))


def test_undefined_directions_are_zero_and_counted(weights: Path) -> None:
    metric, edit = ViClip(str(weights)), sample()
    same = replace(edit, key="same", edited=edit.source)
    no_change_asked = replace(edit, key="unasked", source_caption=edit.edited_caption)
    for each in (edit, same, no_change_asked):
        metric.add(each)
    assert [metric.rows[key][2] for key in ("s", "same", "unasked")] == [0, 1, 1]
    assert metric.rows["same"][0] == metric.rows["unasked"][0] == 0 and metric.rows["s"][0] != 0
    result = metric.compute()
    assert result["viclip_dir_undefined"] == pytest.approx(2 / 3)
    assert result["source_viclip_out"] == pytest.approx(metric.rows["same"][1], abs=1e-6)


def test_without_the_sources_caption_only_the_direction_is_missing(weights: Path) -> None:
    metric, edit = ViClip(str(weights)), sample()
    metric.update(
        EditBatch(("s",), (edit.instruction,), edit.source[None], edited_captions=(edit.edited_caption,)),
        EditedVideos(edit.edited[None]),
    )
    result = metric.compute()
    assert result["viclip_dir"].isnan() and result["viclip_dir_missing"] == 1
    assert result["viclip_out"] == pytest.approx(metric.score(edit)[1])
    with pytest.raises(InputError, match="sample 's' has no caption of the edited clip"):
        metric.score(replace(edit, edited_caption=""))


@torch.no_grad()
def test_scores_are_the_cosines_of_the_networks_embeddings(weights: Path) -> None:
    edit, net = sample(), load_viclip(weights / "model.safetensors")
    from open_clip import SimpleTokenizer

    def video(clip: Tensor) -> Tensor:
        return net.embed_video(viclip_pixels(clip[[0, 1, 2, 3, 4, 5, 6, 7]], 28, "clip")[None])

    texts = net.embed_tokens(SimpleTokenizer(context_length=32)([edit.source_caption, edit.edited_caption]))
    told, asked = F.normalize(texts)
    before, after = F.normalize(torch.cat([video(edit.source), video(edit.edited)]))
    expected = F.cosine_similarity(after - before, asked - told, dim=0), after @ asked
    assert ViClip(str(weights)).score(edit)[:2] == pytest.approx([float(value) for value in expected], abs=1e-5)
    official = ViClip(str(weights), preset="official").score(edit)
    assert abs(official[1] - float(expected[1])) > 1e-5


def test_frames_by_both_rules() -> None:
    assert frame_indices(32, 8, "clip") == frame_indices(32, 8, "official") == [0, 4, 8, 12, 16, 20, 24, 28]
    assert frame_indices(29, 8, "clip") == [0, 3, 7, 10, 14, 18, 21, 25]
    assert frame_indices(29, 8, "official") == [0, 3, 6, 9, 12, 15, 18, 21]
    assert frame_indices(5, 8, "clip") == [0, 0, 1, 1, 2, 3, 3, 4]


def test_a_clip_too_short_for_the_official_rule_is_named(weights: Path) -> None:
    with pytest.raises(InputError, match=r"sample 's': .* needs 8 frames and the clip has 5; use preset 'clip'"):
        ViClip(str(weights), preset="official").score(sample(5))
    with pytest.raises(InputError, match=r"no preset 'offical'; legal are clip, official; did you mean 'official'\?"):
        ViClip(preset="offical")  # type: ignore[arg-type]


def test_pixels_of_both_presets() -> None:
    frames, bicubic = noise(3, 2), transforms.InterpolationMode.BICUBIC
    cropped = transforms.Compose(
        [
            transforms.Resize(28, interpolation=bicubic),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    expected = torch.stack([cropped(to_pil_image(frame)) for frame in frames])
    torch.testing.assert_close(viclip_pixels(frames, 28, "clip"), expected, atol=1e-6, rtol=0)
    # Every second row and column: bilinear without antialiasing is then the mean of 2 x 2.
    even = noise(4, 2)[..., :56].repeat_interleave(2, 2)[:, :, :56]
    means = F.avg_pool2d(even.float(), 2).round() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (means - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(viclip_pixels(even, 28, "official"), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_long_sentence_keeps_its_end_and_a_short_one_is_padded_with_zeros(weights: Path) -> None:
    encoder, seen = viclip_encoder(str(weights)), list[Tensor]()
    hook = encoder.net.on("cpu").text_encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for sentence in ("a horse " * 40, "a lone horse"):
        encoder.sentence(sentence, CPU)
    hook.remove()
    assert seen[0].shape == (1, 32) and seen[0][0, -1] == 49407 and not (seen[0] == 0).any()
    assert seen[1][0, 4] == 49407 and not seen[1][0, 5:].any()


def test_a_video_is_embedded_once(weights: Path) -> None:
    metric, passes = ViClip(str(weights)), []
    net = viclip_encoder(str(weights)).net.on("cpu")
    hook = net.vision_encoder.register_forward_hook(lambda *args: passes.append(1))
    edit = replace(sample(), source=noise(50), edited=noise(51))
    metric.add(edit)
    metric.add(replace(edit, key="other", edited=noise(52)))
    hook.remove()
    assert len(passes) == 3  # the source and two edits; direction and the source's own value need no more


def test_both_kinds_of_file_and_what_is_wrong_with_one(weights: Path, tmp_path: Path) -> None:
    state = load_file(weights / "model.safetensors")
    released = tmp_path / "ViClip-InternVid-10M-FLT.pth"
    torch.save({"model": state}, released)
    for name in (str(tmp_path), str(released), str(weights)):
        assert ViClip(name).score(sample()) == ViClip(str(weights)).score(sample())
    torch.save({"model": state | {"text_encoder.extra": torch.zeros(1)}}, released)
    with pytest.raises(InputError, match=r"another model: with unknown text_encoder\.extra"):
        load_viclip(released)
    torch.save({"model": {key: value for key, value in state.items() if "ln_post" not in key}}, released)
    with pytest.raises(InputError, match=r"without vision_encoder\.ln_post\.\{weight,bias\}"):
        load_viclip(released)
    torch.save({"model": {"conv.weight": torch.zeros(1)}}, released)
    with pytest.raises(InputError, match=r"another model than ViCLIP: it has no 'vision_encoder\.conv1\.weight'"):
        load_viclip(released)
    torch.save({"state": 3}, released)
    with pytest.raises(InputError, match="holds no tensors by name"):
        load_viclip(released)
    released.write_bytes(b"no weights")
    with pytest.raises(InputError, match="is damaged, cut off, or no file of weights"):
        load_viclip(released)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="is damaged, cut off, or no file of weights"):
        load_viclip(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    released.unlink()
    with pytest.raises(InputError, match=r"has no file model\.safetensors or ViClip.*: give the folder or the file"):
        ViClip(str(tmp_path)).prepare()


@pytest.mark.proof
def test_a_real_clip_at_full_size(shared: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ViClipNet(ViClipSize())
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, tmp_path / "model.safetensors")
    clip = torch.from_numpy(read_clip(shared / "real/videos/horse.mp4").frames)
    captions: dict[str, Any] = {"source_caption": "a horse in the sun", "edited_caption": "a horse in the rain"}
    metric = ViClip(str(tmp_path))
    metric.prepare()
    scores = []
    for edited in (clip.flip(-1), clip):
        start = time.perf_counter()
        scores.append(metric.score(EditedSample("horse", clip, edited, **captions)))
        print(f"\nViCLIP of two clips {tuple(clip.shape)}: {time.perf_counter() - start:.1f} s")
    changed, same = (dict(zip(metric.names, score, strict=True)) for score in scores)
    assert changed["viclip_dir_undefined"] == 0 and same["viclip_dir_undefined"] == 1
    assert abs(changed["viclip_out"]) < 1 and changed["viclip_out"] != same["viclip_out"]
