"""The doors of what is edited, scored or built from: videos, pictures, their tables, the benchmarks."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from door import NAMES, Between, Door, Found, clip, from_inputs, from_loader
from lightning import LightningModule
from PIL import Image

from insvie_lightning.batch import EditBatch
from insvie_lightning.edit_list import list_edits
from insvie_lightning.video import write_clip

TGVE = "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption,Multiple\n"


def videos(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        write_clip(folder / f"{name}.mp4", clip(number))
    (folder / "edits.csv").write_text("video,instruction\na.mp4,red\nb.mp4,blue\nc.mp4,green\n")


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        Image.fromarray(clip(number).frames[0].transpose(1, 2, 0)).save(folder / f"{name}.png")
    (folder / "images.csv").write_text("image,instruction\na.png,red\nb.png,blue\nc.png,green\n")


def instruct_pairs(folder: Path) -> None:
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        for side in (0, 1):
            Image.fromarray(clip(side).frames[0].transpose(1, 2, 0)).save(folder / name / f"1_{side}.jpg")
        (folder / name / "prompt.json").write_text(json.dumps({"caption": "x", "edit": f"do {name}", "output": "y"}))
    (folder / "seeds.json").write_text(json.dumps([[name, ["1"]] for name in NAMES]))


def magic_pairs(folder: Path) -> None:
    for name in NAMES:
        (folder / "images" / name).mkdir(parents=True)
        for side in ("input", "output"):
            Image.fromarray(clip().frames[0].transpose(1, 2, 0)).save(folder / f"images/{name}/{name}-{side}.png")
    turns = [{"input": f"{n}-input.png", "output": f"{n}-output.png", "instruction": f"do {n}"} for n in NAMES]
    (folder / "edit_turns.json").write_text(json.dumps(turns))
    (folder / "global_descriptions.json").write_text(json.dumps({"a": {"a-input.png": "an a"}}))


def tgve(folder: Path) -> None:
    rows = "".join(f"{name},a {name},an art,an object,a background,all\n" for name in NAMES)
    folder.mkdir(parents=True)
    (folder / "tgve.csv").write_text(f"{TGVE}DAVIS Videos:\n{rows}")
    sentences = {f"edit_{edit}": f"do {edit}" for edit in ("style", "object", "background", "multiple")}
    (folder / "instructions.json").write_text(json.dumps(dict.fromkeys(NAMES, sentences)))
    for name in NAMES[:2]:
        write_clip(folder / f"DAVIS_480p/480p_videos/{name}.mp4", clip())
    frames = folder / "DAVIS_480p/480p_frames/c"
    frames.mkdir(parents=True)
    for number, pixels in enumerate(clip().frames):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(frames / f"{number:03d}.png")
    rows_plus = [
        {
            "video_name": f"DAVIS_480p/480p_videos/{name}.mp4",
            "instruction": "do",
            "input_caption": "x",
            "output_caption": "y",
            "task": "add",
        }
        for name in NAMES[:2]
    ]
    pq.write_table(pa.Table.from_pylist(rows_plus), folder / "plus.parquet")


class Copier(LightningModule):
    """An editor that gives the source back."""

    working_shape = (9, 32, 48)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def edit_batch(self, batch: EditBatch) -> torch.Tensor:
        assert batch.source is not None
        return batch.source.float() / 127.5 - 1


def raw_videos(folder: Path, between: Between) -> Found:
    from insvie_data_modules.raw_videos import RawVideos

    return from_inputs(RawVideos(folder, frames=5, fps=None, size=(32, 48), upscale=True), between)


def raw_videos_table(folder: Path, between: Between) -> Found:
    from insvie_data_modules.raw_videos import RawVideos

    return from_inputs(RawVideos(folder / "edits.csv", frames=5, fps=None, size=(32, 48), upscale=True), between)


def images(folder: Path, between: Between) -> Found:
    from insvie_data_modules.images import Images

    return from_inputs(Images(folder, size=(32, 48)), between)


def images_table(folder: Path, between: Between) -> Found:
    from insvie_data_modules.images import Images

    return from_inputs(Images(folder / "images.csv", size=(32, 48)), between)


def image_pairs(folder: Path, between: Between) -> Found:
    from insvie_data_modules.image_pairs import ImagePairs

    return from_inputs(ImagePairs(folder, size=(32, 48)), between)


def edit_folder(folder: Path, between: Between) -> Found:
    from insvie_data_modules.edit_folder import EditFolder

    data = EditFolder(folder, "blue")
    return from_loader(data.predict_dataloader(), between)


def edit_folder_table(folder: Path, between: Between) -> Found:
    from insvie_data_modules.edit_folder import EditFolder

    data = EditFolder(folder / "edits.csv", "blue")
    return from_loader(data.predict_dataloader(), between)


def edit_csv(folder: Path, between: Between) -> Found:
    from insvie_lightning.editors.bulk import QUARANTINE, edit_in_bulk
    from insvie_lightning.editors.editor import Editor
    from insvie_lightning.quarantine import read_quarantine

    edits = list_edits(folder / "edits.csv", "blue")
    between()
    done = folder / "edited"
    edit_in_bulk(Editor(Copier()), edits, done, tell=lambda line: None)
    return Found({path.stem for path in done.glob("*.mp4")}, read_quarantine(done / QUARANTINE))


def tgve_test(folder: Path, between: Between) -> Found:
    from insvie_data_modules.tgve import Tgve

    data = Tgve(folder, edits=("style",))
    return from_loader(data.test_dataloader(), between)


def tgve_plus_test(folder: Path, between: Between) -> Found:
    from insvie_data_modules.tgve_plus import TgvePlus

    data = TgvePlus(folder / "plus.parquet", folder)
    return from_loader(data.test_dataloader(), between)


AC = frozenset("ac")
_PAIRS = frozenset({"instructp2p_a_1", "instructp2p_c_1"})
# A benchmark that is not all there is refused at the start.
_ABSENT = frozenset({"vanished", "a link to nowhere", "a link to itself"})
DOORS = (
    Door("video", "RawVideos", videos, "b.mp4", raw_videos, AC),
    Door("video", "EditFolder", videos, "b.mp4", edit_folder, AC),
    # A long video is streamed, however long it takes.
    Door("video", "insvie edit --csv", videos, "b.mp4", edit_csv, AC, legal=frozenset({"12 000 frames"})),
    Door("video", "Tgve", tgve, "DAVIS_480p/480p_videos/b.mp4", tgve_test, frozenset({"a_style", "c_style"}),
         refused=_ABSENT),
    Door("video", "TgvePlus", tgve, "DAVIS_480p/480p_videos/b.mp4", tgve_plus_test, frozenset({"a_add"}),
         refused=_ABSENT),
    Door("picture", "Images", pictures, "b.png", images, AC),
    Door("picture", "ImagePairs", instruct_pairs, "b/1_0.jpg", image_pairs, _PAIRS),
    Door("picture", "Tgve, a frame", tgve, "DAVIS_480p/480p_frames/c/003.png", tgve_test,
         frozenset({"a_style", "b_style"})),
    Door("CSV", "RawVideos", videos, "edits.csv", raw_videos_table, AC, shared=True),
    Door("CSV", "Images", pictures, "images.csv", images_table, AC, shared=True),
    Door("CSV", "EditFolder", videos, "edits.csv", edit_folder_table, AC, shared=True),
    Door("CSV", "insvie edit --csv", videos, "edits.csv", edit_csv, AC, shared=True),
    Door("CSV", "Tgve", tgve, "tgve.csv", tgve_test, shared=True),
    Door("JSON", "ImagePairs, seeds", instruct_pairs, "seeds.json", image_pairs, shared=True),
    Door("JSON", "ImagePairs, a prompt", instruct_pairs, "b/prompt.json", image_pairs, _PAIRS),
    Door("JSON", "ImagePairs, turns", magic_pairs, "edit_turns.json", image_pairs, shared=True),
    Door("JSON", "ImagePairs, descriptions", magic_pairs, "global_descriptions.json", image_pairs, shared=True),
    Door("JSON", "Tgve, instructions", tgve, "instructions.json", tgve_test, shared=True),
    Door("Parquet", "TgvePlus", tgve, "plus.parquet", tgve_plus_test, shared=True),
)  # fmt: skip
