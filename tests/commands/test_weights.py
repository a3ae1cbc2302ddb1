"""`insvie weights`: in, out, and in again."""

import json
from pathlib import Path

import pytest
import torch

from insvie_lightning import cli
from insvie_lightning.editors.insvie import InsViE
from insvie_lightning.weights.deliverable import load_deliverable, save_deliverable

Output = pytest.CaptureFixture[str]


@pytest.fixture
def editor(tmp_path: Path) -> Path:
    editor = InsViE("toy", lora_rank=2)
    editor.configure_model()
    for parameter in editor.transformer.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    save_deliverable(editor.deliverable(), tmp_path / "weights")
    return tmp_path / "weights"


def insvie(*arguments: object) -> int:
    return cli.main(["weights", *map(str, arguments)])


@pytest.mark.parametrize("layout", ["lora", "sat"])
def test_there_and_back(editor: Path, tmp_path: Path, capsys: Output, layout: str) -> None:
    assert insvie("export", editor, tmp_path / "out", "--as", layout) == 0
    assert f"{tmp_path / 'out'}: read back as {layout}, computes the same" in capsys.readouterr().out
    assert insvie("import", tmp_path / "out", tmp_path / "again", "--base", "toy") == 0
    alpha = 2 if layout == "lora" else 1
    assert capsys.readouterr().out == (
        f"{tmp_path / 'again'}: LoRA of rank 2, alpha {alpha}, 34 tensors, raw, on the base toy\n"
    )
    before, after = (load_deliverable(folder) for folder in (editor, tmp_path / "again"))
    for name, value in before.raw.items():
        scale = 0.5 if layout == "lora" and "lora_B" in name else 1
        assert torch.equal(after.raw[name], value * scale), name


def test_options(editor: Path, tmp_path: Path) -> None:
    assert insvie("export", editor, tmp_path / "x.safetensors", "--as", "single", "--raw", "--dtype", "bfloat16") == 0
    assert insvie("export", editor, tmp_path / "folder") == 0
    config = json.loads((tmp_path / "folder/transformer/config.json").read_text())
    assert config["in_channels"] == 2 * config["out_channels"]


def test_bad_input_is_one_sentence_and_status_2(editor: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04 cut")
    assert insvie("import", tmp_path / "x.pt", tmp_path / "out", "--base", "toy") == 2
    assert insvie("export", tmp_path, tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"error: {tmp_path / 'x.pt'} is damaged, cut off, or no file of weights: ")
    assert lines[1].startswith(f"error: {tmp_path} is not a trained editor")
    assert len(lines) == 2 and not (tmp_path / "out").exists()
