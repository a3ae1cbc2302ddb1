"""The frame-weighted loss against the released formula."""

import pytest
import torch

from insvie_lightning.diffusion.losses import frame_weighted_mse, frame_weights

WEIGHTS_13 = [1.000, 0.926, 0.858, 0.796, 0.740, 0.689, 0.645, 0.607, 0.574, 0.547, 0.527, 0.512, 0.503]


def test_the_released_weights() -> None:
    assert frame_weights(13, 0.5).tolist() == pytest.approx(WEIGHTS_13, abs=6e-4)
    assert float(frame_weights(13, 0.5).mean()) == pytest.approx(0.6864, abs=5e-5)
    assert float(frame_weights(7, 0.5).mean()) == pytest.approx(0.7041, abs=5e-5)
    assert frame_weights(7, 0.0).tolist() == [1.0] * 7


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_the_loss_is_the_released_sum(mix: float) -> None:
    """L = (1 - f) mean_i e_i + f (1 / T) sum_i (1 - i / T)^2 e_i."""
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.randn(2, 7, 4, 3, 5, generator=generator) for _ in range(2))
    errors = (prediction - target).square().mean((2, 3, 4))
    expected = (1 - mix) * errors.mean(1) + mix * sum((1 - i / 7) ** 2 * errors[:, i] for i in range(7)) / 7
    torch.testing.assert_close(frame_weighted_mse(prediction, target, mix), expected)


def test_every_sample_has_a_loss_of_its_own() -> None:
    target = torch.zeros(3, 2, 4, 3, 5)
    prediction = target.clone()
    prediction[1] = 2
    assert frame_weighted_mse(prediction, target, 0.0).tolist() == [0, 4, 0]


def test_half_precision_is_summed_in_float32() -> None:
    prediction = torch.full((1, 2, 4, 3, 5), 1.0078125, dtype=torch.bfloat16)
    loss = frame_weighted_mse(prediction, torch.zeros_like(prediction), 0.0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(1.0078125**2)
