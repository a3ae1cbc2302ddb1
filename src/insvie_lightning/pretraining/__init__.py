"""LightningModules that train what an editor starts from: an autoencoder, a text-to-video base, a CLIP."""

from insvie_lightning.pretraining.clip import ClipTraining
from insvie_lightning.pretraining.patch_vae import PatchVAETraining
from insvie_lightning.pretraining.text_to_video import TextToVideo

__all__ = ["ClipTraining", "PatchVAETraining", "TextToVideo"]
