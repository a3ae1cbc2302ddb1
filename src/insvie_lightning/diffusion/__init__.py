"""Pure functions of the diffusion process: schedule, target, conditioning, losses, guidance, sampling."""
