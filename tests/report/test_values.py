import math

import pytest

from insvie_lightning.report.values import counted, show, title


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("recolour_accuracy", 0.9712, "97.1 %"),
        ("data_wait_share", 0, "0 %"),
        ("psnr_db", 28.4213, "28.42 dB"),
        ("learning_rate", 0.000012, "1.2e-05"),
        ("step_ms", 61.25, "61.25 ms"),
        ("steps", 12000, "12\u202f000"),
        ("loss", math.nan, "nan"),
        ("loss", math.inf, "inf"),
        ("checkpoint", "last.ckpt", "last.ckpt"),
        ("ema", True, "True"),
    ],
)
def test_unit_comes_from_the_name(name: str, value: float | str, shown: str) -> None:
    assert show(name, value) == shown


def test_title_drops_the_unit_that_is_shown_with_the_value() -> None:
    assert [title(name) for name in ("psnr_db", "recolour_accuracy", "epe_px")] == ["PSNR", "recolour accuracy", "EPE"]


def test_one_thing_is_no_plural() -> None:
    assert [counted(count, "shard") for count in (0, 1, 2000)] == ["0 shards", "1 shard", "2\u202f000 shards"]
