"""First-party data modules; importing this package registers them."""

from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_data_modules.drafts import Drafts
from insvie_data_modules.edit_folder import EditFolder
from insvie_data_modules.image_pairs import ImagePairs
from insvie_data_modules.images import Images
from insvie_data_modules.raw_videos import RawVideos
from insvie_data_modules.sample_sets import SampleSet, SampleSets
from insvie_data_modules.shard_set import ShardSet
from insvie_data_modules.tgve import Tgve
from insvie_data_modules.tgve_plus import TgvePlus
from insvie_data_modules.toy_scenes import ToyScenes

__all__ = [
    "Curriculum",
    "Drafts",
    "EditFolder",
    "ImagePairs",
    "Images",
    "RawVideos",
    "SampleSet",
    "SampleSets",
    "ShardSet",
    "Stage",
    "Tgve",
    "TgvePlus",
    "ToyScenes",
]
