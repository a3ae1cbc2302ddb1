"""The technical network against torchvision's and against attention written out over all pairs of tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.video import SwinTransformer3d, swin3d_t

from insvie_lightning.nets.swin3d import Swin3d, WindowAttention


def torchvision_name(key: str) -> str:
    """`layers.1.blocks.0.mlp.fc1.bias` -> `features.2.0.mlp.0.bias`."""
    parts = key.split(".")
    if parts[0] != "layers":
        return key
    stage = 2 * int(parts[1])
    if parts[2] == "downsample":
        return f"features.{stage + 1}.{'.'.join(parts[3:])}"
    return f"features.{stage}.{parts[3]}.{'.'.join(parts[4:])}".replace("fc1", "0").replace("fc2", "3")


def matched(ours: Swin3d, theirs: SwinTransformer3d) -> tuple[nn.Module, nn.Module]:
    """Both with the same random weights; the fragment tables equal the relative ones, which undoes the gate."""
    generator = torch.Generator().manual_seed(0)
    state = theirs.state_dict()
    for name, value in ours.state_dict().items():
        if name.endswith("fragment_position_bias_table"):
            value.copy_(ours.state_dict()[name.replace("fragment", "relative")])
        elif name.endswith("relative_position_index"):
            assert torch.equal(value, state[torchvision_name(name)])
        else:
            spread = 1.0 if "table" in name else 0.5 / value[0].numel() ** 0.5
            value.copy_(spread * torch.randn(value.shape, generator=generator) + float("norm.weight" in name))
            state[torchvision_name(name)].copy_(value)
    return ours.eval(), theirs.eval()


def features(theirs: Any, clip: Tensor) -> Tensor:
    return theirs.norm(theirs.features(theirs.patch_embed(clip))).movedim(-1, 1)


def random_clip(*shape: int) -> Tensor:
    return torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_without_the_gate_it_is_torchvisions_swin3d_t() -> None:
    ours, theirs = matched(Swin3d(), swin3d_t())
    clip = random_clip(8, 224, 224)
    result, expected = ours(clip), features(theirs, clip)
    assert result.shape == (1, 768, 4, 7, 7)
    assert (result - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_without_the_gate_it_is_torchvisions_where_windows_move_in_time() -> None:
    theirs = SwinTransformer3d([2, 4, 4], 8, [2, 2], [1, 2], [8, 7, 7])
    ours, theirs = matched(Swin3d(8, (2, 2), (1, 2)), theirs)
    clip = random_clip(32, 56, 56)
    result, expected = ours(clip), features(theirs, clip)
    assert (result - expected).abs().max() <= 1e-5 * expected.abs().max()


def written_out(net: WindowAttention, tokens: Tensor, shift: tuple[int, int, int]) -> Tensor:
    """Attention over all pairs of tokens of T H W C at once, with nothing but the definition of the gated bias."""
    size, window = torch.tensor(tokens.shape[:3]), torch.tensor([8, 7, 7])
    places = torch.cartesian_prod(*(torch.arange(side) for side in size))
    moved = (places - torch.tensor(shift)) % size
    passed = places < torch.tensor(shift)
    neighbours = ((moved // window)[:, None] == (moved // window)[None]).all(-1)
    neighbours &= (passed[:, None] == passed[None]).all(-1)

    step = moved[:, None] - moved[None] + window - 1
    row = ((step[..., 0] * 13 + step[..., 1]) * 13 + step[..., 2]).where(neighbours, 0)
    cell = places[:, 1:] * 7 // size[1:]
    gate = (cell[:, None] - cell[None]).abs().sum(-1)[..., None]
    relative, fragment = net.relative_position_bias_table[row], net.fragment_position_bias_table
    bias = relative if fragment is None else gate * relative + (1 - gate) * fragment[row]

    q, k, v = net.qkv(tokens.flatten(0, 2)).unflatten(-1, (3, net.heads, -1)).permute(1, 2, 0, 3)
    logits = q @ k.mT / q.shape[-1] ** 0.5 + bias.movedim(-1, 0)
    mixed = logits.masked_fill(~neighbours, -torch.inf).softmax(-1) @ v
    return net.proj(mixed.transpose(0, 1).flatten(1)).unflatten(0, tuple(size.tolist()))


@pytest.mark.parametrize(
    ("size", "shifted", "gated", "shift"),
    [
        ((8, 14, 14), False, True, (0, 0, 0)),
        ((8, 14, 14), True, True, (0, 3, 3)),
        ((16, 14, 7), True, True, (4, 3, 0)),
        ((16, 7, 7), True, False, (4, 0, 0)),
    ],
)
@torch.no_grad()
def test_the_gated_bias_by_its_definition(
    size: tuple[int, int, int], shifted: bool, gated: bool, shift: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    net = WindowAttention(4, 2, shifted, gated)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    tokens = torch.randn(2, *size, 4)
    assert torch.allclose(net(tokens)[1], written_out(net, tokens[1], shift), atol=1e-4)
