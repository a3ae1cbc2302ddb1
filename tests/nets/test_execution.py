"""Every way of running the transformer against the plain one: outputs and gradients."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from insvie_lightning.errors import InputError
from insvie_lightning.nets.execution import (
    Execution,
    TimedKernels,
    choose_attention,
    prepare_transformer,
    to_channels_last,
)
from insvie_lightning.nets.flops import transformer_flops
from insvie_lightning.nets.source_concat import add_lora, concat_source, widen_patch_embedding

Build = Callable[..., CogVideoXTransformer3DModel]
PLAIN = Execution(attention="torch", fused_lora=False)
LATENTS = (2, 3, 16, 8, 12)


@pytest.fixture(scope="module")
def build() -> Build:
    """A transformer of three blocks with LoRA that counts; the same weights every time."""

    def make(execution: Execution, lora: bool = True) -> CogVideoXTransformer3DModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            transformer = CogVideoXTransformer3DModel(
                num_attention_heads=2, attention_head_dim=16, num_layers=3, time_embed_dim=32, text_embed_dim=24,
                sample_width=12, sample_height=8, sample_frames=9, max_text_seq_length=7,
            )  # fmt: skip
            widen_patch_embedding(transformer)
            if lora:
                add_lora(transformer, 4, 2.0)
            for parameter in transformer.parameters():
                if parameter.requires_grad:
                    torch.nn.init.normal_(parameter, std=0.2)
        prepare_transformer(transformer, execution)
        return transformer.train()

    return make


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def run(transformer: CogVideoXTransformer3DModel) -> tuple[Tensor, dict[str, Tensor]]:
    """Velocity at fixed inputs, and the gradients of what is trained."""
    generator = torch.Generator().manual_seed(1)
    noisy, source = (torch.randn(LATENTS, generator=generator) for _ in range(2))
    prompts = torch.randn(2, 7, 24, generator=generator)
    velocity = concat_source(transformer, noisy, source, prompts, torch.tensor([10, 900]))
    velocity.square().mean().backward()
    gradients = {name: p.grad for name, p in transformer.named_parameters() if p.grad is not None}
    return velocity.detach(), gradients


WAYS = {
    "fused": Execution(attention="torch"),
    "flash": Execution(attention="flash", fused_lora=False),
    "math": Execution(attention="math"),
    "full": Execution(attention="torch", fused_lora=False, checkpointing="full"),
    "selective": Execution(attention="flash", checkpointing="selective"),
}
COMPILED = {
    "plain": Execution(attention="torch", fused_lora=False, compile=True, compile_backend="aot_eager"),
    "full": Execution(attention="torch", compile=True, compile_backend="aot_eager", checkpointing="full"),
    "selective": Execution(attention="flash", compile=True, compile_backend="aot_eager", checkpointing="selective"),
    "by the real compiler": Execution(compile=True),
}


def assert_same(build: Build, execution: Execution) -> None:
    plain, plain_gradients = run(build(PLAIN))
    velocity, gradients = run(build(execution))
    torch.testing.assert_close(velocity, plain, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == plain_gradients.keys() and len(gradients) == 3 * 8 + 2
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=1e-4, atol=1e-6, msg=name)
        assert gradient.abs().max() > 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_every_way_computes_what_the_plain_one_does(build: Build, way: str) -> None:
    assert_same(build, WAYS[way])


def test_blocks_are_compiled_into_two_graphs_without_a_break(build: Build) -> None:
    assert_same(build, Execution(attention="flash", compile=True, compile_backend="eager"))
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


@pytest.mark.proof
@pytest.mark.parametrize("way", COMPILED)
def test_compiled_blocks_compute_what_plain_ones_do(build: Build, way: str) -> None:
    assert_same(build, COMPILED[way])


def counted(transformer: CogVideoXTransformer3DModel) -> dict[Any, int]:
    """Operations by kind; torch before 2.15 does not count those of a CPU's flash attention by itself."""
    flash = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *shapes, **_: (
            sdpa_backward_flop_count(*shapes[:4])
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=flash) as counter:
        run(transformer)
    return counter.get_flop_counts()["Global"]


def test_checkpointing_computes_again_what_it_says(build: Build) -> None:
    """Operations of attention's forward: once, once, and twice; of the products: once, nearly twice, twice."""
    ways = [Execution(attention="flash", checkpointing=kind) for kind in ("none", "selective", "full")]  # type: ignore[arg-type]
    none, selective, full = (counted(build(way)) for way in ways)
    (attention,) = (op for op in none if "scaled_dot_product" in str(op) and "backward" not in str(op))
    assert none[attention] == selective[attention] == full[attention] // 2 > 0
    products = torch.ops.aten.addmm
    assert full[products] > selective[products] * 0.99 > 1.2 * none[products]
    assert sum(none.values()) > 2 * 2 * transformer_flops(build(PLAIN), LATENTS[1:2] + LATENTS[3:], 4)


def test_layers_of_other_kinds_are_not_fused(build: Build) -> None:
    plain, _ = run(build(PLAIN, lora=False))
    assert torch.equal(run(build(WAYS["fused"], lora=False))[0], plain)
    with_lora, without = build(WAYS["fused"]), build(PLAIN)
    for transformer in (with_lora, without):
        transformer.disable_adapters()
    torch.testing.assert_close(run(with_lora)[0], run(without)[0], rtol=1e-5, atol=1e-5)
    merged = build(WAYS["fused"])
    expected = run(merged)[0]
    merged.fuse_lora()
    torch.testing.assert_close(run(merged)[0], expected, rtol=1e-4, atol=1e-5)


def test_the_kernel_of_attention_is_timed_once_for_a_shape(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    fastest = "insvie_lightning.nets.execution.fastest_kernel"
    monkeypatch.setattr(fastest, lambda *question: (asked.append(question), "math")[1])
    transformer, timed = build(Execution()), TimedKernels()

    def choose(device: str, execution: Execution = Execution()) -> Any:  # noqa: B008 (frozen)
        choose_attention(transformer, execution, LATENTS, torch.device(device), True, timed)
        return transformer.transformer_blocks[0].attn1.processor

    before = choose("cpu")  # the choice is torch's
    for attention in ("torch", "flash"):
        assert choose("cuda", Execution(attention=attention)) is before  # type: ignore[arg-type]
    assert asked == []
    used = choose("cuda")
    assert choose("cuda") is used is not before
    shape = (2, 2, 7 + 3 * 4 * 6, 16)
    assert asked == [(shape, torch.float32, torch.device("cuda"), True)] and timed == {shape: "math"}
    assert {processor.kernel for processor in transformer.attn_processors.values()} == {"math"}
    transformer.register_to_config(use_rotary_positional_embeddings=True)
    timed.clear()
    assert choose("cuda") is used and len(asked) == 1


@torch.no_grad()
def test_channels_last_changes_no_value() -> None:
    vae: Any = AutoencoderKLCogVideoX(
        block_out_channels=(8, 16, 16, 32), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
    ).eval()  # fmt: skip
    pixels = torch.randn(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    before = vae.encode(pixels).latent_dist.mode()
    names = list(vae.state_dict())
    to_channels_last(vae)
    assert list(vae.state_dict()) == names
    assert vae.encoder.conv_in.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(vae.encode(pixels).latent_dist.mode(), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checkpointing": "selectiv"}, "execution.checkpointing is 'selectiv'; legal are .* 'selective'"),
        ({"attention": "flash3"}, "execution.attention is 'flash3'; legal are auto, torch, flash"),
    ],
)
def test_illegal_ways_are_one_sentence(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Execution(**change)
