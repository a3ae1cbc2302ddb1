"""Released checkpoints become editors that compute what the released code did."""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from insvie_lightning.editors.insvie import InsViE
from insvie_lightning.errors import InputError
from insvie_lightning.nets.source_concat import concat_source
from insvie_lightning.toy.text import build_tokenizer
from insvie_lightning.weights import released
from insvie_lightning.weights.components import Components, load_components, save_components
from insvie_lightning.weights.deliverable import load_deliverable
from insvie_lightning.weights.released import PATCH_FILE, import_released, read_released
from insvie_lightning.weights.sat import to_diffusers
from insvie_lightning.weights.sat_checkpoint import FILE, find_checkpoint

Numbers = dict[str, Tensor]
LAYER = "model.diffusion_model.transformer.layers.0"


@pytest.fixture(scope="module")
def module(checkpoint: Path) -> Numbers:
    """The state of the golden checkpoint, as the released code saved it."""
    state: Numbers = torch.load(find_checkpoint(checkpoint), weights_only=True)["module"]
    return state


@pytest.fixture(scope="module")
def base(golden, build, checkpoint: Path, lora_forward: Numbers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-video model of the golden checkpoint's sizes, with its frozen transformer."""
    folder = tmp_path_factory.mktemp("base")
    frozen = read_released(find_checkpoint(checkpoint)).frozen
    transformer = build(frozen, lora_forward["x"], lora_forward["context"])
    transformer.load_state_dict(frozen)
    named = {key.removeprefix("vae/config/"): value for key, value in golden.settings.items()}
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * len(named["ch_mult"]),
        up_block_types=("CogVideoXUpBlock3D",) * len(named["ch_mult"]),
        block_out_channels=tuple(named["ch"] * factor for factor in named["ch_mult"]),
        latent_channels=named["z_channels"],
        layers_per_block=named["num_res_blocks"],
    )
    tokenizer, width = build_tokenizer(), lora_forward["context"].shape[2]
    text = T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=8, num_layers=1, num_heads=1))
    save_components(
        Components(transformer, vae, text, tokenizer, load_components("toy").scheduler), folder, torch.float32
    )
    return folder


def velocity(editor: InsViE, forward: Numbers) -> Tensor:
    editor.transformer.norm_out.norm.eps = 1e-6  # SAT's; diffusers has 1e-5
    noisy, source = forward["x"].chunk(2, 2)
    return concat_source(editor.transformer, noisy, source, forward["context"], forward["timesteps"])


def saved(state: Numbers, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"module": state}, folder / FILE)
    return folder


def test_golden_import(checkpoint, base: Path, lora_forward: Numbers, error: Callable, tmp_path: Path) -> None:
    import_released(checkpoint, tmp_path / "editor", str(base))
    assert sorted(path.name for path in (tmp_path / "editor").iterdir()) == ["editor.json", "raw.safetensors"]
    editor = InsViE.from_pretrained(tmp_path / "editor")
    assert (editor.base, editor.lora_alpha, editor.trainable) == (str(base), 1, "lora")
    assert error(velocity(editor, lora_forward), lora_forward["y"]) <= 1e-5


def test_golden_import_without_the_frozen_weights(
    module: Numbers, base: Path, lora_forward: Numbers, error: Callable, tmp_path: Path
) -> None:
    trained = {key: value for key, value in module.items() if ".matrix_" in key or "proj_edit" in key}
    import_released(saved(trained, tmp_path / "sat"), tmp_path / "editor", str(base))
    editor = InsViE.from_pretrained(tmp_path / "editor")
    assert error(velocity(editor, lora_forward), lora_forward["y"]) <= 1e-5


def test_golden_import_of_another_alpha(
    checkpoint, base: Path, lora_forward: Numbers, error: Callable, tmp_path: Path
) -> None:
    import_released(checkpoint, tmp_path, str(base), lora_alpha=2.0)
    assert error(velocity(InsViE.from_pretrained(tmp_path), lora_forward), lora_forward["y"]) > 1e-4


def merged(module: Numbers) -> Numbers:
    """The LoRA merged into the weights, as a plain SAT checkpoint has them."""
    state = {key.replace(".original.", "."): value for key, value in module.items() if ".matrix_" not in key}
    for key, down in module.items():
        if ".matrix_A." in key:
            name, part = key.split(".matrix_A.")
            up = module[f"{name}.matrix_B.{part}"]
            rows = slice(int(part) * len(up), (int(part) + 1) * len(up))
            state[f"{name}.weight"] = state[f"{name}.weight"].clone()
            state[f"{name}.weight"][rows] += up @ down / len(down)
    return state


