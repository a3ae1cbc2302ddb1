"""SAT's names and diffusers': the released transformer computes the same under both."""

from collections.abc import Callable

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.nets.source_concat import widen_patch_embedding
from insvie_lightning.weights.sat import from_diffusers, is_table, lora_names, to_diffusers

Numbers = dict[str, Tensor]
EDIT = "mixins.patch_embed.proj_edit.weight"
MODULATION = "mixins.adaln_layer.adaLN_modulations.0.1"


@pytest.fixture
def released(golden) -> Numbers:
    return golden.part("dit_double_ch/state_dict/")


def forward(build, golden, state: Numbers, **changed: Tensor) -> Tensor:
    numbers = golden.part("dit_double_ch/") | changed
    weights = to_diffusers(state)
    network = build(weights, numbers["x"], numbers["context"])
    network.load_state_dict(weights)
    return network(numbers["x"], numbers["context"], numbers["timesteps"], return_dict=False)[0]


def test_golden_transformer(build, golden, released: Numbers, error: Callable) -> None:
    assert error(forward(build, golden, released), golden.tensors["dit_double_ch/y"]) <= 1e-5


def test_golden_positions_are_recomputed(build, golden, released: Numbers, error: Callable) -> None:
    numbers = golden.part("dit_double_ch/")
    network = build(to_diffusers(released), numbers["x"], numbers["context"])
    table = released.pop("mixins.pos_embed.pos_embedding")
    positions = network.patch_embed.pos_embedding
    assert error(positions, table[:, : positions.shape[1]]) <= 1e-6
    assert error(forward(build, golden, released), numbers["y"]) <= 1e-5


def source_first(rows: Tensor) -> Tensor:
    return torch.cat(rows.chunk(2, 1)[::-1], 1)


def texts_first(rows: Tensor) -> Tensor:
    return torch.cat(rows.chunk(2)[::-1])


def keys_before_queries(rows: Tensor) -> Tensor:
    query, key, value = rows.chunk(3)
    return torch.cat([key, query, value])


def scale_before_shift(rows: Tensor) -> Tensor:
    shift, scale, *rest = rows.chunk(12)
    return torch.cat([scale, shift, *rest])


@pytest.mark.parametrize(
    ("key", "mutate"),
    [
        (EDIT, source_first),
        (f"{MODULATION}.weight", texts_first),
        (f"{MODULATION}.weight", scale_before_shift),
        (f"{MODULATION}.bias", texts_first),
        ("transformer.layers.0.attention.query_key_value.weight", keys_before_queries),
        ("mixins.final_layer.adaLN_modulation.1.weight", texts_first),
    ],
)
def test_golden_transformer_tells_mutations(build, golden, released: Numbers, error, key, mutate) -> None:
    released[key] = mutate(released[key])
    assert error(forward(build, golden, released), golden.tensors["dit_double_ch/y"]) > 1e-4


def test_golden_source_comes_second(build, golden, released: Numbers, error: Callable) -> None:
    x = golden.tensors["dit_double_ch/x"]
    swapped = forward(build, golden, released, x=torch.cat(x.chunk(2, 2)[::-1], 2))
    assert error(swapped, golden.tensors["dit_double_ch/y"]) > 1e-2


def test_golden_weights_come_back_bit_for_bit(released: Numbers) -> None:
    again = from_diffusers(to_diffusers(released))
    dropped = {"mixins.patch_embed.proj.weight", "mixins.patch_embed.proj.bias", "mixins.pos_embed.pos_embedding"}
    assert released.keys() - again.keys() == dropped and not again.keys() - released.keys()
    for key, value in again.items():
        assert torch.equal(value, released[key]), key


def test_the_other_variant_of_the_patch_embedding_is_one_sentence(golden) -> None:
    with pytest.raises(InputError, match=r"unknown mixins\.patch_embed\.proj_edit_merge\.\{weight,bias\}$"):
        to_diffusers(golden.part("dit_fix_proj/state_dict/"), "x.pt")


# ---------------------------------------------------------------- the full size, without memory


@pytest.fixture(scope="module")
def full_size() -> CogVideoXTransformer3DModel:
    """The editor on CogVideoX-2B, whose sizes are the defaults of diffusers' class."""
    with torch.device("meta"):
        network = CogVideoXTransformer3DModel()
        widen_patch_embedding(network)
    return network


