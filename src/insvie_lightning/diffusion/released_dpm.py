"""The sampler of the released InsViE, where it differs from the DPM scheduler of diffusers."""

from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXDPMScheduler
from diffusers.schedulers.scheduling_dpm_cogvideox import rescale_zero_terminal_snr
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from insvie_lightning.errors import InputError


class ReleasedDPMScheduler(CogVideoXDPMScheduler):
    """SDE-DPM-Solver++ 2M as released (VPSDEDPMPP2MSampler); v-prediction only.

    diffusers takes abar from the table of 1000 entries that was rescaled to zero terminal SNR. The release

    - picks the entries of its n steps first and rescales these, so that its a at 50 steps is up to 1.02e-3 larger;
    - still turns velocity into clean latents with the entry of the full table that is nearest to that a;
    - rounds timesteps down (the same ones where n divides 1000), and goes to the next of them, whatever n is;
    - returns the clean latents of the last step as they are.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Take `num_inference_steps` timesteps from pure noise on, and their own abar.

        Raises:
            InputError: Fewer than 2 steps, of which no table can be rescaled, or more than the schedule has.
        """
        if not 2 <= num_inference_steps <= self.config.num_train_timesteps:
            legal = f"2 to {self.config.num_train_timesteps}"
            raise InputError(f"num_inference_steps is {num_inference_steps}; the released sampler takes {legal}")
        self.num_inference_steps = num_inference_steps
        last = self.config.num_train_timesteps - 1
        timesteps = torch.from_numpy(np.linspace(last, 0, num_inference_steps, endpoint=False).astype(np.int64))
        shifted = CogVideoXDPMScheduler.from_config(self.config, rescale_betas_zero_snr=False).alphas_cumprod
        subset = rescale_zero_terminal_snr(shifted[timesteps].flip(0)).flip(0)
        nearest = (self.alphas_cumprod.sqrt() - subset.sqrt()[:, None]).abs().argmin(1)
        self.timesteps = timesteps.to(device)
        self.subset_abar = torch.cat([subset, subset.new_ones(1)])
        self.network_abar = self.alphas_cumprod[nearest]

    def step(
        self,
        model_output: Tensor,
        old_pred_original_sample: Tensor | None,
        timestep: Tensor | int,
        timestep_back: Tensor | int | None,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Tensor, Tensor]:
        """Go from one timestep to the next.

        Args:
            model_output: Velocity, of the shape of `sample`.
            old_pred_original_sample: Clean latents of the step before; None at the first.
            timestep: One of `timesteps`.
            timestep_back: The one before; None at the first.
            sample: z_t.
            generator: Draws the noise of this step.
            variance_noise: Taken instead of a draw: standard normal, of the shape of `sample`.
            **unused: What diffusers' scheduler takes beyond.

        Returns:
            z at the next timestep, and the predicted clean latents.
        """
        index = int((self.timesteps == timestep).nonzero())
        network, abar, following = self.network_abar[index], self.subset_abar[index], self.subset_abar[index + 1]
        clean = network.sqrt() * sample - (1 - network).sqrt() * model_output
        if index == self.num_inference_steps - 1:
            return clean, clean
        back = None if old_pred_original_sample is None else self.subset_abar[index - 1]
        h, r, *_ = self.get_variables(abar, following, back)
        keep, negative_take, *extrapolation = self.get_mult(h, r, abar, following, back)
        target = clean
        if old_pred_original_sample is not None:
            target = extrapolation[0] * clean - extrapolation[1] * old_pred_original_sample
        noise = variance_noise
        if noise is None:
            noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        spread = (1 - following).sqrt() * (1 - (-2 * h).exp()).sqrt()
        return keep * sample - negative_take * target + spread * noise, clean
