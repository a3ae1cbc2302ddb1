import math
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import resize

from insvie_lightning.errors import InputError
from insvie_lightning.metrics import dover
from insvie_lightning.metrics.dover import Dover
from insvie_lightning.metrics.per_sample import EditedSample
from insvie_lightning.nets.dover import DoverNet
from insvie_lightning.video import read_clip

MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(frames: int, height: int, width: int) -> Tensor:
    return torch.randint(256, (frames, 3, height, width), dtype=torch.uint8, generator=seeded(7))


def pixels(view: Tensor) -> Tensor:
    """Take the normalisation off: B 3 F H W -> B F 3 H W in 0..255."""
    return view.transpose(1, 2) * STD[:, None, None] + MEAN[:, None, None]


# Frames, where the technical clips begin, how much later each may, the aesthetic step, how much later each frame may be
INDICES = [
    (24, (0, 8, 16), 0, 0, 0),
    (25, (0, 8, 16), 0, 0, 0),
    (29, (0, 9, 18), 0, 0, 0),
    (31, (0, 10, 20), 0, 0, 0),
    (32, (0, 10, 20), 0, 1, 0),
    (48, (0, 16, 32), 0, 1, 0),
    (95, (0, 31, 62), 0, 2, 0),
    (96, (0, 32, 64), 0, 3, 0),
    (128, (0, 42, 84), 0, 4, 1),
    (200, (0, 66, 132), 1, 6, 3),
]


@pytest.mark.parametrize(("frames", "starts", "later", "step", "jitter"), INDICES)
def test_frames_of_the_views(frames: int, starts: tuple[int, ...], later: int, step: int, jitter: int) -> None:
    generator = seeded()
    delays, jitters = set(), set()
    for _ in range(20):
        technical = dover.technical_frames(frames, generator).tolist()
        for start, clip in zip(starts, technical, strict=True):
            delay = clip[0] - start
            assert clip == [(start + delay + 2 * i) % frames for i in range(32)]
            delays.add(delay)
        aesthetic = dover.aesthetic_frames(frames, generator).tolist()
        jitters |= {index - step * i for i, index in enumerate(aesthetic)}
    assert delays == set(range(later + 1)) and jitters == set(range(jitter + 1))


def test_the_clips_of_a_video_of_25_frames_begin_anew_at_its_end() -> None:
    last = dover.technical_frames(25, seeded())[2].tolist()
    assert last[:20] == [16, 18, 20, 22, 24, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 0, 2, 4]


