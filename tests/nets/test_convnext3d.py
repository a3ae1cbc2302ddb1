"""The aesthetic network against torchvision's, which knows no time."""

import torch
from torchvision.models import convnext_tiny

from insvie_lightning.nets.convnext3d import ConvNext3d

PARTS = {"dwconv": "block.0", "norm": "block.2", "pwconv1": "block.3", "pwconv2": "block.5"}


def torchvision_name(key: str) -> str:
    """`stages.1.2.dwconv.bias` -> `features.3.2.block.0.bias`."""
    parts = key.split(".")
    if parts[0] == "downsample_layers":
        return f"features.{2 * int(parts[1])}.{parts[2]}.{parts[3]}"
    if parts[0] == "norm":
        return f"classifier.0.{parts[1]}"
    block = f"features.{2 * int(parts[1]) + 1}.{parts[2]}"
    return f"{block}.layer_scale" if parts[3] == "gamma" else f"{block}.{PARTS[parts[3]]}.{parts[4]}"


@torch.no_grad()
def test_on_a_still_clip_it_is_torchvisions_convnext_tiny() -> None:
    ours, theirs = ConvNext3d().eval(), convnext_tiny().eval()
    state = theirs.state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, value in ours.state_dict().items():
        flat = state[torchvision_name(name)]
        flat.copy_(torch.randn(flat.shape, generator=generator) / (flat[0].numel() ** 0.5))
        value.zero_()
        if value.dim() < 5:
            value.copy_(flat.reshape(value.shape))
        elif name.startswith("downsample_layers.0"):
            value.copy_(flat[:, :, None].expand_as(value) / value.shape[2])
        else:
            value[:, :, value.shape[2] // 2] = flat
    image = torch.randn(1, 3, 96, 64, generator=generator)
    features = theirs.features(image)
    expected = theirs.classifier[0](features)[:, :, None].expand(-1, -1, 3, -1, -1)
    result = ours(image[:, :, None].expand(-1, -1, 6, -1, -1))
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 2e-5 * expected.abs().max()


@torch.no_grad()
def test_the_second_of_each_three_blocks_sees_one_frame_before_and_one_after() -> None:
    net = ConvNext3d((4,), (8,))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    clip = torch.randn(1, 3, 14, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = clip.clone()
    changed[:, :, 6] += 1  # of the fourth pair of frames
    difference = (net(changed) - net(clip)).abs().amax((0, 1, 3, 4))
    assert (difference > 1e-4).tolist() == [False, False, True, True, True, False, False]
