import time
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.optical_flow import raft_large

from insvie_lightning.errors import InputError
from insvie_lightning.metrics.flow import DisBackend, GMFlowBackend, flow_backend, load_gmflow, load_raft, pad
from insvie_lightning.nets.gmflow import GMFlow
from insvie_lightning.video import read_clip


@pytest.fixture(scope="module")
def gmflow() -> GMFlow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GMFlow().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def gmflow_file(gmflow: GMFlow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gmflow") / "gmflow_sintel.pth"
    torch.save({"model": gmflow.state_dict(), "epoch": 3, "step": 5}, path)
    return path


@pytest.fixture(scope="module")
def texture() -> Tensor:
    """Smooth noise, 3 80 120, uint8."""
    noise = torch.rand(1, 3, 90, 130, generator=torch.Generator().manual_seed(0))
    smooth = F.avg_pool2d(F.avg_pool2d(noise, 6, 1), 6, 1)[0]
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).byte()


def moving(texture: Tensor, right: int, down: int, frames: int = 3) -> Tensor:
    """A window on the texture, 60 x 90, in which all moves so many pixels in each frame."""
    starts = [(8 - down * i, 8 - right * i) for i in range(frames)]
    return torch.stack([texture[:, top : top + 60, left : left + 90] for top, left in starts])


@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, 3), (-1, 2)])
def test_dis_finds_how_far_to_the_right_and_down_all_has_moved(texture: Tensor, right: int, down: int) -> None:
    flow = DisBackend()(moving(texture, right, down))
    assert flow.shape == (2, 2, 60, 90) and flow.dtype == torch.float32
    middle = flow[:, :, 10:-10, 10:-10].mean((0, 2, 3))
    assert middle.tolist() == pytest.approx([right, down], abs=0.01)


def test_dis_takes_frames_smaller_than_opencv_does(texture: Tensor) -> None:
    clip = moving(texture, 0, 0)[:, :, :8, :9]
    assert torch.equal(DisBackend()(clip), torch.zeros(2, 2, 8, 9))


def test_a_clip_of_one_frame_has_no_flow(texture: Tensor) -> None:
    assert DisBackend()(moving(texture, 0, 0, frames=1)).shape == (0, 2, 60, 90)


def test_padding_repeats_the_border_half_on_each_side() -> None:
    clip = torch.randint(256, (2, 3, 21, 40), dtype=torch.uint8)
    padded, inside = pad(clip, multiple=16, least=16)
    assert torch.equal(padded.float(), F.pad(clip.float(), (4, 4, 5, 6), "replicate"))
    assert torch.equal(padded[..., *inside], clip)
    assert pad(clip, multiple=8, least=128)[0].shape == (2, 3, 128, 128)
    assert torch.equal(pad(clip[..., :16, :32], multiple=16, least=16)[0], clip[..., :16, :32])


def test_gmflow_of_a_clip_is_that_of_its_padded_pairs(gmflow: GMFlow, gmflow_file: Path) -> None:
    clip = torch.randint(256, (3, 3, 21, 40), dtype=torch.uint8)
    backend = flow_backend("gmflow", str(gmflow_file))
    backend.prepare()
    frames = F.pad(clip.float(), (4, 4, 5, 6), "replicate")
    expected = gmflow(frames[:-1], frames[1:])[:, :, 5:26, 4:44]
    assert torch.allclose(backend(clip), expected, atol=1e-3)
    assert expected.abs().max() > 0.1


def test_gmflow_of_a_released_checkpoint_or_of_its_tensors_alone(
    gmflow: GMFlow, gmflow_file: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.pth"
    torch.save(gmflow.state_dict(), plain)
    for file in (gmflow_file, plain):
        loaded = load_gmflow(file).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in gmflow.state_dict().items())


def test_weights_that_are_not_gmflow_s_are_refused_in_one_sentence(
    gmflow: GMFlow, gmflow_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    state = gmflow.state_dict()

    torch.save({"model": {name: value for name, value in state.items() if not name.startswith("upsampler")}}, file)
    with pytest.raises(InputError, match=r"weights\.pth holds .* another model: without .*upsampler\.0"):
        load_gmflow(file)
    torch.save({"model": state | {"backbone.trident_conv.weight": torch.zeros(1)}}, file)
    with pytest.raises(InputError, match=r"another model: with unknown backbone\.trident_conv\.weight"):
        load_gmflow(file)
    torch.save({"model": state | {"backbone.conv2.bias": torch.zeros(64)}}, file)
    with pytest.raises(InputError, match=r"backbone.conv2.bias has shape \(64,\) instead of \(128,\)"):
        load_gmflow(file)
    file.write_bytes(gmflow_file.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"weights\.pth is damaged, cut off"):
        flow_backend("gmflow", str(file)).prepare()
    with pytest.raises(InputError, match=r"none\.pth does not exist"):
        load_gmflow(tmp_path / "none.pth")


def test_raft_with_weights_of_a_file_pads_what_is_too_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = raft_large().eval().requires_grad_(False)
    file = tmp_path / "raft.pth"
    torch.save(net.state_dict(), file)
    clip = torch.randint(256, (2, 3, 36, 132), dtype=torch.uint8)
    flow = flow_backend("raft", str(file))(clip)
    frames = F.pad(clip.float() / 127.5 - 1, (2, 2, 46, 46), "replicate")
    assert flow.shape == (1, 2, 36, 132)
    assert torch.allclose(flow, net(frames[:1], frames[1:])[-1][:, :, 46:-46, 2:-2], atol=1e-3)
    with pytest.raises(InputError, match=r"raft\.pth holds the weights of another model"):
        load_gmflow(file)


def test_raft_without_a_network_says_where_its_weights_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, file: str, hash_prefix: str, progress: bool) -> None:
        assert url.endswith(f"{hash_prefix}.pth") and file.endswith(url.rsplit("/", 1)[1])
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"raft_large_C_T_SKHT_V2-.*\.pth are not in .*checkpoints and could not"):
        load_raft()
    torch.save({"a": torch.zeros(1)}, next(tmp_path.iterdir()) / "raft_large_C_T_SKHT_V2-ff5fadd5.pth")
    with pytest.raises(InputError, match="another model"):  # what the cache holds is checked, too
        load_raft()


@pytest.mark.parametrize(
    ("name", "weights", "sentence"),
    [
        ("gmflow", None, "'gmflow' needs weights"),
        ("dis", "x.pth", "'dis' has no weights, and was given 'x.pth'"),
        ("gmfow", None, r"'gmfow' is unknown; legal are dis, raft, gmflow; did you mean 'gmflow'\?"),
    ],
)
def test_name_and_weights_must_go_together(name: str, weights: str | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        flow_backend(name, weights)  # type: ignore[arg-type]


@pytest.mark.proof
def test_gmflow_at_full_size(shared: Path, gmflow_file: Path) -> None:
    clip = torch.from_numpy(read_clip(shared / "real/videos/horse.mp4").frames[:3])
    backend = GMFlowBackend(str(gmflow_file))
    backend.prepare()
    start = time.perf_counter()
    flow = backend(clip)
    seconds = time.perf_counter() - start
    print(f"\nGMFlow, {len(flow)} pairs of {clip.shape[-1]}x{clip.shape[-2]}: {seconds / len(flow):.1f} s each")
    assert flow.shape == (2, 2, *clip.shape[-2:]) and flow.isfinite().all()