def places(height: int, width: int) -> Tensor:
    """A picture 3 H W whose pixels tell where they are: row and column, and what of them exceeds a byte."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256]).to(torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(480, 720), (288, 320), (224, 500)])
def test_fragments_are_whole_pieces_of_their_cells(height: int, width: int) -> None:
    seen = []
    for seed in range(30):
        view = dover.fragments(places(height, width).expand(2, -1, -1, -1), seeded(seed)).int()
        assert view.shape == (2, 3, 224, 224) and torch.equal(view[0], view[1])
        grid = view[0].unflatten(2, (7, 32)).unflatten(1, (7, 32))  # 3 7 32 7 32
        rows, columns = (grid[0] + grid[2] // 16 * 256, grid[1] + grid[2] % 16 * 256)
        top, left = rows[:, 0, :, 0], columns[:, 0, :, 0]
        assert (rows == top[:, None, :, None] + torch.arange(32)[:, None, None]).all()
        assert (columns == left[:, None, :, None] + torch.arange(32)).all()
        seen.append((top - height // 7 * torch.arange(7)[:, None], left - width // 7 * torch.arange(7)))
    for side, offsets in (
        (height, torch.stack([top for top, _ in seen])),
        (width, torch.stack([left for _, left in seen])),
    ):
        legal = max(side // 7 - 32, 1)
        assert offsets.min() == 0 and offsets.max() == legal - 1
        assert legal == 1 or all(len(offsets[:, i, j].unique()) > 1 for i in range(7) for j in range(7))


def test_a_small_video_is_enlarged_but_cut_by_its_own_grid() -> None:
    clip = noise(2, 64, 96)
    view = dover.fragments(clip, seeded()).float()
    large = resize(clip.float(), [224, 336], antialias=False)
    for i, top in enumerate((0, 9, 18, 27, 32, 32, 32)):
        for j, left in enumerate((0, 13, 26, 39, 52, 64, 64)):
            piece = view[:, :, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32]
            lost = large[:, :, top : top + 32, left : left + 32] - piece  # fractions, cut off
            assert lost.min() > -1e-3 and lost.max() < 1.001


def test_the_technical_view_is_three_clips_each_with_pieces_of_its_own() -> None:
    clip = places(480, 720).expand(24, -1, -1, -1).clone()
    clip[:, 2] = torch.arange(24, dtype=torch.uint8)[:, None, None]
    view = pixels(dover.technical_view(clip, seeded()))
    assert view.shape == (3, 32, 3, 224, 224)
    indices = dover.technical_frames(24, seeded())
    assert torch.equal(view[:, :, 2, 0, 0].round().long(), indices)
    assert (view[:, :1, :2] - view[:, :, :2]).abs().max() < 1e-3
    assert (view[0, 0, :2] - view[1, 0, :2]).abs().max() > 1 < (view[1, 0, :2] - view[2, 0, :2]).abs().max()


@pytest.mark.parametrize("antialias", [False, True])
def test_the_aesthetic_view_is_the_whole_picture(antialias: bool) -> None:
    clip = noise(40, 300, 500)
    view = pixels(dover.aesthetic_view(clip, seeded(), antialias))
    assert view.shape == (1, 32, 3, 224, 224)
    expected, other = (
        nn.functional.interpolate(clip[:32].float(), (224, 224), mode="bilinear", antialias=kind)
        for kind in (antialias, not antialias)
    )
    assert (view[0] - expected).abs().max() < 0.51  # whole numbers, as released
    assert (view[0] - other).abs().mean() > 5


def test_both_aspects_at_their_mean_are_a_half_and_weigh_as_published() -> None:
    assert dover.fuse(0.1107, -0.08285) == pytest.approx((0.5, 0.5, 0.5))
    assert dover.fuse(0.1107 + 0.07355, -0.08285) == pytest.approx([1 / (1 + math.exp(-x)) for x in (1, 0, 0.6104)])
    assert dover.fuse(0.1107, -0.08285 + 0.03774) == pytest.approx([1 / (1 + math.exp(-x)) for x in (0, 1, 0.3896)])
    assert dover.fuse(-1e3, -1e3) == (0, 0, 0)


class Mean(nn.Module):
    """In place of the network: the mean of the left half of a view, which depends on where its pieces are from."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[float] = []

    def technical(self, clips: Tensor) -> Tensor:
        values = clips[..., :112].mean((1, 2, 3, 4)) / 5
        self.given.append(float(values.mean()))
        return values

    def aesthetic(self, clips: Tensor) -> Tensor:
        return self.technical(clips) / 10


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Build the metric with the mean in place of the network."""
    monkeypatch.setattr(dover, "load_dover", lambda weights: Mean())
    return Dover


def sample(key: str, frames: int = 4) -> EditedSample:
    return EditedSample(key, source=noise(frames, 240, 260), edited=255 - noise(frames, 240, 260) // 2)


def test_a_key_has_its_value_and_another_key_another(metric: Any) -> None:
    first, second, again = (metric().score(sample(key)) for key in ("a", "b", "a"))
    assert first == again
    assert first[0] != second[0] and first[1] == second[1]  # fewer than 96 frames leave nothing to draw there
    assert all(0 < value < 1 for value in first)


def test_draws_of_the_views_are_averaged_before_they_are_fused(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Mean()
    monkeypatch.setattr(dover, "load_dover", lambda weights: net)
    result = metric(samples=2).score(sample("a", 128))
    technical, aesthetic = net.given[::2], net.given[1::2]
    assert len(set(technical)) == len(set(aesthetic)) == 2
    assert result == pytest.approx(dover.fuse(sum(technical) / 2, sum(aesthetic) / 20), rel=1e-5)
    assert metric(samples=1).score(sample("a", 128)) == pytest.approx(dover.fuse(technical[0], aesthetic[0] / 10))


def test_source_and_edit_have_three_values_each_and_nothing_is_saved(metric: Any) -> None:
    scores = metric()
    for key in ("a", "b"):
        scores.add(sample(key))
    names = ["dover_technical", "dover_aesthetic", "dover_overall"]
    assert list(scores.compute()) == [*names, *(f"source_{name}" for name in names)]
    assert scores.rows["a"][3:] == scores.rows["b"][3:]
    assert scores.compute()["dover_aesthetic"] > scores.compute()["source_dover_aesthetic"]
    assert not scores.state_dict() and not list(scores.parameters())


def test_the_metric_goes_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(Dover("here.pth", samples=2))).samples == 2


def test_what_cannot_be_scored_is_said(metric: Any) -> None:
    small = noise(4, 40, 31)
    with pytest.raises(InputError, match=r"sample 'a' is 31x40; DOVER looks at pieces of 32x32 pixels"):
        metric().score(EditedSample("a", small, small))
    with pytest.raises(InputError, match="samples is 0; DOVER needs at least 1"):
        metric(samples=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the released layout in which every weight is one number, which takes little room."""
    with torch.device("meta"):
        expected = DoverNet().state_dict()
    weights = {
        name: torch.ones((), dtype=value.dtype).div(8).to(value.dtype).expand(value.shape)
        for name, value in expected.items()
    }
    file = tmp_path_factory.mktemp("weights") / "DOVER.pth"
    torch.save(weights, file)
    return file


