"""What is exported computes the same in plain diffusers, and comes back."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
)
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from insvie_lightning.editors.insvie import InsViE
from insvie_lightning.errors import InputError
from insvie_lightning.nets.source_concat import widen_patch_embedding
from insvie_lightning.toy.text import build_tokenizer
from insvie_lightning.weights import export
from insvie_lightning.weights.components import Components, load_components, save_components
from insvie_lightning.weights.deliverable import Deliverable, load_deliverable, save_deliverable, trainable_weights
from insvie_lightning.weights.export import export_editor
from insvie_lightning.weights.released import import_released

LAYOUTS = ("diffusers", "single", "lora", "sat")


@pytest.fixture(scope="module")
@torch.no_grad()
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text-to-video model of the real classes."""
    folder, tokenizer = tmp_path_factory.mktemp("base"), build_tokenizer()
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=2, time_embed_dim=8,
        text_embed_dim=8, sample_width=4, sample_height=4, sample_frames=5, max_text_seq_length=6,
    )  # fmt: skip
    for parameter in transformer.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.1)
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4,) * 4, layers_per_block=1, norm_num_groups=2, latent_channels=4,
    )  # fmt: skip
    text = T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    scheduler = load_components("toy").scheduler
    save_components(Components(transformer, vae, text, tokenizer, scheduler), folder, torch.float32)
    return folder


def trained(base: Path, folder: Path, mode: str = "lora", alpha: float = 2.0) -> Path:
    """An editor with random trained weights, and others as their average."""
    editor = InsViE(str(base), lora_rank=4, lora_alpha=alpha, trainable=mode)  # type: ignore[arg-type]
    editor.configure_model()
    draw = torch.Generator().manual_seed(1)
    raw, ema = (
        {name: torch.randn(value.shape, generator=draw) * 0.3 for name, value in editor.deliverable().raw.items()}
        for _ in range(2)
    )
    save_deliverable(Deliverable(editor.deliverable().settings, raw, ema, 5), folder)
    return folder


