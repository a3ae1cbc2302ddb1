"""The denoising loop with networks whose answer is known."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch import Tensor

from insvie_lightning.diffusion.released_dpm import ReleasedDPMScheduler
from insvie_lightning.diffusion.sampling import build_scheduler, sample
from insvie_lightning.errors import InputError

CLEAN = torch.randn(2, 3, 16, 4, 6, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(2, 3, 16, 4, 6, generator=torch.Generator().manual_seed(1))
KINDS = pytest.mark.parametrize(
    "kind", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler, ReleasedDPMScheduler], ids=["ddim", "dpm", "released"]
)
STOCHASTIC = pytest.mark.parametrize("kind", [CogVideoXDPMScheduler, ReleasedDPMScheduler], ids=["dpm", "released"])


def build(kind: Any) -> Any:
    return kind(
        snr_shift_scale=3.0, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )


class Oracle:
    """Knows the clean latents: v = (a z_t - z_0) / sqrt(1 - a^2). Remembers the timesteps it was asked at."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.timesteps: list[int] = []

    def __call__(self, noisy: Tensor, timestep: Tensor) -> Tensor:
        abar = self.scheduler.alphas_cumprod[timestep]
        if isinstance(self.scheduler, ReleasedDPMScheduler):
            abar = self.scheduler.network_abar[len(self.timesteps)]
        self.timesteps.append(int(timestep))
        return (abar.sqrt() * noisy - CLEAN) / (1 - abar).sqrt()


@KINDS
@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_a_network_that_knows_the_clean_latents_gets_them_back(kind: Any, steps: int) -> None:
    steps = max(steps, 2 if kind is ReleasedDPMScheduler else 1)  # a table of one entry cannot be rescaled
    scheduler = build(kind)
    oracle = Oracle(scheduler)
    latents = sample(oracle, scheduler, NOISE, steps, torch.Generator().manual_seed(0))
    assert len(oracle.timesteps) == steps
    torch.testing.assert_close(latents, CLEAN, atol=1e-3, rtol=0)


@KINDS
def test_timesteps_are_the_trailing_ones_of_the_release(kind: Any) -> None:
    scheduler = build(kind)
    oracle = Oracle(scheduler)
    sample(oracle, scheduler, NOISE, 50, torch.Generator().manual_seed(0))
    assert oracle.timesteps == list(range(999, 0, -20))


@KINDS
def test_only_the_stochastic_samplers_draw_from_the_generator(kind: Any) -> None:
    def run(seed: int) -> Tensor:
        return sample(lambda noisy, t: 0.1 * noisy, build(kind), NOISE, 4, torch.Generator().manual_seed(seed))

    assert torch.equal(run(0), run(0))
    assert torch.allclose(run(0), run(1), atol=0.01) is (kind is CogVideoXDDIMScheduler)


@STOCHASTIC
def test_every_sample_can_have_noise_of_its_own(kind: Any) -> None:
    def run(*seeds: int) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        scheduler = build(kind)
        return sample(lambda noisy, t: 0.1 * noisy, scheduler, NOISE[:1].repeat(len(seeds), 1, 1, 1, 1), 4, generators)

    both = run(3, 4)
    torch.testing.assert_close(both, torch.cat([run(3), run(4)]))
    assert not torch.allclose(both[0], both[1], atol=0.01)


@STOCHASTIC
def test_dpm_is_second_order(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step gets the clean latents and the timestep of the one before."""
    scheduler, seen = build(kind), []
    step = scheduler.step

    def recorded(
        prediction: Tensor, old: Tensor | None, timestep: Tensor, previous: Any, *rest: Any, **named: Any
    ) -> Any:
        result = step(prediction, old, timestep, previous, *rest, **named)
        seen.append((old, previous, timestep, result[1]))
        return result

    monkeypatch.setattr(scheduler, "step", recorded)
    sample(lambda noisy, t: 0.1 * noisy, scheduler, NOISE, 5, torch.Generator().manual_seed(0))
    assert seen[0][:2] == (None, None)
    for before, after in pairwise(seen):
        assert after[0] is before[3] and after[1] == before[2]


def test_half_precision_networks_are_sampled_in_float32() -> None:
    latents = sample(lambda noisy, t: (0.1 * noisy).bfloat16(), build(CogVideoXDDIMScheduler), NOISE, 2)
    assert latents.dtype == torch.float32


def test_samplers_are_found_by_name() -> None:
    config = build(CogVideoXDDIMScheduler).config
    kinds = {"ddim": CogVideoXDDIMScheduler, "dpm": CogVideoXDPMScheduler, "released": ReleasedDPMScheduler}
    for name, kind in kinds.items():
        scheduler = build_scheduler(name, config)  # type: ignore[arg-type]
        assert type(scheduler) is kind and scheduler.config["snr_shift_scale"] == 3.0
    with pytest.raises(InputError, match=r"^sampler is 'dmp'; legal are dpm, ddim, released; did you mean 'dpm'\?$"):
        build_scheduler("dmp", config)  # type: ignore[arg-type]


def test_a_scheduler_that_cannot_replay_noises_says_so() -> None:
    with pytest.raises(InputError, match="step_noises can be replayed by the sampler released, not by CogVideoXDPM"):
        sample(lambda noisy, t: noisy, build(CogVideoXDPMScheduler), NOISE, 2, step_noises=[NOISE])