def full_size_sat() -> Numbers:
    """Every weight of the released 2B transformer by SAT's names and shapes, as the released code registers them."""
    width, time, layers = 1920, 512, 30
    linear: dict[str, tuple[int, ...]] = {
        "time_embed.0": (time, width),
        "time_embed.2": (time, time),
        "mixins.patch_embed.proj": (width, 16, 2, 2),
        "mixins.patch_embed.proj_edit": (width, 32, 2, 2),
        "mixins.patch_embed.text_proj": (width, 4096),
        "transformer.final_layernorm": (width,),
        "mixins.final_layer.norm_final": (width,),
        "mixins.final_layer.adaLN_modulation.1": (2 * width, time),
        "mixins.final_layer.linear": (64, width),
    }
    for layer in range(layers):
        block = f"transformer.layers.{layer}"
        linear |= {
            f"{block}.input_layernorm": (width,),
            f"{block}.post_attention_layernorm": (width,),
            f"{block}.attention.query_key_value": (3 * width, width),
            f"{block}.attention.dense": (width, width),
            f"{block}.mlp.dense_h_to_4h": (4 * width, width),
            f"{block}.mlp.dense_4h_to_h": (width, 4 * width),
            f"mixins.adaln_layer.query_layernorm_list.{layer}": (64,),
            f"mixins.adaln_layer.key_layernorm_list.{layer}": (64,),
            f"mixins.adaln_layer.adaLN_modulations.{layer}.1": (12 * width, time),
        }
    state = {f"{name}.weight": torch.empty(shape, device="meta") for name, shape in linear.items()}
    state |= {f"{name}.bias": torch.empty(shape[0], device="meta") for name, shape in linear.items()}
    return state | {"mixins.pos_embed.pos_embedding": torch.empty(1, 17776, width, device="meta")}


def test_every_key_of_the_full_size_is_mapped_once(full_size: CogVideoXTransformer3DModel) -> None:
    state, expected = full_size_sat(), full_size.state_dict()
    edit = {key for key in state if "proj_edit" in key}
    assert len(state) - len(edit) == 557 and len(edit) == 2
    assert sum(value.numel() for key, value in state.items() if key not in edit) == 1_727_913_792
    mapped = to_diffusers(state)
    again = from_diffusers(mapped)
    assert len(again) - len(edit) == 554 and {key for key in state if is_table(key)} == {
        "mixins.pos_embed.pos_embedding"
    }
    assert len(mapped) == len(expected) == 736
    assert {key: value.shape for key, value in mapped.items()} == {key: v.shape for key, v in expected.items()}
    assert {key: value.shape for key, value in again.items()} == {key: state[key].shape for key in again}


def test_each_row_of_the_full_size_is_used_once_and_comes_back() -> None:
    """Rows are numbered through all weights: no two of diffusers' tensors may share one."""
    state, first = {}, 0
    for key, value in full_size_sat().items():
        if not is_table(key) and not key.startswith("mixins.patch_embed.proj."):
            state[key] = torch.arange(first, first + len(value), dtype=torch.int64)
            first += len(value)
    mapped = to_diffusers(state)
    assert torch.equal(torch.cat(list(mapped.values())).sort().values, torch.arange(first))
    again = from_diffusers(mapped | {"patch_embed.proj.weight": torch.empty(1, 8)})  # its columns tell that it edits
    again["mixins.patch_embed.proj_edit.weight"] = state["mixins.patch_embed.proj_edit.weight"]
    assert all(torch.equal(again[key], value) for key, value in state.items()) and again.keys() == state.keys()


def test_the_lora_of_the_full_size_is_mapped_one_to_one(full_size: CogVideoXTransformer3DModel) -> None:
    names = lora_names(30)
    assert len(names) == len(set(names.values())) == 240
    modules = {name for name, _ in full_size.named_modules()}
    assert {name.rsplit(".lora_", 1)[0] for name in names.values()} <= modules
    assert names["transformer.layers.7.attention.query_key_value.matrix_B.1"] == (
        "transformer_blocks.7.attn1.to_k.lora_B.weight"
    )
    assert names["transformer.layers.29.attention.dense.matrix_A.0"] == (
        "transformer_blocks.29.attn1.to_out.0.lora_A.weight"
    )


# ---------------------------------------------------------------- other weights


def small() -> Numbers:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CogVideoXTransformer3DModel(
            num_attention_heads=1, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=3,
            time_embed_dim=16, text_embed_dim=16, sample_width=4, sample_height=4, sample_frames=5,
            max_text_seq_length=4,
        )  # fmt: skip
    return {key: torch.randn_like(value) for key, value in network.state_dict().items()}


def test_a_text_to_video_base_keeps_its_own_patch_embedding() -> None:
    base = small()
    state = from_diffusers(base)
    assert "mixins.patch_embed.proj.weight" in state and not any("proj_edit" in key for key in state)
    again = to_diffusers(state)
    assert again.keys() == base.keys() and all(torch.equal(again[key], base[key]) for key in base)


@pytest.mark.parametrize("key", ["transformer.word_embeddings.weight", "transformer.position_embeddings.weight"])
def test_unused_tables_are_dropped(key: str) -> None:
    state = from_diffusers(small())
    assert to_diffusers(state | {key: torch.ones(1)}).keys() == to_diffusers(state).keys()


def test_every_missing_and_left_over_key_is_named() -> None:
    state = from_diffusers(small())
    for layer in range(3):
        del state[f"transformer.layers.{layer}.mlp.dense_h_to_4h.bias"]
    del state["time_embed.2.weight"]
    state["mixins.pos_embed_2.freqs_sin"] = state["odd"] = torch.ones(1)
    with pytest.raises(InputError) as caught:
        to_diffusers(state, "x.pt")
    assert str(caught.value) == (
        "x.pt holds the weights of another model: without time_embed.2.weight, "
        "transformer.layers.{0-2}.mlp.dense_h_to_4h.bias; with unknown mixins.pos_embed_2.freqs_sin, odd"
    )
