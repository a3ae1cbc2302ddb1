"""`insvie doctor`: what this machine has and lacks, one line each, and what to do about it."""

import io
import os
import platform
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from insvie_lightning.commands.parser import Parser

GIB = 2**30
DISK_GIB = 20
MODELS = {
    "zai-org/CogVideoX-2b": "fine-tune the editor from the released text-to-video model",
    "yuvalkirstain/PickScore_v1": "score edits by PickScore",
    "openai/clip-vit-large-patch14": "score edits by CLIP",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: what was looked at, what was found, and the `remedy` if it is not `ok`."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = False

    def __str__(self) -> str:
        """`ok` or `missing`, the name, what was found, what to do."""
        line = f"{'ok' if self.ok else 'missing':<8} {self.name:<16} {self.found}"
        return line if self.ok else f"{line} -> {self.remedy}{'' if self.required else ' (optional)'}"


def main(argv: Sequence[str]) -> int:
    """Print every check; return 1 when something required is missing, else 0."""
    Parser("insvie doctor", description=__doc__).parse_args(argv)
    lacking = 0
    for check in checks():
        print(check, flush=True)
        lacking += check.required and not check.ok
    print("something required is missing" if lacking else "everything required is here")
    return 1 if lacking else 0


def checks() -> Iterator[Check]:
    """Yield the checks in the order of the report; torch is imported only when its turn comes."""
    yield Check("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from packages()
    yield from codecs()
    yield disk(Path.cwd())
    yield from devices()
    yield from weights()


def packages() -> Iterator[Check]:
    """Yield whether each dependency is installed in a version that the project declares."""
    for requirement in map(Requirement, requires("insvie-lightning") or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "not installed"
        ok = found != "not installed" and requirement.specifier.contains(found, prereleases=True)
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        yield Check(requirement.name, ok, found, remedy, required=True)


def codecs() -> Iterator[Check]:
    """Yield whether PyAV writes and reads H.264, by a clip of 4 frames of 64x64 pixels in memory."""
    import av
    import numpy as np

    remedy = "pip install --force-reinstall --only-binary=:all: av (its wheels bring FFmpeg with x264)"
    try:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as writer:
            stream = writer.add_stream("libx264", rate=8)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for level in (0, 80, 160, 240):
                pixels = np.full((64, 64, 3), level, np.uint8)
                writer.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            writer.mux(stream.encode())
        buffer.seek(0)
        with av.open(buffer, "r") as reader:
            frames = sum(1 for _ in reader.decode(video=0))
    except (av.FFmpegError, ValueError) as error:
        yield Check("h264", False, f"PyAV failed: {error}", remedy, required=True)
        return
    yield Check("h264", frames == 4, f"PyAV wrote 4 frames and read {frames}", remedy, required=True)


def disk(folder: Path) -> Check:
    """Return whether `folder` has room for a small data set and a few checkpoints."""
    free = shutil.disk_usage(folder).free / GIB
    return Check("disk", free >= DISK_GIB, f"{free:.0f} GiB free in {folder}", f"real recipes want {DISK_GIB} GiB")


def devices() -> Iterator[Check]:
    """Yield the CUDA devices and how OpenMP threads are set."""
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    found = ", ".join(f"{gpu.name} {gpu.total_memory / GIB:.0f} GiB" for gpu in gpus) or "no device"
    yield Check("cuda", bool(gpus), found, "toy recipes run without; the real ones want a GPU of 24 GB or more")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    quiet = threads == 1 or (threads <= cores and policy.lower() == "passive")
    remedy = f"OMP_NUM_THREADS={cores} or less and OMP_WAIT_POLICY=passive: threads that spin slow every neighbour"
    yield Check("openmp", quiet, f"{threads} threads on {cores} cores, waiting {policy}", remedy)


def weights() -> Iterator[Check]:
    """Yield whether the model hub answers, and which of the models that recipes name are cached."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    if constants.HF_HUB_OFFLINE:
        yield Check("hub", False, "HF_HUB_OFFLINE is set", "unset it to download models; cached ones work")
    else:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=3).close()
            yield Check("hub", True, f"{constants.ENDPOINT} answers, cache in {cache}")
        except (urllib.error.URLError, TimeoutError) as error:
            remedy = "copy a cache from another machine and set HF_HOME to it"
            yield Check("hub", False, f"{constants.ENDPOINT} does not answer ({error})", remedy)
    for model, purpose in MODELS.items():
        cached = (cache / f"models--{model.replace('/', '--')}").is_dir()
        yield Check("weights", cached, model, f"hf download {model}, to {purpose}")
