"""LightningModules that are only predicted with: each is one step of building a data set."""

from insvie_lightning.builders.latents import EncodeLatents
from insvie_lightning.builders.static import BuildStatic
from insvie_lightning.builders.toy import BuildToy

__all__ = ["BuildStatic", "BuildToy", "EncodeLatents"]
