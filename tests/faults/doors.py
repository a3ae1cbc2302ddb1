"""The doors through which files come in: for each a good folder, the file to spoil, and what a user does with it."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from corrupter import PLACES
from lightning import LightningModule
from PIL import Image

from insvie_lightning.batch import Clip, EditBatch, Triplet
from insvie_lightning.cli import main
from insvie_lightning.edit_list import list_edits
from insvie_lightning.errors import InputError
from insvie_lightning.report.score_sheet import SHEET
from insvie_lightning.shards.latents import LatentRecipe, pack_latents
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import write_clip

Between = Callable[[], None]
"""Called when everything is listed and nothing is read yet."""
NAMES = ("a", "b", "c")
TGVE = "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption,Multiple\n"


@dataclass(frozen=True, slots=True)
class Found:
    """What came through a door: the keys that are good, and key -> reason of those set aside."""

    good: set[str]
    bad: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Door:
    """A way in.

    Attributes:
        kind: Kind of the spoilt file, one of `corrupter.DAMAGES`.
        name: What the user does.
        fill: Lays good files into an empty folder.
        victim: The file to spoil.
        use: Does what a user does with the folder.
        neighbours: Keys that come through whatever is done to the victim.
        shared: Whether the others hang on the victim, as the rows on their table: then all may be refused.
        refused: Faults for which all may be refused, though nothing hangs on the victim.
        legal: Faults that are none here.
    """

    kind: str
    name: str
    fill: Callable[[Path], None]
    victim: str
    use: Callable[[Path, Between], Found]
    neighbours: frozenset[str] = frozenset()
    shared: bool = False
    refused: frozenset[str] = frozenset()
    legal: frozenset[str] = frozenset()


def clip(number: int = 0, frames: int = 9, size: tuple[int, int] = (32, 48)) -> Clip:
    """A moving gradient."""
    height, width = size
    pixels = np.zeros((frames, 3, height, width), np.uint8)
    pixels[:, 0] = 5 * np.arange(width) % 256
    pixels[:, 1] = 7 * np.arange(height)[:, None] % 256
    pixels[:, 2] = (25 * (np.arange(frames) + number) % 256)[:, None, None]
    return Clip(pixels, 8.0)


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


def shards(folder: Path) -> None:
    with ShardWriter(folder, shard_size=3) as writer:
        for number, key in enumerate("uvwxyz"):
            origin: Any = "static" if number % 2 else "real"
            source, edited = clip(number), clip(number + 3)
            writer.write(Triplet(key, source, edited, f"do {key}", origin=origin, scores={"judge": 5.0}))


def compacted(folder: Path) -> None:
    from insvie_lightning.shards.manifest import compact

    shards(folder)
    compact(folder)


def latents(folder: Path) -> None:
    recipe = LatentRecipe("an encoder", frames=5, size=(32, 48), resize="cover", dtype="float32")
    with ShardWriter(folder, shard_size=1) as writer:
        for key in "xy":
            data = pack_latents({"source": torch.zeros(2, 16, 4, 6), "edited": torch.ones(2, 16, 4, 6)}, recipe)
            writer.write_members({"key": key, "instruction": "do"}, {"latents.safetensors": data})
    row = pq.read_table(folder / "shard-000000.parquet").to_pylist()[0]["members"]
    place = next(member for member in row if member["name"] == "latents.safetensors")
    tar = (folder / "shard-000000.tar").read_bytes()
    (folder / "victim").write_bytes(tar[place["offset"] : place["offset"] + place["size"]])


def release(folder: Path) -> None:
    """Zips as released: `b` lies in `source_00.zip`, `a` and `c` in `source_01.zip`."""
    folder.mkdir(parents=True)
    encoded = folder / "clip.mp4"
    write_clip(encoded, clip())
    data = encoded.read_bytes()
    encoded.unlink()
    for side in ("source", "edited"):
        for number, names in enumerate(("b", "ac")):
            with zipfile.ZipFile(folder / f"{side}_{number:02d}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name in names:
                    archive.writestr(f"x/{name}.mp4", data)
    (folder / "train.csv").write_text("video,instruct\na.mp4,red\nb.mp4,blue\nc.mp4,green\n")


def released_folders(folder: Path) -> None:
    for side in ("source", "edited"):
        for name in NAMES:
            write_clip(folder / side / f"{name}.mp4", clip())
    (folder / "train.csv").write_text("video,instruct\na.mp4,red\nb.mp4,blue\nc.mp4,green\n")


def named_folders(folder: Path) -> None:
    released_folders(folder)
    (folder / "train.csv").unlink()
    (folder / "instructions.json").write_text(json.dumps({f"{name}.mp4": f"do {name}" for name in NAMES}))


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


def editor(folder: Path) -> None:
    from insvie_lightning.editors import InsViE
    from insvie_lightning.weights.deliverable import save_deliverable

    model = InsViE(base="toy", lora_rank=1, num_inference_steps=1, sampler="ddim")
    model.configure_model()
    save_deliverable(model.deliverable(), folder)


def base(folder: Path) -> None:
    from insvie_lightning.weights.components import TOY

    shutil.copytree(TOY, folder)


def released_checkpoint(folder: Path) -> None:
    from insvie_lightning.weights.export import export_editor

    editor(folder / "editor")
    export_editor(folder / "editor", folder / "sat", "sat")
    next((folder / "sat").rglob("*.pt")).rename(folder / "b.pt")


def lora_file(folder: Path) -> None:
    from insvie_lightning.weights.export import export_editor

    editor(folder / "editor")
    export_editor(folder / "editor", folder / "lora", "lora")


def recipe(folder: Path) -> None:
    folder.mkdir(parents=True)
    boring = "lightning.pytorch.demos.boring_classes.Boring"
    (folder / "b.yaml").write_text(
        f"# A recipe.\nmodel:\n  class_path: {boring}Model\ndata:\n  class_path: {boring}DataModule\ntrainer:\n"
        f"  accelerator: cpu\n  logger: false\n  enable_progress_bar: false\n  enable_model_summary: false\n"
        f"  default_root_dir: {folder}/run\n  limit_test_batches: 1\n"
    )


def resumable(folder: Path) -> None:
    import lightning
    from lightning.pytorch.demos.boring_classes import BoringModel

    recipe(folder)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(BoringModel())
    trainer.save_checkpoint(folder / "b.ckpt")


def run_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("step,epoch,train/loss\n0,0,1.0\n5,0,0.5\n9,0,0.25\n")
    (folder / "summary.json").write_text(json.dumps({"psnr_db": 20.0, "copy_psnr_db": 10.0, "steps": 9}))
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    samples = folder / "samples/step-000010"
    for name in NAMES:
        write_clip(samples / f"{name}.source.mp4", clip())
    entries = [{"key": name, "instruction": f"do {name}", "scores": {"psnr_db": 20.0}} for name in NAMES]
    (samples / "samples.json").write_text(json.dumps(entries))


def scored_run(folder: Path) -> None:
    from insvie_lightning.report.score_sheet import ScoredEdit, make_sheet, write_sheet

    folder.mkdir(parents=True)
    edits = [ScoredEdit(name, "style", "do", (9, 32, 48), {"pick_score": 20.5}) for name in NAMES]
    write_sheet(folder, make_sheet(edits, ("pick_score",), "tgve", {}))


def built(folder: Path) -> None:
    shards(folder)
    (folder / "job.json").write_text(json.dumps({"step": "x", "input": {"samples": 6}, "shard_size": 3}))


def quarantined(folder: Path) -> None:
    shards(folder / "shards")
    (folder / "quarantine-rank0.jsonl").write_text('{"key": "u", "reason": "x"}\n{"key": "v", "reason": "y"}\n')


class Copier(LightningModule):
    """An editor that gives the source back."""

    working_shape = (9, 32, 48)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def edit_batch(self, batch: EditBatch) -> torch.Tensor:
        assert batch.source is not None
        return batch.source.float() / 127.5 - 1


def from_inputs(data: Any, between: Between) -> Found:
    """What a builder is fed."""
    inputs = data.inputs()
    between()
    read = [inputs[number] for number in range(len(inputs.keys))]
    bad = {each.sample.key: each.bad for each in read if each.bad}
    return Found({each.sample.key for each in read if not each.bad}, bad)


def from_loader(loader: Iterable[Any], between: Between) -> Found:
    """What an editor is fed; without a trainer, what is bad is listed where the process is."""
    from insvie_lightning.quarantine import read_quarantine

    between()
    good = {key for batch in loader for key in batch.keys}
    return Found(good, read_quarantine(Path("quarantine-data-rank0.jsonl")))


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


def convert(folder: Path, between: Between) -> Found:
    from insvie_lightning.shards.convert import convert
    from insvie_lightning.shards.manifest import open_manifest

    zips = {"source_dir": "source*.zip", "edited_dir": "edited*.zip"} if list(folder.glob("*.zip")) else {}
    between()
    convert(folder, folder / "shards", max_bad_rate=1.0, **zips)
    rows = open_manifest(folder / "shards").query(accepted_only=False).to_pylist()
    rejected = {row["key"]: row["reason"] for row in rows if not row["accepted"]}
    return Found({row["key"] for row in rows} - rejected.keys(), rejected)


def index(folder: Path, between: Between) -> Found:
    from insvie_lightning.shards.index import index

    index(folder, folder / "shards", max_bad_rate=1.0, source_dir="source*.zip", edited_dir="edited*.zip")
    return curriculum_of(folder / "shards", folder / "run", between)


def curriculum_of(data: Path, run: Path, between: Between = lambda: None) -> Found:
    from insvie_data_modules.curriculum import Curriculum, Stage
    from insvie_lightning.quarantine import Quarantine

    module = Curriculum(data, [Stage("all", steps=12)], batch_size=1, frames=5, size=(32, 48), max_bad_rate=1.0)
    dataset: Any = module.train_dataloader().dataset
    dataset.quarantine = Quarantine(run / "quarantine.jsonl", 1.0)
    between()
    good = {dataset[number][1].key for number in range(12)}
    from insvie_lightning.quarantine import read_quarantine

    return Found(good, read_quarantine(run / "quarantine.jsonl"))


def curriculum(folder: Path, between: Between) -> Found:
    return curriculum_of(folder, folder, between)


def after_quarantine(folder: Path, between: Between) -> Found:
    from insvie_lightning.quarantine import Quarantine

    between()
    Quarantine(folder / "quarantine-rank0.jsonl", 1.0).add("z", "a reason")
    return Found({"z"})


def latents_in_tar(folder: Path, between: Between) -> Found:
    """The spoilt tensors take the place of good ones in a tar of their own."""
    between()
    data = (folder / "victim").read_bytes()
    (folder / "victim").unlink()
    for path in folder.glob("shard-000000.*"):
        path.unlink()
    with ShardWriter(folder / "new", shard_size=1) as writer:
        writer.write_members({"key": "x", "instruction": "do"}, {"latents.safetensors": data})
    from insvie_data_modules.curriculum import Curriculum, Stage
    from insvie_lightning.quarantine import Quarantine, read_quarantine

    module = Curriculum(
        [folder, folder / "new"], [Stage("all", steps=4)], batch_size=1, frames=5, size=(32, 48), max_bad_rate=1.0
    )
    dataset: Any = module.train_dataloader().dataset
    dataset.quarantine = Quarantine(folder / "quarantine.jsonl", 1.0)
    good = {dataset[number][1].key for number in range(4)}
    return Found(good, read_quarantine(folder / "quarantine.jsonl"))


def iterate(folder: Path, between: Between) -> Found:
    from insvie_lightning.shards.read import iterate_samples

    bad: dict[str, str] = {}
    between()
    good = {record["key"] for record, _ in iterate_samples(folder, on_bad=bad.__setitem__)}
    return Found(good, bad)


def drafts(folder: Path, between: Between) -> Found:
    from insvie_data_modules.drafts import Drafts

    return from_inputs(Drafts(folder), between)


def command(*arguments: str) -> Found:
    """Run `insvie`; exit 2 with `error: SENTENCE` is a refusal."""
    import contextlib
    import io

    said, shown = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
        status = main(arguments)
    lines = said.getvalue().strip().splitlines()
    if status == 2:
        assert lines[-1].startswith("error: ") and "Traceback" not in said.getvalue(), said.getvalue()
        raise InputError(lines[-1].removeprefix("error: "))
    problems = {line: line for line in shown.getvalue().splitlines()} if status else {}
    return Found(set(), problems)


def verify(folder: Path, between: Between) -> Found:
    between()
    found = command("shards", "verify", str(folder))
    named = " ".join(found.bad)
    return Found({key for key in "xyz" if f": {key}: " not in named}, found.bad)


def stats(folder: Path, between: Between) -> Found:
    between()
    return command("shards", "stats", str(folder))


def select(folder: Path, between: Between) -> Found:
    between()
    return command("shards", "select", str(folder), str(folder / "new"), "--where", "judge > 1")


def explain(folder: Path, between: Between) -> Found:
    between()
    return command("explain", "x", str(folder))


def report(folder: Path, between: Between) -> Found:
    between()
    return command("report", str(folder))


def tgve_test(folder: Path, between: Between) -> Found:
    from insvie_data_modules.tgve import Tgve

    data = Tgve(folder, edits=("style",))
    return from_loader(data.test_dataloader(), between)


def tgve_plus_test(folder: Path, between: Between) -> Found:
    from insvie_data_modules.tgve_plus import TgvePlus

    data = TgvePlus(folder / "plus.parquet", folder)
    return from_loader(data.test_dataloader(), between)


def load_editor(folder: Path, between: Between) -> Found:
    from insvie_lightning.editors.editor import Editor

    between()
    Editor.from_pretrained(folder)
    return Found(set())


def load_base(folder: Path, between: Between) -> Found:
    from insvie_lightning.weights.components import load_components

    between()
    load_components(str(folder))
    return Found(set())


def import_weights(folder: Path, between: Between) -> Found:
    between()
    return command("weights", "import", str(folder / "b.pt"), str(folder / "out"), "--base", "toy")


def import_lora(folder: Path, between: Between) -> Found:
    between()
    return command("weights", "import", str(folder / "lora"), str(folder / "out"), "--base", "toy")


def read_recipe(folder: Path, between: Between) -> Found:
    between()
    return command("test", "-c", str(folder / "b.yaml"))


def resume(folder: Path, between: Between) -> Found:
    between()
    return command("test", "-c", str(folder / "b.yaml"), "--ckpt_path", str(folder / "b.ckpt"))


_AC = frozenset("ac")
_XYZ = frozenset("xyz")
# A benchmark that is not all there is refused at the start.
_ABSENT = frozenset({"vanished", "a link to nowhere", "a link to itself"})
DOORS = (
    Door("video", "RawVideos", videos, "b.mp4", raw_videos, _AC),
    Door("video", "EditFolder", videos, "b.mp4", edit_folder, _AC),
    # A long video is streamed, however long it takes.
    Door("video", "insvie edit --csv", videos, "b.mp4", edit_csv, _AC, legal=frozenset({"12 000 frames"})),
    Door("video", "insvie shards convert", released_folders, "edited/b.mp4", convert, _AC),
    Door("video", "Tgve", tgve, "DAVIS_480p/480p_videos/b.mp4", tgve_test, frozenset({"a_style", "c_style"}),
         refused=_ABSENT),
    Door("video", "TgvePlus", tgve, "DAVIS_480p/480p_videos/b.mp4", tgve_plus_test, frozenset({"a_add"}),
         refused=_ABSENT),
    Door("video", "insvie report, a sample", run_folder, "samples/step-000010/b.source.mp4", report),
    Door("picture", "Images", pictures, "b.png", images, _AC),
    Door("picture", "ImagePairs", instruct_pairs, "b/1_0.jpg", image_pairs,
         frozenset({"instructp2p_a_1", "instructp2p_c_1"})),
    Door("picture", "Tgve, a frame", tgve, "DAVIS_480p/480p_frames/c/003.png", tgve_test,
         frozenset({"a_style", "b_style"})),
    Door("CSV", "RawVideos", videos, "edits.csv", raw_videos_table, _AC, shared=True),
    Door("CSV", "Images", pictures, "images.csv", images_table, _AC, shared=True),
    Door("CSV", "EditFolder", videos, "edits.csv", edit_folder_table, _AC, shared=True),
    Door("CSV", "insvie edit --csv", videos, "edits.csv", edit_csv, _AC, shared=True),
    Door("CSV", "insvie shards convert", released_folders, "train.csv", convert, _AC, shared=True),
    Door("CSV", "insvie shards index", release, "train.csv", index, _AC, shared=True),
    Door("CSV", "Tgve", tgve, "tgve.csv", tgve_test, shared=True),
    Door("CSV", "insvie report, metrics", run_folder, "metrics.csv", report, shared=True),
    Door("JSON", "insvie report, scores", scored_run, SHEET, report, shared=True),
    Door("JSON", "ImagePairs, seeds", instruct_pairs, "seeds.json", image_pairs, shared=True),
    Door("JSON", "ImagePairs, a prompt", instruct_pairs, "b/prompt.json", image_pairs,
         frozenset({"instructp2p_a_1", "instructp2p_c_1"})),
    Door("JSON", "ImagePairs, turns", magic_pairs, "edit_turns.json", image_pairs, shared=True),
    Door("JSON", "ImagePairs, descriptions", magic_pairs, "global_descriptions.json", image_pairs, shared=True),
    Door("JSON", "Tgve, instructions", tgve, "instructions.json", tgve_test, shared=True),
    Door("JSON", "insvie shards convert", named_folders, "instructions.json", convert, shared=True),
    Door("JSON", "a trained editor, settings", editor, "editor.json", load_editor, shared=True),
    Door("JSON", "a base, a config", base, "vae/config.json", load_base, shared=True),
    Door("JSON", "a base, the tokenizer", base, "tokenizer/tokenizer.json", load_base, shared=True),
    Door("JSON", "insvie report, summary", run_folder, "summary.json", report, shared=True),
    Door("JSON", "insvie report, samples", run_folder, "samples/step-000010/samples.json", report, shared=True),
    Door("JSON", "Drafts, the job", built, "job.json", drafts, shared=True),
    Door("JSON", "a run's quarantine", quarantined, "quarantine-rank0.jsonl", after_quarantine, frozenset("z"),
         shared=True),
    Door("tar", "Curriculum", shards, "shard-000000.tar", curriculum, _XYZ),
    Door("tar", "Drafts", shards, "shard-000000.tar", drafts, _XYZ),
    Door("tar", "iterate_samples", shards, "shard-000000.tar", iterate, _XYZ),
    Door("tar", "insvie shards verify", shards, "shard-000000.tar", verify, _XYZ),
    Door("tar", "insvie report", shards, "shard-000000.tar", report),
    Door("manifest", "Curriculum", shards, "shard-000000.parquet", curriculum, _XYZ, shared=True),
    Door("manifest", "Drafts", shards, "shard-000000.parquet", drafts, _XYZ, shared=True),
    Door("manifest", "Drafts, the compact one", compacted, "manifest.parquet", drafts, _XYZ, shared=True),
    Door("manifest", "insvie shards verify", shards, "shard-000000.parquet", verify, _XYZ),
    Door("manifest", "insvie shards stats", shards, "shard-000000.parquet", stats, shared=True),
    Door("manifest", "insvie shards select", shards, "shard-000000.parquet", select, shared=True),
    Door("manifest", "insvie explain", shards, "shard-000000.parquet", explain, shared=True),
    Door("manifest", "insvie report", shards, "shard-000000.parquet", report, shared=True),
    Door("Parquet", "TgvePlus", tgve, "plus.parquet", tgve_plus_test, shared=True),
    Door("zip", "insvie shards convert", release, "source_00.zip", convert, _AC),
    Door("zip", "insvie shards index, Curriculum", release, "source_00.zip", index, _AC),
    Door("safetensors", "a trained editor", editor, "raw.safetensors", load_editor, shared=True),
    Door("safetensors", "a base, transformer", base, "transformer/diffusion_pytorch_model.safetensors", load_base,
         shared=True),
    Door("safetensors", "a base, text encoder", base, "text_encoder/model.safetensors", load_base, shared=True),
    Door("safetensors", "insvie weights import, LoRA", lora_file, "lora/pytorch_lora_weights.safetensors", import_lora,
         shared=True),
    Door("safetensors", "Curriculum, cached latents", latents, "victim", latents_in_tar, frozenset("y"),
         legal=frozenset({*PLACES, "vanishes once listed"})),  # the tensors have no place of their own,
    Door("checkpoint", "insvie weights import", released_checkpoint, "b.pt", import_weights, shared=True),
    Door("checkpoint", "--ckpt_path", resumable, "b.ckpt", resume, shared=True),
    Door("YAML", "a recipe", recipe, "b.yaml", read_recipe, shared=True),
)  # fmt: skip
