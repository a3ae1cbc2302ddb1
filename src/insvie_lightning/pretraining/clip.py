"""Train a small CLIP on frames and captions of triplets."""

from pathlib import Path

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from open_clip.loss import ClipLoss
from torch import Tensor

from insvie_lightning.batch import EditBatch
from insvie_lightning.nets.clip import ClipSize, build_clip, save_clip
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.pretraining.optimizer import adamw_cosine
from insvie_lightning.toy.text import build_tokenizer


class ClipTraining(LightningModule):
    """Contrastive training on the middle frames of both clips; logs `val_retrieval`, saves the last weights.

    `val_retrieval` is the share of validation frames whose own caption is the nearest of a batch's captions; equal
    captions count as the same one.

    Args:
        size: Sizes of the network; the vocabulary is the toy world's.
        output: Folder that gets the model, in half precision.
        lr: Peak learning rate of AdamW; cosine to zero.
        warmup_steps: Linear warm-up.
    """

    def __init__(
        self,
        size: ClipSize = ClipSize(),  # noqa: B008 (frozen)
        output: Path = Path("runs/toy_clip/clip"),
        lr: float = 1e-3,
        warmup_steps: int = 100,
    ) -> None:
        super().__init__()
        self.tokenizer = build_tokenizer()
        self.size, self.model, self.loss = size, build_clip(size), ClipLoss()
        self.output, self.lr, self.warmup_steps = output, lr, warmup_steps

    def training_step(self, batch: EditBatch, batch_idx: int) -> Tensor:
        """Symmetric cross entropy over the batch's pairs."""
        images, texts = self._features(batch)
        loss = self.loss(images, texts, self.model.logit_scale.exp())
        self.log("train_loss", loss, prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: EditBatch, batch_idx: int) -> None:
        """Retrieval of the caption among those of the batch."""
        images, texts = self._features(batch)
        captions = batch.source_captions + batch.edited_captions
        found = (images @ texts.T).argmax(1).tolist()
        right = [captions[i] == caption for i, caption in zip(found, captions, strict=True)]
        self.log("val_retrieval", sum(right) / len(right), prog_bar=True, batch_size=len(right))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine decay over the run."""
        return adamw_cosine(
            self, self.model.parameters(), self.lr, self.warmup_steps, betas=(0.9, 0.98), weight_decay=0.05
        )

    def on_train_end(self) -> None:
        """Save the deliverable."""
        if self.trainer.is_global_zero:
            save_clip(self.model, self.size, self.output)

    def _features(self, batch: EditBatch) -> tuple[Tensor, Tensor]:
        assert batch.source is not None and batch.edited is not None
        middle = batch.source.shape[1] // 2
        frames = to_device_pixels(torch.cat([batch.source[:, middle], batch.edited[:, middle]]))
        tokens = self.tokenizer(
            list(batch.source_captions + batch.edited_captions),
            padding="max_length",
            max_length=self.size.tokens,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(frames.device)
        return self.model.encode_image(frames, normalize=True), self.model.encode_text(tokens, normalize=True)
