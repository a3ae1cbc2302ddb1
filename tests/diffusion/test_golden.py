"""Loss and sampler against what the released code computed, and what happens when something is done wrongly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor

from insvie_lightning.diffusion.guidance import Guidance, guided
from insvie_lightning.diffusion.losses import frame_weighted_mse
from insvie_lightning.diffusion.released_dpm import ReleasedDPMScheduler
from insvie_lightning.diffusion.sampling import build_scheduler, sample
from insvie_lightning.diffusion.schedule import add_noise, clean_from_velocity, velocity

Error = Callable[[Tensor, Tensor], float]
Denoise = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def losses(golden: Any, scheduler: CogVideoXDDIMScheduler, denoise: Denoise) -> tuple[Tensor, Tensor]:
    """Loss of every sample, and predicted clean latents; the timestep is the one of the recorded noise level."""
    table = scheduler.alphas_cumprod
    timesteps = (table.sqrt() - golden["loss/alphas_cumprod_sqrt"][:, None]).abs().argmin(1)
    abar = table[timesteps]
    noisy = add_noise(golden["loss/dst"], golden["loss/noise"], abar)
    prediction = denoise(noisy, golden["loss/src"], golden["loss/context"], timesteps)
    target = velocity(golden["loss/dst"], golden["loss/noise"], abar)
    loss = frame_weighted_mse(prediction, target, golden.settings["loss/frameloss_weight"])
    return loss, clean_from_velocity(noisy, prediction, abar)


def test_golden_loss_of_every_sample(golden: Any, cogvideox: CogVideoXDDIMScheduler, relative_error: Error) -> None:
    loss, clean = losses(golden, cogvideox, golden.denoise)
    for result, expected in zip(loss, golden["loss/loss"], strict=True):
        assert relative_error(result, expected) <= 1e-5
    assert relative_error(clean, golden["loss/pred_x0"]) <= 1e-5


def source_first(golden: Any) -> Denoise:
    return lambda noisy, source, prompts, timesteps: golden.denoise(source, noisy, prompts, timesteps)


def test_golden_loss_is_missed_with_the_source_before_the_noise(
    golden: Any, cogvideox: CogVideoXDDIMScheduler, relative_error: Error
) -> None:
    loss, _ = losses(golden, cogvideox, source_first(golden))
    assert relative_error(loss, golden["loss/loss"]) > 1e-3


def released_guidance(golden: Any, **changes: Any) -> Guidance:
    settings = golden.settings
    scales = {"guidance_scale": settings["sample/scale"], "video_guidance_scale": settings["sample/scale_img"]}
    return Guidance(**{**scales, "schedule": "oscillating", "exponent": settings["sample/exp"], **changes})


def sampled(golden: Any, scheduler: Any, denoise: Denoise, guidance: Guidance) -> Tensor:
    steps = golden.settings["sample/num_steps"]
    bound = guided(denoise, golden["sample/src"], golden["sample/context"], guidance, steps)
    # The release draws once in the first step and twice in the later ones, of which it uses the second.
    recorded = [golden[f"sample/step_noises/{index}"] for index in range(0, 2 * steps - 3, 2)]
    return sample(bound, scheduler, golden["sample/init"], steps, step_noises=recorded)


def test_golden_samples_with_dynamic_guidance_and_recorded_noises(
    golden: Any, cogvideox: CogVideoXDDIMScheduler, relative_error: Error
) -> None:
    scheduler = build_scheduler("released", cogvideox.config)
    result = sampled(golden, scheduler, golden.denoise, released_guidance(golden))
    assert not golden["sample/uncond"].any()  # the null text is zero, as `guided` has it
    assert relative_error(result, golden["sample/out"]) <= 1e-4


class FullTable(ReleasedDPMScheduler):
    """Noise levels of the full table, as diffusers has them."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device)
        self.subset_abar = torch.cat([self.alphas_cumprod[self.timesteps], torch.ones(1)])


class WrongBranch(Guidance):
    """The text scale on the branch without text."""

    def weights(self, timestep: int, num_inference_steps: int) -> tuple[float, float, float]:
        uu, cu, cc = super().weights(timestep, num_inference_steps)
        return uu, cc, cu


MUTATIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "guidance on the wrong branch": lambda golden: {
        "guidance": WrongBranch(**vars(released_guidance(golden)))
    },
    "guidance as the paper prints it": lambda golden: {"guidance": released_guidance(golden, form="paper_eq2")},
    "constant guidance": lambda golden: {"guidance": released_guidance(golden, schedule="constant")},
    "a ramp of guidance": lambda golden: {"guidance": released_guidance(golden, schedule="cosine_ramp")},
    "full-table noise levels": lambda golden: {"kind": FullTable},
    "source before noise": lambda golden: {"denoise": source_first(golden)},
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_golden_samples_are_missed_by(
    golden: Any, cogvideox: CogVideoXDDIMScheduler, relative_error: Error, mutation: str
) -> None:
    changed = MUTATIONS[mutation](golden)
    scheduler = changed.get("kind", ReleasedDPMScheduler).from_config(cogvideox.config)
    denoise, guidance = changed.get("denoise", golden.denoise), changed.get("guidance", released_guidance(golden))
    assert relative_error(sampled(golden, scheduler, denoise, guidance), golden["sample/out"]) > 1e-3