@pytest.mark.parametrize("table", [True, False])
def test_golden_import_of_merged_weights(
    module: Numbers, base: Path, lora_forward: Numbers, error: Callable, tmp_path: Path, table: bool
) -> None:
    state = {key: value for key, value in merged(module).items() if table or "pos_embed" not in key}
    written = import_released(saved(state, tmp_path / "sat"), tmp_path / "editor", str(base))
    assert written.settings["trainable"] == "all" and len(written.raw) == len(
        CogVideoXTransformer3DModel.from_pretrained(base / "transformer").state_dict()
    )
    editor = InsViE.from_pretrained(tmp_path / "editor")
    assert error(velocity(editor, lora_forward), lora_forward["y"]) <= 1e-5


@pytest.mark.parametrize("with_old_patch", [True, False])
def test_golden_import_brings_its_own_base(
    module: Numbers, base: Path, lora_forward, error: Callable, tmp_path: Path, with_old_patch: bool
) -> None:
    """Frozen weights that are not the base's are written beside the deliverable, which may then be moved."""
    other = tmp_path / "other"
    shutil.copytree(base, other)
    file = other / "transformer/diffusion_pytorch_model.safetensors"
    save_file({key: torch.randn_like(value) for key, value in load_file(file).items()}, file)
    state = {key: value for key, value in module.items() if with_old_patch or ".patch_embed.proj." not in key}
    import_released(saved(state, tmp_path / "sat"), tmp_path / "editor", str(other))
    shutil.rmtree(other)
    (tmp_path / "editor").rename(tmp_path / "moved")
    editor = InsViE.from_pretrained(tmp_path / "moved")
    assert error(velocity(editor, lora_forward), lora_forward["y"]) <= 1e-5
    assert {path.name for path in (tmp_path / "moved/base").iterdir()} == {path.name for path in base.iterdir()}


def test_golden_import_with_the_released_autoencoder(
    golden, checkpoint: Path, base: Path, error: Callable, tmp_path: Path
) -> None:
    torch.save({"state_dict": golden.part("vae/state_dict/")}, tmp_path / "3d-vae.pt")
    for _ in range(2):  # an import replaces an earlier one
        import_released(checkpoint, tmp_path / "editor", str(base), tmp_path / "3d-vae.pt")
    editor = InsViE.from_pretrained(tmp_path / "editor")
    assert error(editor.vae.decode(golden.tensors["vae/z"]).sample, golden.tensors["vae/recon"]) <= 1e-4


@pytest.mark.parametrize(
    ("owner", "name"), [(AutoencoderKLCogVideoX, "save_pretrained"), (released, "save_deliverable")]
)
def test_golden_an_interrupted_import_is_run_again(
    golden, checkpoint: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    """Stopped while it writes the base, or between the base and the trained weights."""
    vae, editor = tmp_path / "3d-vae.pt", tmp_path / "sub/editor"
    torch.save({"state_dict": golden.part("vae/state_dict/")}, vae)

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, stop)
    with pytest.raises(KeyboardInterrupt):
        import_released(checkpoint, editor, str(base), vae)
    monkeypatch.undo()
    import_released(checkpoint, editor, str(base), vae)
    assert load_deliverable(editor).settings["base"] == str(editor / "base")
    assert [path.name for path in editor.parent.iterdir()] == ["editor"]


def test_golden_averaged_weights_are_those_of_the_sibling(module, base: Path, lora_forward, tmp_path: Path) -> None:
    step = saved(module, tmp_path / "sat/20")
    average = {key: value * 0.5 if "proj_edit" in key else value for key, value in module.items()}
    (tmp_path / "sat/20-ema").mkdir()
    torch.save({"module": average, "iteration": 20}, tmp_path / "sat/20-ema" / FILE)
    (tmp_path / "sat/latest").write_text("20")
    for source in (tmp_path / "sat", step):
        written = import_released(source, tmp_path / "editor", str(base))
        again = load_deliverable(tmp_path / "editor")
        assert written.ema is not None and again.ema is not None and again.ema_updates == 20
        name = "patch_embed.proj.weight"
        assert torch.equal(again.ema[name], again.raw[name] * 0.5)


def test_golden_half_precision_is_kept(module: Numbers, base: Path, tmp_path: Path) -> None:
    halves = {key: value.half() for key, value in module.items()}
    shutil.copytree(base, tmp_path / "base")
    file = tmp_path / "base/transformer/diffusion_pytorch_model.safetensors"
    save_file({key: value.half() for key, value in load_file(file).items()}, file)
    written = import_released(saved(halves, tmp_path / "sat"), tmp_path / "editor", str(tmp_path / "base"))
    assert written.settings["base"] == str(tmp_path / "base")
    assert {value.dtype for value in written.raw.values()} == {torch.float16}


# ---------------------------------------------------------------- bad input


def refused(state: Numbers, base: Path, tmp_path: Path) -> str:
    with pytest.raises(InputError) as caught:
        import_released(saved(state, tmp_path / "sat"), tmp_path / "editor", str(base))
    assert not (tmp_path / "editor").exists() and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", [f"{LAYER}.mlp.dense_h_to_4h.bias", f"{LAYER}.attention.dense.matrix_B.0"])
