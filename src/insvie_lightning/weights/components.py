"""The parts of a pretrained text-to-video model, in the folder layout that diffusers uses for CogVideoX."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from transformers import AutoTokenizer, T5EncoderModel

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.nets.hub import absent, model_folder
from insvie_lightning.nets.patch_vae import PatchVAE

TOY = Path(__file__).parents[1] / "toy" / "weights"
"""The shipped toy models."""
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
"""The folders that a model consists of."""
_FILES = [f"{part}/*" for part in PARTS]
_ADVICE = "give the folder as --model.base, or add `-c toy` to use the shipped toy model"


@dataclass(frozen=True, slots=True)
class Components:
    """What an editor is made of: the trained transformer and the frozen rest."""

    transformer: CogVideoXTransformer3DModel
    vae: Any
    text_encoder: T5EncoderModel
    tokenizer: Any
    scheduler: CogVideoXDDIMScheduler


def load_components(base: str, dtype: torch.dtype = torch.float32) -> Components:
    """Load a CogVideoX model.

    Args:
        base: A folder in diffusers' layout, a hub id such as `zai-org/CogVideoX-2b`, or `toy` for the shipped model.
        dtype: Of the weights in memory.

    Raises:
        InputError: When the weights are neither in the folder, nor in the cache, nor to be had from the hub.
    """
    where = base_folder(base)
    with _named(base):
        return Components(
            transformer=_load(CogVideoXTransformer3DModel, where / "transformer", torch_dtype=dtype),
            vae=load_vae(base, dtype),
            text_encoder=_load(T5EncoderModel, where / "text_encoder", dtype=dtype),
            tokenizer=AutoTokenizer.from_pretrained(where, subfolder="tokenizer", trust_remote_code=False),
            scheduler=CogVideoXDDIMScheduler.from_pretrained(where, subfolder="scheduler"),
        )


def load_vae(base: str, dtype: torch.dtype = torch.float32) -> Any:
    """Load the autoencoder of a model (see `load_components`): the class its config names, CogVideoX's or `PatchVAE`.

    `base` may also be the folder of the autoencoder itself.
    """
    folder = base_folder(base)
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    with _named(base):
        kind = PatchVAE if PatchVAE.load_config(folder).get("_class_name") == "PatchVAE" else AutoencoderKLCogVideoX
        return _load(kind, folder, torch_dtype=dtype)


def _load(kind: Any, folder: Path, **options: Any) -> Any:
    """Load a model whose every weight is in its folder, as safetensors: what is absent would be random."""
    model, told = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
    if missing := sorted(told["missing_keys"]):
        raise InputError(f"{folder} lacks {len(missing)} weights of a {kind.__name__}, such as {missing[0]}")
    return model


@contextmanager
def _named(base: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise absent(base, _ADVICE) from error
    except Exception as error:  # each library has errors of its own for a file that is none of its own
        raise InputError(f"a file of the base {base} is damaged, or of another kind: {first_line(error)}") from error


def hash_encoder(base: str) -> str:
    """What tells one autoencoder from another: BLAKE2b of the files of its folder, in a model or on its own.

    Raises:
        InputError: When there is none.
    """
    folder = base_folder(base)
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def base_folder(base: str) -> Path:
    """The folder of a model: the shipped one, a local one, one in the hub's cache, or one fetched from the hub now.

    Raises:
        InputError: When it is none of these.
    """
    if base == "toy":
        return TOY
    return model_folder(base, _FILES, _ADVICE)


def part_folder(model: Path, part: str) -> Path:
    """The folder of one part of a model.

    Raises:
        InputError: When it is not there.
    """
    if not (model / part).is_dir():
        raise InputError(f"the base {model} has no folder {part!r}; legal is diffusers' layout: {', '.join(PARTS)}")
    return model / part


def save_components(parts: Components, folder: Path, dtype: torch.dtype) -> None:
    """Write a model as a folder that `load_components` and diffusers read, weights in `dtype`."""
    for name, module in (("transformer", parts.transformer), ("vae", parts.vae), ("text_encoder", parts.text_encoder)):
        original = module.dtype
        module.to(dtype).save_pretrained(folder / name)
        module.to(original)
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    parts.scheduler.save_pretrained(folder / "scheduler")
