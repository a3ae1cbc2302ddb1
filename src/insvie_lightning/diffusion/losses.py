"""Losses on the predicted velocity."""

import torch
from torch import Tensor


def frame_weights(frames: int, mix: float, device: torch.device | None = None) -> Tensor:
    """Weight of each latent frame i of T: (1 - mix) + mix (1 - i / T)^2.

    The released InsViE trains with mix = 0.5 (loss.py, `frameloss_weight`), so that early frames count about twice the
    last one; the sum is not renormalised. mix = 0 is the plain mean of the paper.
    """
    index = torch.arange(frames, device=device, dtype=torch.float32)
    return (1 - mix) + mix * (1 - index / frames) ** 2


def frame_weighted_mse(prediction: Tensor, target: Tensor, mix: float) -> Tensor:
    """Mean squared error per sample, latent frames weighted by `frame_weights`; B T C H W -> B, in float32.

    On velocities this equals the released loss w |x0_hat - x0|^2 with w = 1 / (1 - abar) exactly.
    """
    per_frame = (prediction.float() - target.float()).square().mean(dim=(2, 3, 4))
    return (per_frame * frame_weights(per_frame.shape[1], mix, per_frame.device)).mean(1)