def test_golden_nan_is_one_sentence(module: Numbers, base: Path, tmp_path: Path, key: str) -> None:
    state = {name: value.half() for name, value in module.items()}
    state[key] = state[key].clone()
    state[key].view(-1)[3] = math.nan
    message = refused(state, base, tmp_path)
    assert FILE in message and "is spoilt: transformer_blocks.0." in message and message.endswith("nan or infinite")


def test_golden_nan_where_it_is_not_used_is_legal(module: Numbers, base: Path, tmp_path: Path) -> None:
    key = "model.diffusion_model.mixins.pos_embed.pos_embedding"
    import_released(
        saved(module | {key: torch.full_like(module[key], math.nan)}, tmp_path / "sat"), tmp_path / "editor", str(base)
    )


def test_golden_another_rank_is_right(module: Numbers, base: Path, tmp_path: Path) -> None:
    """The rank is the file's."""
    state = {
        key: torch.cat([value, value], 0 if "matrix_A" in key else 1) if ".matrix_" in key else value
        for key, value in module.items()
    }
    rank = len(module[f"{LAYER}.attention.dense.matrix_A.0"])
    written = import_released(saved(state, tmp_path / "sat"), tmp_path / "editor", str(base))
    assert written.settings["lora_rank"] == 2 * rank
    assert InsViE.from_pretrained(tmp_path / "editor").lora_rank == 2 * rank


def test_golden_mixed_ranks_are_one_sentence(module: Numbers, base: Path, tmp_path: Path) -> None:
    key = f"{LAYER}.attention.dense.matrix_A.0"
    assert "has several ranks" in refused(module | {key: module[key][:1]}, base, tmp_path)


def test_golden_another_model_is_one_sentence(module: Numbers, base: Path, tmp_path: Path) -> None:
    last = sum(key.endswith("input_layernorm.weight") for key in module) - 1
    block = re.compile(rf"\.(layers|adaLN_modulations|\w+_list)\.{last}\.")
    fewer = {key: value for key, value in module.items() if not block.search(key)}
    assert f"without transformer_blocks.{last}.attn1.norm_k.{{weight,bias}}, " in refused(fewer, base, tmp_path)
    key = "model.diffusion_model.time_embed.0.weight"
    wider = module | {key: torch.cat([module[key], module[key]])}
    assert "time_embedding.linear_1.weight has shape " in refused(wider, base, tmp_path)
    assert "for the base toy, holds the weights of another model" in refused(module, Path("toy"), tmp_path)


def test_golden_left_over_and_missing_keys_are_named(module: Numbers, base: Path, tmp_path: Path) -> None:
    state = module | {"model.diffusion_model.odd.weight": torch.ones(1)}
    assert refused(state, base, tmp_path).endswith("with unknown odd.weight")
    state = {key: value for key, value in module.items() if key != f"{LAYER}.attention.dense.original.bias"}
    assert refused(state, base, tmp_path).endswith("without transformer.layers.0.attention.dense.bias")
    state = {key: value for key, value in module.items() if not key.endswith("proj_edit.bias")}
    assert "has no 'mixins.patch_embed.proj_edit.bias'" in refused(state, base, tmp_path)


def test_golden_text_to_video_weights_are_one_sentence(module: Numbers, base: Path, tmp_path: Path) -> None:
    state = {key: value for key, value in module.items() if "proj_edit" not in key}
    assert "is a text-to-video model, not an editor" in refused(state, base, tmp_path)


def test_golden_another_folder_is_not_overwritten(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(InputError, match="holds something else than an editor"):
        import_released(checkpoint, tmp_path, str(base))
    assert (tmp_path / "base").exists()


def test_golden_incomplete_base_is_one_sentence(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no folder 'transformer'; legal is diffusers' layout"):
        import_released(checkpoint, tmp_path / "editor", str(tmp_path / "empty"))


def test_a_lora_without_patch_embedding_is_one_sentence(tmp_path: Path) -> None:
    name = "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight"
    save_file({name: torch.ones(1, 1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=rf"is a LoRA without the patch embedding .*; put {PATCH_FILE}"):
        read_released(tmp_path / "x.safetensors")


def test_golden_map_of_the_merged_checkpoint_equals_the_sum(module: Numbers, checkpoint: Path) -> None:
    prefix = "model.diffusion_model."
    state: dict[str, Any] = {
        key.removeprefix(prefix): value for key, value in merged(module).items() if key.startswith(prefix)
    }
    released = read_released(find_checkpoint(checkpoint))
    name, mapped = "transformer_blocks.0.attn1.to_v", to_diffusers(state)
    assert released.lora is not None
    up, down = (released.lora.weights[f"{name}.lora_{half}.weight"] for half in "BA")
    expected = released.frozen[f"{name}.weight"] + up @ down / released.lora.rank
    assert torch.equal(mapped[f"{name}.weight"], expected)