def test_the_released_layout_loads_from_a_file_or_its_folder(checkpoint: Path) -> None:
    for weights in (checkpoint, checkpoint.parent):
        state = dover.load_dover(str(weights)).state_dict()
        assert len(state) == 381
        assert all(bool((value == (0.125 if value.is_floating_point() else 0)).all()) for value in state.values())


@pytest.mark.parametrize("change", ["missing", "left over", "shape", "another", "cut off", "code"])
def test_files_that_are_not_dover_are_refused(checkpoint: Path, tmp_path: Path, change: str) -> None:
    weights = torch.load(checkpoint, weights_only=True)
    file = tmp_path / "DOVER.pth"
    if change == "missing":
        del weights["technical_backbone.layers.2.blocks.4.attn.fragment_position_bias_table"]
    elif change == "left over":
        weights["technical_backbone.layers.3.blocks.0.attn.fragment_position_bias_table"] = torch.zeros(2535, 24)
    elif change == "shape":
        weights["aesthetic_head.fc_last.weight"] = torch.zeros(2, 64, 1, 1, 1)
    elif change == "another":
        weights = {"conv.weight": torch.zeros(1)}
    elif change == "code":
        weights = {"net": nn.Linear(1, 1)}
    torch.save(weights, file)
    if change == "cut off":
        file.write_bytes(file.read_bytes()[:-1000])
    said = {
        "missing": r"another model: without technical_backbone\.layers\.2\.blocks\.4\.attn\.fragment_position_bias",
        "left over": r"another model: with unknown technical_backbone\.layers\.3\.blocks\.0\.attn\.fragment_position",
        "shape": r"aesthetic_head\.fc_last\.weight has shape \(2, 64, 1, 1, 1\) instead of \(1, 64, 1, 1, 1\)",
        "another": r"another model: without aesthetic_backbone.*; with unknown conv\.weight",
        "cut off": r"DOVER\.pth is damaged, cut off, or no file of weights",
        "code": r"DOVER\.pth holds code .*, which is not run",
    }
    with pytest.raises(InputError, match=said[change]) as error:
        dover.load_dover(str(file))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_absent_weights_are_said_when_the_metric_prepares(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no file DOVER\.pth: put DOVER\.pth .*non-commercial"):
        Dover(str(tmp_path)).prepare()


@pytest.mark.proof
def test_a_real_clip_at_full_size(shared: Path, fill: Any, seeds: Any, tmp_path: Path) -> None:
    net = DoverNet()
    fill.fill_state(net, seeds["weights_seed"])
    torch.save(net.state_dict(), tmp_path / "DOVER.pth")
    clip = torch.from_numpy(read_clip(min((shared / "real/videos").glob("*.mp4"))).frames)
    metric = Dover(str(tmp_path))
    metric.prepare()
    scores = []
    for key in ("a", "a", "b"):
        start = time.perf_counter()
        scores.append(metric.score(EditedSample(key, clip, clip)))
        print(f"DOVER of {tuple(clip.shape)}: {time.perf_counter() - start:.1f} s on {torch.get_num_threads()} threads")
    assert scores[0] == scores[1] and scores[0][0] != scores[2][0] and scores[0][1] == scores[2][1]
    assert all(0 < value < 1 for value in scores[0])
