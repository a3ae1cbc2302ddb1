"""LightningModules that are only predicted with: each is one step of building a data set."""

from insvie_lightning.builders.captions import BuildCaptions
from insvie_lightning.builders.edits import BuildEdits
from insvie_lightning.builders.filter import FilterTriplets
from insvie_lightning.builders.first_frames import BuildFirstFrames
from insvie_lightning.builders.image_editors import CosXLEdit, InstructPix2Pix
from insvie_lightning.builders.latents import EncodeLatents
from insvie_lightning.builders.pairs import BuildPairs
from insvie_lightning.builders.sets import BuildSets
from insvie_lightning.builders.static import BuildStatic
from insvie_lightning.builders.toy import BuildToy
from insvie_lightning.builders.videos import BuildVideos

__all__ = [
    "BuildCaptions",
    "BuildEdits",
    "BuildFirstFrames",
    "BuildPairs",
    "BuildSets",
    "BuildStatic",
    "BuildToy",
    "BuildVideos",
    "CosXLEdit",
    "EncodeLatents",
    "FilterTriplets",
    "InstructPix2Pix",
]
