"""Reading SAT's files: every layout they come in, and one sentence for what is no such file."""

import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.weights.sat_checkpoint import FILE, find_checkpoint, read_checkpoint, read_tensors

QKV = "transformer.layers.0.attention.query_key_value"


def state() -> dict[str, Tensor]:
    """A few keys of every kind."""
    return {
        "model.diffusion_model.time_embed.0.weight": torch.ones(2),
        f"model.diffusion_model.{QKV}.original.weight": torch.ones(3),
        f"model.diffusion_model.{QKV}.matrix_A.0": torch.ones(4),
        "conditioner.embedders.0.transformer.shared.weight": torch.ones(5),
        "first_stage_model.decoder.conv_in.conv.weight": torch.ones(6),
        "lpips.net.weight": torch.ones(7),
        "denoiser.sigmas": torch.ones(8),
    }


def save(folder: Path, content: Any, name: str = FILE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    save(tmp_path / "train/1000", {"module": state(), "iteration": 1000})
    (tmp_path / "train/latest").write_text("1000\n")
    return tmp_path / "train"


@pytest.mark.parametrize("inside", [".", "1000", f"1000/{FILE}"])
def test_a_checkpoint_is_found(tree: Path, inside: str) -> None:
    assert find_checkpoint(tree / inside) == tree / "1000" / FILE


def test_a_release_is_found(tree: Path) -> None:
    os.rename(tree / "1000", tree / "release")
    (tree / "latest").write_text("release")
    assert find_checkpoint(tree).parent.name == "release"


@pytest.mark.parametrize("latest", ["", "newest", "-1", "0", "../1000"])
def test_another_latest_is_one_sentence(tree: Path, latest: str) -> None:
    (tree / "latest").write_text(latest)
    with pytest.raises(InputError, match=r"latest says .*; legal is the number of a step, or 'release'$"):
        find_checkpoint(tree)


def test_the_folder_above_is_one_sentence_with_a_hint(tree: Path) -> None:
    with pytest.raises(InputError, match=rf"does not exist; .*; did you mean '{tree}'\?$"):
        find_checkpoint(tree.parent)
    with pytest.raises(InputError, match="does not exist"):
        find_checkpoint(tree / "none.pt")


def test_a_split_checkpoint_is_one_sentence(tree: Path) -> None:
    save(tree / "1000", {}, "mp_rank_01_model_states.pt")
    with pytest.raises(InputError, match="several model-parallel ranks"):
        find_checkpoint(tree)


@pytest.mark.parametrize("wrapper", ["module", "model", "state_dict", None])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_wrapper_is_taken_off(tmp_path: Path, wrapper: str | None, zipped: bool) -> None:
    content = {wrapper: state()} if wrapper else state()
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    again = read_checkpoint(tmp_path / "x.pt")
    assert again.transformer.keys() == {"time_embed.0.weight", f"{QKV}.weight"}
    assert again.matrices.keys() == {f"{QKV}.matrix_A.0"}
    assert again.iteration == 0 and len(again.transformer[f"{QKV}.weight"]) == 3


def test_without_prefix_and_frozen_parts_and_as_safetensors(tmp_path: Path) -> None:
    kept = {key.removeprefix("model.diffusion_model."): v for key, v in state().items() if key.startswith("model.")}
    save_file(kept, tmp_path / "x.safetensors")
    again = read_checkpoint(tmp_path / "x.safetensors")
    assert again.transformer.keys() == {"time_embed.0.weight", f"{QKV}.weight"}


def test_random_states_beside_the_weights_are_legal(tmp_path: Path) -> None:
    """SAT saves them with every checkpoint, unless told otherwise."""
    rest = {
        "iteration": 7,
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.RandomState(0).get_state(),
        "torch_rng_state": torch.get_rng_state(),
        "client_lr_scheduler": {"start_lr": 1e-3, "num_iters": 7},
    }
    assert read_checkpoint(save(tmp_path, {"module": state(), **rest})).iteration == 7


def test_unknown_keys_are_kept_for_the_one_who_names_them(tmp_path: Path) -> None:
    file = save(tmp_path, {"module": state() | {"odd.weight": torch.ones(1)}})
    assert "odd.weight" in read_checkpoint(file).transformer


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"module": state(), "x": Code()}, "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"^x\.pt holds code \(posix\.system\), which is not run; legal is a file of"):
        read_checkpoint(Path("x.pt"))
    Path("bare.pt").write_bytes(pickle.dumps(Code(), protocol=2))
    with pytest.raises(InputError, match=r"^bare\.pt "):
        read_checkpoint(Path("bare.pt"))
    assert not Path("hacked").exists()


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "legacy.pt"])
def test_a_cut_file_is_one_sentence(tmp_path: Path, name: str, share: float) -> None:
    file = tmp_path / name
    if name.endswith("pt"):
        torch.save({"module": state()}, file, _use_new_zipfile_serialization=name == "x.pt")
    else:
        save_file(state(), file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(InputError) as caught:
        read_checkpoint(file)
    message = str(caught.value)
    assert message.startswith(f"{file} is damaged, cut off, or no file of weights: ") and "\n" not in message


def test_a_file_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="is damaged, cut off, or no file of weights"):
        read_tensors(tmp_path / "x.pt")
    for content in ([1, 2], {"module": {}}, torch.ones(2)):
        with pytest.raises(InputError, match="holds no tensors by name"):
            read_tensors(save(tmp_path, content))


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt does not exist"):
        read_tensors(tmp_path / "none.pt")


def test_another_model_is_one_sentence(tmp_path: Path) -> None:
    file = save(tmp_path, {"state_dict": {"blocks.0.attn.weight": torch.ones(1)}})
    with pytest.raises(
        InputError, match=r"is no SAT checkpoint of CogVideoX: .* the first is 'blocks\.0\.attn\.weight'$"
    ):
        read_checkpoint(file)


def test_lora_beside_plain_weights_is_one_sentence(tmp_path: Path) -> None:
    keys = {key.replace(".original.", "."): value for key, value in state().items()}
    with pytest.raises(InputError, match="it does not tell whether they are merged"):
        read_checkpoint(save(tmp_path, keys))


def test_golden_checkpoint(checkpoint: Path) -> None:
    again = read_checkpoint(find_checkpoint(checkpoint))
    assert again.iteration == int((checkpoint / "latest").read_text())
    assert again.matrices and not any("." not in name for name in again.transformer)
