"""LightningModules that are trained to edit videos."""

from insvie_lightning.editors.insvie import InsViE

__all__ = ["InsViE"]
