"""Loading and saving the parts of a base model, and the sentence when they are not there."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel

from insvie_lightning.errors import InputError
from insvie_lightning.nets.patch_vae import PatchVAE
from insvie_lightning.toy.text import build_text_encoder, build_tokenizer
from insvie_lightning.weights.components import Components, load_components, load_vae, save_components


def parts() -> Components:
    tokenizer = build_tokenizer()
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=1, attention_head_dim=16, num_layers=1, time_embed_dim=16, text_embed_dim=64,
        sample_width=4, sample_height=4, sample_frames=5, max_text_seq_length=16,
    )  # fmt: skip
    scheduler = CogVideoXDDIMScheduler(
        snr_shift_scale=3.0, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    return Components(transformer, load_vae("toy"), build_text_encoder(len(tokenizer)), tokenizer, scheduler)


def test_a_model_comes_back_from_its_folder(tmp_path: Path) -> None:
    original = parts()
    save_components(original, tmp_path, torch.float16)
    assert {path.name for path in tmp_path.iterdir()} == {
        "transformer", "vae", "text_encoder", "tokenizer", "scheduler",
    }  # fmt: skip
    again = load_components(str(tmp_path))
    for name in ("transformer", "vae", "text_encoder"):
        before, after = getattr(original, name).state_dict(), getattr(again, name).state_dict()
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert value.dtype == after[key].dtype == torch.float32, f"{name} {key}"
            assert torch.equal(value.half().float(), after[key]), f"{name} {key}"
    assert isinstance(again.vae, PatchVAE)
    sentence = "replace the red circle with an orange square"
    assert again.tokenizer(sentence).input_ids == original.tokenizer(sentence).input_ids
    for name in ("snr_shift_scale", "prediction_type", "rescale_betas_zero_snr", "timestep_spacing"):
        assert again.scheduler.config[name] == original.scheduler.config[name]
    assert torch.equal(again.scheduler.alphas_cumprod, original.scheduler.alphas_cumprod)


def test_weights_are_loaded_in_the_asked_precision(tmp_path: Path) -> None:
    save_components(parts(), tmp_path, torch.float32)
    again = load_components(str(tmp_path), torch.bfloat16)
    assert {again.transformer.dtype, again.vae.dtype, again.text_encoder.dtype} == {torch.bfloat16}


def test_the_autoencoder_is_of_the_class_that_its_config_names(tmp_path: Path) -> None:
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",),
        up_block_types=("CogVideoXUpBlock3D",),
        block_out_channels=(4,),
        layers_per_block=1,
        norm_num_groups=2,
    )
    vae.save_pretrained(tmp_path / "vae")
    assert isinstance(load_vae(str(tmp_path)), AutoencoderKLCogVideoX)
    assert isinstance(load_vae(str(tmp_path / "vae")), AutoencoderKLCogVideoX)
    assert isinstance(load_vae("toy"), PatchVAE)


@pytest.mark.parametrize("load", [load_components, load_vae])
@pytest.mark.parametrize("base", ["THUDM/no-such-model", "/no/such/folder", "no such model!"])
def test_absent_weights_are_one_sentence(load: object, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        load(base)  # type: ignore[operator]
    message = str(caught.value)
    assert message.startswith(f"the weights {base!r} are neither a folder here nor to be had from the hub")
    assert "switched off by HF_HUB_OFFLINE" in message and "`-c toy`" in message and "\n" not in message


def test_an_incomplete_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    with pytest.raises(InputError, match="-c toy"):
        load_components(str(tmp_path))
