import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from insvie_lightning.errors import InputError
from insvie_lightning.metrics.epe import EPE, end_point_error_px
from insvie_lightning.metrics.per_sample import EditedSample
from insvie_lightning.nets.gmflow import GMFlow
from insvie_lightning.video import read_clip


def moving(pixels: int, frames: int = 4) -> Tensor:
    """Smooth noise F 3 60 90 that moves so many pixels to the right in each frame."""
    noise = torch.rand(1, 3, 70, 130, generator=torch.Generator().manual_seed(0))
    smooth = F.avg_pool2d(F.avg_pool2d(noise, 6, 1), 6, 1)[0]
    texture = ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).byte()
    return torch.stack([texture[:, :60, 20 - pixels * i : 110 - pixels * i] for i in range(frames)])


class Counting:
    """A backend whose flow is the red of the first frame of each pair."""

    def __init__(self) -> None:
        self.calls = 0

    def prepare(self) -> None:
        pass

    def __call__(self, clip: Tensor) -> Tensor:
        self.calls += 1
        return clip[:-1, :1].float().expand(-1, 2, -1, -1)


def error(source: Tensor, edited: Tensor) -> float:
    return EPE().score(EditedSample("a", source, edited))[0]


def test_a_shift_of_two_pixels_is_an_error_of_two_and_the_same_motion_one_of_none() -> None:
    clip, still = moving(2), moving(0)
    assert error(still, clip) == pytest.approx(2.00, abs=0.005)
    assert error(clip, still) == pytest.approx(2.00, abs=0.005)
    assert error(clip, moving(1)) == pytest.approx(1.00, abs=0.005)
    assert error(clip, clip) == 0
    assert error(clip, 255 - clip) < 0.02


def test_the_formula() -> None:
    flow, other = torch.zeros(2, 2, 3, 5), torch.zeros(2, 2, 3, 5)
    other[0, 0], other[0, 1] = 3, 4
    assert end_point_error_px(flow, other) == 2.5
    other[1, 0, 0, 0] = -15
    assert end_point_error_px(flow, other) == 3


def test_clips_that_do_not_match_are_refused() -> None:
    with pytest.raises(InputError, match=r"sample 'a': the source is \(4, 3, 60, 90\), the edit \(3, 3, 60, 90\)"):
        error(moving(2), moving(2)[:3])


def test_one_frame_has_no_value() -> None:
    metric = EPE()
    metric.add(EditedSample("a", moving(0)[:1], moving(0)[:1]))
    metric.add(EditedSample("b", moving(0), moving(2)))
    assert math.isnan(metric.rows["a"][0])
    result = metric.compute()
    assert result["epe_dis_px"].item() == pytest.approx(2, abs=0.005) and result["epe_dis_px_missing"] == 1


def test_the_edits_of_one_video_share_its_flow() -> None:
    metric = EPE()
    metric.flow = counting = Counting()
    one, two = torch.full((3, 3, 4, 4), 10, dtype=torch.uint8), torch.full((3, 3, 4, 4), 20, dtype=torch.uint8)
    for key, source, edited in (("a", one, two), ("b", one.clone(), one), ("c", two, two), ("d", one[:2], two[:2])):
        metric.add(EditedSample(key, source, edited))
    assert counting.calls == 4 + 3
    assert [row[0] for row in metric.rows.values()] == pytest.approx([10 * 2**0.5, 0, 0, 10 * 2**0.5])


def test_a_source_that_is_written_over_is_not_taken_for_the_old_one() -> None:
    metric, source = EPE(), moving(2)
    metric.add(EditedSample("a", source, moving(0)))
    source.copy_(moving(0))
    metric.add(EditedSample("b", source, moving(0)))
    assert metric.rows["b"] == (0,)


def test_the_name_tells_the_backend_and_no_network_is_saved(tmp_path: Path) -> None:
    file = tmp_path / "gmflow.pth"
    torch.save({"model": GMFlow().state_dict()}, file)
    metric = EPE("gmflow", str(file))
    metric.prepare()
    assert not metric.state_dict() and not list(metric.parameters())
    clip = torch.randint(256, (2, 3, 16, 32), dtype=torch.uint8)
    metric.add(EditedSample("a", clip, clip))
    assert {name: value.item() for name, value in metric.compute().items()} == {"epe_gmflow_px": 0}
    assert EPE("raft").names == ("epe_raft_px",)
    assert metric.higher_is_better is False


@pytest.mark.parametrize("name", ["cat-in-the-sun_background", "swans_object"])
def test_a_real_edit_moves_more_like_its_source_than_another_video_does(shared: Path, name: str) -> None:
    folder = shared / "real/triplets"
    source, edited, other = (
        torch.from_numpy(read_clip(folder / f"{path}.mp4").frames[:5])
        for path in (f"source/{name}", f"edited/{name}", "source/miami-surf_background")
    )
    edit = error(source, edited)
    print(f"{name}: EPE {edit:.3f} px, of another video {error(source, other):.3f} px")
    assert error(source, source) == 0 < edit < error(source, other)
