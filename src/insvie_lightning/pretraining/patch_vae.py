"""Train a `PatchVAE`: principal components first, then the convolutions by squared error."""

from pathlib import Path

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from insvie_lightning.batch import EditBatch
from insvie_lightning.nets.patch_vae import PatchVAE
from insvie_lightning.pretraining.optimizer import adamw_cosine


class PatchVAETraining(LightningModule):
    """Autoencoder of both clips of a triplet; logs `val_psnr_db` and saves the last weights as a diffusers folder.

    Args:
        vae: The network.
        output: Folder that gets `config.json` and the weights in half precision.
        lr: Peak learning rate of AdamW; cosine to zero.
        warmup_steps: Linear warm-up.
        component_batches: Training batches that the principal components are computed from.
    """

    def __init__(
        self,
        vae: PatchVAE,
        output: Path = Path("runs/toy_vae/vae"),
        lr: float = 1.5e-3,
        warmup_steps: int = 100,
        component_batches: int = 32,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.output, self.lr, self.warmup_steps, self.component_batches = output, lr, warmup_steps, component_batches

    def on_fit_start(self) -> None:
        """Fit the principal components on the first batches of the training data."""
        if self.trainer.ckpt_path is None:
            loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
            batches = [_clips(batch) for batch, _ in zip(loader, range(self.component_batches), strict=False)]
            self.vae.fit_principal_components(torch.cat(batches).to(self.device))

    def training_step(self, batch: EditBatch, batch_idx: int) -> Tensor:
        """Mean squared error of the reconstruction; pixels in [-1, 1]."""
        clips = _clips(batch)
        latents = self.vae.encode(clips).latent_dist.mode()
        loss = (self.vae.decode(latents).sample - clips).square().mean()
        self.log("train_loss", loss, prog_bar=True, batch_size=len(clips))
        return loss

    def validation_step(self, batch: EditBatch, batch_idx: int) -> None:
        """Mean squared error of clamped reconstructions, in the unit interval."""
        clips = _clips(batch)
        rebuilt = self.vae.decode(self.vae.encode(clips).latent_dist.mode()).sample.clamp(-1, 1)
        self.log("val_mse", ((rebuilt - clips) / 2).square().mean(), batch_size=len(clips), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """PSNR of the mean error, so that easy clips do not dominate."""
        if "val_mse" in self.trainer.callback_metrics:
            psnr = -10 * torch.log10(self.trainer.callback_metrics["val_mse"])
            self.log("val_psnr_db", psnr, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine decay over the run."""
        return adamw_cosine(self, self.vae.parameters(), self.lr, self.warmup_steps)

    def on_train_end(self) -> None:
        """Save the deliverable."""
        if self.trainer.is_global_zero:
            self.vae.to(torch.float16).save_pretrained(self.output)
            self.vae.to(torch.float32)


def _clips(batch: EditBatch) -> Tensor:
    """Source and edited clips of a batch as 2B 3 F H W in [-1, 1]."""
    assert batch.source is not None and batch.edited is not None
    return torch.cat([batch.source, batch.edited]).transpose(1, 2).float() / 127.5 - 1
