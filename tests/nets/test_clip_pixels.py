"""What a CLIP is shown, against OpenAI's transform of PIL images."""

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from insvie_lightning.errors import InputError
from insvie_lightning.nets.clip_pixels import clip_pixels, to_tgve_square

CLIP = torch.randint(0, 256, (2, 3, 120, 90), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


def images() -> list[Image.Image]:
    return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in CLIP]


@pytest.fixture(scope="module")
def openai() -> Tensor:
    """OpenAI's transform."""
    transform = transforms.Compose(
        [
            transforms.Resize(56, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(56),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    return torch.stack([transform(image) for image in images()])


def test_pil_is_the_transform_of_the_published_tables(openai: Tensor) -> None:
    pixels = clip_pixels(CLIP, PROCESSOR, (56, 56))
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, openai, atol=1e-6, rtol=0)


def test_tensor_is_at_most_one_level_away(openai: Tensor) -> None:
    difference = (clip_pixels(CLIP, PROCESSOR, (56, 56), "tensor") - openai).abs()
    assert difference.max() < 1.01 / 255 / min(CLIP_STD) and difference.mean() < 1e-3


def test_squash_keeps_the_borders_and_normalises() -> None:
    clip = torch.zeros(1, 3, 40, 80, dtype=torch.uint8)
    clip[..., :20] = 255  # of the width's quarters, the first is white
    pixels = clip_pixels(clip, PROCESSOR, (56, 56), "squash") * torch.tensor(CLIP_STD)[:, None, None]
    pixels = pixels + torch.tensor(CLIP_MEAN)[:, None, None]
    assert pixels.shape == (1, 3, 56, 56)
    torch.testing.assert_close(pixels[..., :12], torch.ones(1, 3, 56, 12), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels[..., 16:], torch.zeros(1, 3, 56, 40), atol=1e-5, rtol=0)
    assert (clip_pixels(clip, PROCESSOR, (56, 56))[0, 0, 0, 0] - pixels[0, 0, 0, 0]).abs() > 0.1  # cropped away there


def test_an_unknown_preprocessing_is_named() -> None:
    with pytest.raises(
        InputError, match=r"no preprocessing 'pill': legal are pil, tensor, squash; did you mean 'pil'\?"
    ):
        clip_pixels(CLIP, PROCESSOR, (56, 56), "pill")  # type: ignore[arg-type]


def test_the_square_of_tgve_is_pillows_default_resize() -> None:
    square = to_tgve_square(CLIP)
    assert square.shape == (2, 3, 480, 480) and square.dtype == torch.uint8
    for frame, image in zip(square, images(), strict=True):
        assert torch.equal(frame, transforms.functional.pil_to_tensor(image.resize((480, 480))))
    assert to_tgve_square(square) is square
