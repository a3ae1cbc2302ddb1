import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from insvie_lightning.metrics.per_sample import EditedSample
from insvie_lightning.metrics.pixels import MAX_PSNR_DB, Pixels
from insvie_lightning.video import read_clip


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(40, 200, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def scores(source: Tensor, edited: Tensor, target: Tensor | None = None, threshold: int = 16) -> dict[str, float]:
    metric = Pixels(threshold)
    return dict(zip(metric.names, metric.score(EditedSample("a", source, edited, target)), strict=True))


def test_values_against_the_source_are_those_of_torchmetrics() -> None:
    source, edited = noise(3, 3, 24, 32), noise(3, 3, 24, 32, seed=1)
    result = scores(source, edited)
    a, b = edited.double() / 255, source.double() / 255
    psnr = peak_signal_noise_ratio(a, b, data_range=1.0, dim=(1, 2, 3))
    assert result["psnr_source_db"] == pytest.approx(float(psnr), abs=1e-4)
    assert result["ssim_source"] == pytest.approx(
        float(structural_similarity_index_measure(a, b, data_range=1.0)), abs=1e-5
    )


def test_psnr_is_the_mean_over_frames_of_known_errors() -> None:
    source = noise(2, 3, 16, 16)
    edited = source.clone()
    edited[0] += 10
    edited[1] += 20
    expected = [-20 * math.log10(step / 255) for step in (10, 20)]
    assert scores(source, edited)["psnr_source_db"] == pytest.approx(sum(expected) / 2, abs=1e-4)


def test_equal_clips_get_the_largest_values() -> None:
    clip = noise(2, 3, 16, 16)
    assert scores(clip, clip, clip) == pytest.approx(
        {
            "psnr_source_db": MAX_PSNR_DB,
            "ssim_source": 1,
            "psnr_outside_db": MAX_PSNR_DB,
            "ssim_outside": 1,
            "psnr_target_db": MAX_PSNR_DB,
            "source_psnr_target_db": MAX_PSNR_DB,
        }
    )


def test_without_a_target_its_values_are_missing() -> None:
    metric = Pixels()
    metric.add(EditedSample("a", noise(2, 3, 16, 16), noise(2, 3, 16, 16, seed=1)))
    result = metric.compute()
    for name in ("psnr_outside_db", "ssim_outside", "psnr_target_db", "source_psnr_target_db"):
        assert result[name].isnan() and result[f"{name}_missing"] == 1
    assert "psnr_source_db_missing" not in result


def region() -> tuple[Tensor, Tensor]:
    """A source, and a target in which a square is 17 levels brighter in one channel, elsewhere in the second frame."""
    source = noise(2, 3, 40, 48)
    target = source.clone()
    target[0, 1, 10:18, 12:20] += 17
    target[1, 1, 20:28, 20:28] += 17
    return source, target


def test_outside_of_the_region_nothing_inside_of_it_counts() -> None:
    source, target = region()
    edited = source.clone()
    edited[0, :, 10:18, 12:20] = 255
    edited[1, :, 20:28, 20:28] = 0
    result = scores(source, edited, target)
    assert result["psnr_outside_db"] == MAX_PSNR_DB and result["ssim_outside"] == pytest.approx(1, abs=1e-6)
    assert result["psnr_source_db"] < 30 and result["ssim_source"] < 0.99


def test_a_region_at_the_border_is_not_seen_by_mirrored_windows() -> None:
    source = noise(1, 3, 30, 30)
    target = source.clone()
    target[:, :, :3, 24:] += 30
    assert scores(source, target, target)["ssim_outside"] == pytest.approx(1, abs=1e-6)
    assert scores(source, target, target)["ssim_source"] < 0.999


def test_outside_of_the_region_every_pixel_counts() -> None:
    source, target = region()
    edited = target.clone()
    edited[0, 0, 9, 12] += 30  # just above the region of the first frame
    edited[1, 0, 19, 20] += 30
    expected = -10 * math.log10((30 / 255) ** 2 / (3 * (40 * 48 - 64)))
    assert scores(source, edited, target)["psnr_outside_db"] == pytest.approx(expected, abs=1e-3)


def test_ssim_outside_sees_what_is_a_window_away_from_the_region() -> None:
    source, target = region()
    near, far = target.clone(), target.clone()
    near[0, :, 18, 14] += 50  # its pixel is outside, and seen by windows that reach into the region, and by others
    far[0, :, 30, 40] += 50
    assert scores(source, target, target)["ssim_outside"] == pytest.approx(1, abs=1e-6)
    assert scores(source, far, target)["ssim_outside"] < 0.9999
    assert scores(source, far, target)["ssim_outside"] < scores(source, near, target)["ssim_outside"] < 1


def test_the_region_is_where_the_difference_is_above_the_threshold() -> None:
    source, target = region()
    assert scores(source, target, target)["psnr_outside_db"] == MAX_PSNR_DB
    assert scores(source, target, target, threshold=17)["psnr_outside_db"] < 60


def test_a_region_that_is_all_leaves_nothing_outside() -> None:
    source = noise(2, 3, 16, 16)
    target = source.clone()
    target[0] += 30
    result = scores(source, source, target)
    assert result["psnr_outside_db"] == MAX_PSNR_DB  # of the second frame alone
    target[1] += 30
    result = scores(source, source, target)
    assert math.isnan(result["psnr_outside_db"]) and math.isnan(result["ssim_outside"])
    assert result["psnr_target_db"] == pytest.approx(-20 * math.log10(30 / 255), abs=1e-4)


def test_frames_too_small_for_a_window_have_no_ssim() -> None:
    assert scores(noise(2, 3, 6, 6), noise(2, 3, 6, 6))["ssim_source"] == pytest.approx(1)
    clip = noise(2, 3, 5, 40)
    result = scores(clip, clip, clip)
    assert math.isnan(result["ssim_source"]) and math.isnan(result["ssim_outside"])
    assert result["psnr_source_db"] == MAX_PSNR_DB


def test_beside_the_target_stands_what_returning_the_source_would_reach() -> None:
    source, target = region()
    metric = Pixels()
    for key, truth in (("a", target), ("b", source)):  # two edits of one video
        metric.add(EditedSample(key, source, truth, truth))
    copied = [dict(zip(metric.columns, row, strict=True))["source_psnr_target_db"] for row in metric.rows.values()]
    expected = -10 * math.log10((17 / 255) ** 2 * 64 / (3 * 40 * 48))
    assert copied == pytest.approx([expected, MAX_PSNR_DB], abs=1e-3)
    assert metric.compute()["psnr_target_db"] == MAX_PSNR_DB
    assert not metric.state_dict()


@pytest.mark.parametrize("name", ["cat-in-the-sun_background", "swans_object"])
def test_a_real_edit_is_between_its_source_and_another_video(shared: Path, name: str) -> None:
    folder = shared / "real/triplets"
    source, edited, other = (
        torch.from_numpy(read_clip(folder / f"{path}.mp4").frames[:3])
        for path in (f"source/{name}", f"edited/{name}", "source/miami-surf_background")
    )
    same, edit, far = (scores(source, clip) for clip in (source, edited, other))
    print(f"{name}: PSNR {edit['psnr_source_db']:.1f} dB, SSIM {edit['ssim_source']:.3f}; of another video "
          f"{far['psnr_source_db']:.1f} dB, {far['ssim_source']:.3f}")  # fmt: skip
    assert same["psnr_source_db"] == MAX_PSNR_DB > edit["psnr_source_db"] > far["psnr_source_db"] > 0
    assert same["ssim_source"] == pytest.approx(1) and 1 > edit["ssim_source"] > far["ssim_source"]
