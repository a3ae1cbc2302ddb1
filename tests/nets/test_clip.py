"""The toy CLIP: shapes, bidirectional text, saving."""

from pathlib import Path

import torch

from insvie_lightning.nets.clip import ClipSize, build_clip, load_clip, save_clip

SIZE = ClipSize(hidden=32, layers=1, features=24)
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_images_and_sentences_become_features() -> None:
    model = build_clip(SIZE).eval()
    assert model.encode_image(IMAGES).shape == model.encode_text(TOKENS).shape == (2, 24)
    other = TOKENS.clone()
    other[:, 0] = (other[:, 0] + 1) % 64
    assert (model.encode_text(other) - model.encode_text(TOKENS)).abs().max() > 1e-4


@torch.no_grad()
def test_saved_in_half_precision_and_read_back(tmp_path: Path) -> None:
    model = build_clip(SIZE).eval()
    save_clip(model, SIZE, tmp_path / "clip")
    again = load_clip(tmp_path / "clip")
    assert not again.training and {p.dtype for p in again.parameters()} == {torch.float32}
    torch.testing.assert_close(again.encode_image(IMAGES), model.encode_image(IMAGES), atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(again.encode_text(TOKENS), model.encode_text(TOKENS), atol=1e-2, rtol=1e-2)
    parameters = sum(value.numel() for value in model.state_dict().values())
    assert (tmp_path / "clip/model.safetensors").stat().st_size < 2 * parameters + 20_000
