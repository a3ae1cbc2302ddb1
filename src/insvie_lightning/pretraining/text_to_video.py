"""Train a small CogVideoX transformer from captions: the base that an editor is fine-tuned from."""

import copy
from pathlib import Path

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from insvie_lightning.batch import EditBatch
from insvie_lightning.diffusion.losses import frame_weighted_mse
from insvie_lightning.diffusion.sampling import sample
from insvie_lightning.diffusion.schedule import add_noise, velocity
from insvie_lightning.metrics.toy import caption_recall
from insvie_lightning.nets.latents import decode_latents, encode_pixels, encode_prompts, to_device_pixels
from insvie_lightning.pretraining.optimizer import adamw_cosine
from insvie_lightning.toy.scene import FRAMES, HEIGHT, WIDTH
from insvie_lightning.toy.text import MAX_TOKENS, build_text_encoder, build_tokenizer
from insvie_lightning.weights.components import Components, load_vae, save_components


class TextToVideo(LightningModule):
    """Text-to-video diffusion on both clips of a triplet, each with its own caption.

    The text encoder is random and frozen (see `build_text_encoder`). Logs `val_loss` (v-MSE at fixed timesteps and
    noises) and `val_caption_recall` (share of captioned colours that are in the sampled video), both with EMA weights,
    which are what is saved: a folder of `transformer`, `vae`, `text_encoder`, `tokenizer` and `scheduler`, as
    diffusers lays a CogVideoX model out.

    Args:
        layers: Blocks of the transformer.
        heads: Attention heads.
        head_dim: Width of a head; heads x head_dim is the width of the network.
        vae: Folder of the autoencoder; `toy` is the shipped one.
        output: Folder that gets the model, in half precision.
        lr: Peak learning rate of AdamW; cosine to zero.
        warmup_steps: Linear warm-up.
        ema_decay: Decay of the average that is validated and saved.
        sampler_steps: DDIM steps of the validation videos.
    """

    def __init__(
        self,
        layers: int = 4,
        heads: int = 4,
        head_dim: int = 32,
        vae: str = "toy",
        output: Path = Path("runs/toy_base/model"),
        lr: float = 2e-3,
        warmup_steps: int = 200,
        ema_decay: float = 0.999,
        sampler_steps: int = 20,
    ) -> None:
        super().__init__()
        self.transformer = CogVideoXTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            num_layers=layers,
            in_channels=16,
            out_channels=16,
            time_embed_dim=128,
            text_embed_dim=64,
            sample_width=WIDTH // 8,
            sample_height=HEIGHT // 8,
            sample_frames=FRAMES,
            max_text_seq_length=MAX_TOKENS,
            spatial_interpolation_scale=1.0,
            temporal_interpolation_scale=1.0,
        )
        self.tokenizer = build_tokenizer()
        self.text_encoder = build_text_encoder(len(self.tokenizer)).requires_grad_(False)
        self.vae = load_vae(vae).requires_grad_(False)
        self.ema = AveragedModel(self.transformer, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        self.scheduler = CogVideoXDDIMScheduler(
            snr_shift_scale=3.0,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        )
        self.output, self.lr, self.warmup_steps, self.sampler_steps = output, lr, warmup_steps, sampler_steps

    def training_step(self, batch: EditBatch, batch_idx: int) -> Tensor:
        """Mean squared error of the velocity."""
        loss = self._loss(self.transformer, batch, None)
        self.log("train_loss", loss, prog_bar=True, batch_size=2 * len(batch))
        return loss

    def on_train_batch_end(self, outputs: object, batch: EditBatch, batch_idx: int) -> None:
        """Average the weights."""
        self.ema.update_parameters(self.transformer)

    def validation_step(self, batch: EditBatch, batch_idx: int) -> None:
        """Loss at fixed noises; videos sampled from the edited clips' captions."""
        generator = torch.Generator().manual_seed(batch_idx)
        network = self.ema.module
        self.log("val_loss", self._loss(network, batch, generator), prog_bar=True, batch_size=len(batch))
        assert batch.edited is not None
        prompts = self._embed(batch.edited_captions)
        shape = encode_pixels(self.vae, to_device_pixels(batch.edited)).shape
        noise = torch.randn(shape, generator=generator).to(self.device)
        latents = sample(
            lambda z, t: network(z, prompts, t.expand(len(z)), return_dict=False)[0],
            copy.deepcopy(self.scheduler),
            noise,
            self.sampler_steps,
        )
        videos = decode_latents(self.vae, latents)
        recall = caption_recall(videos, batch.edited_captions)
        self.log("val_caption_recall", recall, prog_bar=True, batch_size=len(batch))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine decay over the run."""
        return adamw_cosine(self, self.transformer.parameters(), self.lr, self.warmup_steps)

    def on_train_end(self) -> None:
        """Save the deliverable."""
        if self.trainer.is_global_zero:
            parts = Components(self.ema.module, self.vae, self.text_encoder, self.tokenizer, self.scheduler)
            save_components(parts, self.output, torch.float16)

    def _embed(self, prompts: tuple[str, ...]) -> Tensor:
        return encode_prompts(
            self.tokenizer, self.text_encoder.eval(), prompts, self.transformer.config["max_text_seq_length"]
        )

    def _loss(self, network: torch.nn.Module, batch: EditBatch, generator: torch.Generator | None) -> Tensor:
        assert batch.source is not None and batch.edited is not None
        pixels = to_device_pixels(torch.cat([batch.source, batch.edited]))
        with torch.no_grad():
            latents = encode_pixels(self.vae, pixels)
        prompts = self._embed(batch.source_captions + batch.edited_captions)
        timesteps = torch.randint(1000, (len(latents),), generator=generator).to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        abar = self.scheduler.alphas_cumprod.to(self.device)[timesteps]
        prediction = network(add_noise(latents, noise, abar), prompts, timesteps, return_dict=False)[0]
        return frame_weighted_mse(prediction, velocity(latents, noise, abar), mix=0.0).mean()