@pytest.fixture(scope="module")
def editor(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(base, tmp_path_factory.mktemp("run") / "weights")


def destination(folder: Path, layout: str) -> Path:
    return folder / ("out.safetensors" if layout == "single" else "out")


def output(network: CogVideoXTransformer3DModel) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    x, text = torch.randn(2, 2, 8, 4, 4, generator=draw), torch.randn(2, 6, 8, generator=draw)
    return network.eval()(x, text, torch.tensor([900, 100]), return_dict=False)[0]


def plain(base: Path, written: Path, layout: str) -> CogVideoXTransformer3DModel:
    """What was written, as code that knows only diffusers loads it."""
    if layout == "diffusers":
        return CogVideoXTransformer3DModel.from_pretrained(written, subfolder="transformer")
    if layout == "single":
        with safe_open(written, "pt") as file:
            network = CogVideoXTransformer3DModel.from_config(json.loads(file.metadata()["config"]))
        network.load_state_dict(load_file(written))
        return network
    network = CogVideoXTransformer3DModel.from_pretrained(base, subfolder="transformer")
    widen_patch_embedding(network)
    network.load_state_dict(load_file(written / "patch_embedding.safetensors"), strict=False)
    CogVideoXPipeline.load_lora_into_transformer(CogVideoXPipeline.lora_state_dict(written), network)
    return network


@pytest.mark.parametrize("use_ema", [True, False])
@pytest.mark.parametrize("layout", ["diffusers", "single", "lora"])
def test_plain_diffusers_computes_the_same(
    editor: Path, base: Path, error: Callable, tmp_path: Path, layout, use_ema: bool
) -> None:
    written = destination(tmp_path, layout)
    assert export_editor(editor, written, layout, use_ema) <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == [written.name]
    expected = output(InsViE.from_pretrained(editor, use_ema=use_ema).transformer)
    assert error(output(plain(base, written, layout)), expected) <= 1e-5
    other = output(InsViE.from_pretrained(editor, use_ema=not use_ema).transformer)
    assert error(other, expected) > 1e-2


@pytest.mark.parametrize("layout", ["diffusers", "single", "sat"])
def test_an_editor_trained_in_full_is_exported(base: Path, tmp_path: Path, layout) -> None:
    folder = trained(base, tmp_path / "weights", "all")
    assert export_editor(folder, destination(tmp_path, layout), layout) <= 1e-6
    with pytest.raises(
        InputError, match=r"was trained in full and has no LoRA; legal layouts: diffusers, single, sat$"
    ):
        export_editor(folder, tmp_path / "lora", "lora")
    assert not (tmp_path / "lora").exists()


def test_a_pipeline_loads_the_folder(editor: Path, tmp_path: Path) -> None:
    export_editor(editor, tmp_path / "out")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert isinstance(pipeline, CogVideoXImageToVideoPipeline)
    assert pipeline.transformer.config.in_channels == 2 * pipeline.transformer.config.out_channels == 8


def test_the_toy_is_exported_without_pipeline(tmp_path: Path) -> None:
    export_editor(trained(Path("toy"), tmp_path / "weights"), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"transformer", "vae", "text_encoder", "tokenizer", "scheduler"}


@pytest.mark.parametrize("layout", ["lora", "sat"])
def test_what_was_exported_is_imported(editor: Path, base: Path, error: Callable, tmp_path: Path, layout) -> None:
    export_editor(editor, tmp_path / "out", layout, use_ema=False)
    written = import_released(tmp_path / "out", tmp_path / "again", str(base))
    assert written.settings["base"] == str(base)  # the frozen weights are the base's own
    expected = output(InsViE.from_pretrained(editor, use_ema=False).transformer)
    assert error(output(InsViE.from_pretrained(tmp_path / "again").transformer), expected) <= 1e-6


def test_a_lora_of_another_base_is_one_sentence(editor: Path, tmp_path: Path) -> None:
    export_editor(editor, tmp_path / "out", "lora")
    with pytest.raises(InputError, match="for the base toy, holds the weights of another model"):
        import_released(tmp_path / "out", tmp_path / "again", "toy")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_asked_precision_is_written(editor: Path, tmp_path: Path, layout, dtype: torch.dtype) -> None:
    written = destination(tmp_path, layout)
    assert 0 < export_editor(editor, written, layout, dtype=dtype) < 5e-2
    if layout in ("single", "lora"):
        file = written if layout == "single" else written / "pytorch_lora_weights.safetensors"
        assert {value.dtype for value in load_file(file).values()} == {dtype}


def test_what_computes_otherwise_is_not_kept(editor: Path, base: Path, tmp_path: Path) -> None:
    deliverable = load_deliverable(editor)
    loud = {name: value * (1e6 if "patch" in name else 1) for name, value in deliverable.raw.items()}
    save_deliverable(Deliverable(deliverable.settings, loud), tmp_path / "loud")
    with pytest.raises(InputError, match=r"in float16 computes something else .* legal is a wider --dtype, float32$"):
        export_editor(tmp_path / "loud", tmp_path / "out", dtype=torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["loud"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_comparison_sees_a_wrong_scale(editor: Path, tmp_path: Path, monkeypatch, layout) -> None:
    write, read = export._LAYOUTS[layout]

    def mistaken(editor, part: Path, dtype: torch.dtype) -> None:
        write(replace(editor, lora=replace(editor.lora, alpha=3.0)), part, dtype)

    monkeypatch.setitem(export._LAYOUTS, layout, (mistaken, read))
    with pytest.raises(InputError, match="computes something else"):
        export_editor(editor, destination(tmp_path, layout), layout)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(editor: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_text("x")
    for path in (tmp_path, mine):
        with pytest.raises(InputError, match=r"is there already and is not overwritten; legal is a new or an empty"):
            export_editor(editor, path)
    with pytest.raises(InputError, match=r"mine\.safetensors is there already .*; legal is a new file$"):
        export_editor(editor, mine, "single")
    assert [path.name for path in tmp_path.iterdir()] == [mine.name] and mine.read_text() == "x"
    with pytest.raises(InputError, match=r"a single file is written as \.safetensors only"):
        export_editor(editor, tmp_path / "x.ckpt", "single")
    (tmp_path / "empty").mkdir()
    export_editor(editor, tmp_path / "empty", "lora")


def test_weights_of_another_editor_are_one_sentence(editor: Path, tmp_path: Path) -> None:
    deliverable = load_deliverable(editor)
    save_deliverable(Deliverable({**deliverable.settings, "lora_rank": 8}, deliverable.raw), tmp_path / "w")
    with pytest.raises(InputError, match="are of another editor"):
        export_editor(tmp_path / "w", tmp_path / "out")


@pytest.mark.proof
def test_a_clean_environment_computes_the_same(editor: Path, base: Path, error: Callable, tmp_path: Path) -> None:
    """A process that cannot import this package loads the exported folder."""
    export_editor(editor, tmp_path / "out")
    code = (
        "import sys; sys.modules['insvie_lightning'] = None\n"
        "import torch, diffusers\n"
        f"pipe = diffusers.DiffusionPipeline.from_pretrained({str(tmp_path / 'out')!r})\n"
        "draw = torch.Generator().manual_seed(2)\n"
        "x, text = torch.randn(2, 2, 8, 4, 4, generator=draw), torch.randn(2, 6, 8, generator=draw)\n"
        "with torch.no_grad():\n"
        "    y = pipe.transformer(x, text, torch.tensor([900, 100]), return_dict=False)[0]\n"
        f"torch.save(y, {str(tmp_path / 'y.pt')!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    found = torch.load(tmp_path / "y.pt", weights_only=True)
    assert torch.equal(found, output(plain(base, tmp_path / "out", "diffusers")))
    assert error(found, output(InsViE.from_pretrained(editor).transformer)) <= 1e-5


def test_the_editor_keeps_its_base_beside_it(base: Path, editor: Path, tmp_path: Path) -> None:
    deliverable = load_deliverable(editor)
    (tmp_path / "w").mkdir()
    (tmp_path / "w/base").symlink_to(base)
    save_deliverable(Deliverable({**deliverable.settings, "base": "./base"}, deliverable.raw), tmp_path / "w")
    assert load_deliverable(tmp_path / "w").settings["base"] == str(tmp_path / "w/base")
    assert trainable_weights(InsViE.from_pretrained(tmp_path / "w").transformer).keys() == deliverable.raw.keys()
