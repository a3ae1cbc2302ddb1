from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.report.curves import joined_chart, last_step, metric_groups, read_metrics


def metrics_file(folder: Path, text: str) -> Path:
    path = folder / "metrics.csv"
    path.write_text(text)
    return path


def test_sparse_rows_become_curves(tmp_path: Path) -> None:
    metrics = read_metrics(metrics_file(tmp_path, "step,epoch,a,b\n0,0,1,\n1,0,,5\n2,0,3,\n"))
    np.testing.assert_array_equal(metrics["a"].curve, [[0, 2], [1, 3]])
    np.testing.assert_array_equal(metrics["b"].curve, [[1], [5]])
    assert list(metrics) == ["a", "b"]
    assert last_step(metrics) == 2


def test_resumed_step_counts_once_with_its_later_value(tmp_path: Path) -> None:
    metrics = read_metrics(metrics_file(tmp_path, "step,a\n0,1\n1,2\n2,9\n1,3\n2,4\n"))
    np.testing.assert_array_equal(metrics["a"].curve, [[0, 1, 2], [1, 3, 4]])


def test_values_that_are_not_finite_are_counted_and_told(tmp_path: Path) -> None:
    metrics = read_metrics(metrics_file(tmp_path, "step,a,b\n0,1,nan\n1,nan,inf\n2,inf,nan\n3,2,1.2e-\n"))
    assert metrics["a"].lost == 2
    assert metrics["b"].diverged
    assert "2 values" in joined_chart("a", ["a"], {"s1": metrics}).note


def test_cut_last_line_is_no_obstacle(tmp_path: Path) -> None:
    metrics = read_metrics(metrics_file(tmp_path, "step,epoch,a\n0,0,1\n1,0,2\n2"))
    np.testing.assert_array_equal(metrics["a"].curve, [[0, 1], [1, 2]])


def test_file_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'step'"):
        read_metrics(metrics_file(tmp_path, "a,b\n1,2\n"))


def test_splits_share_a_group_and_losses_come_first(tmp_path: Path) -> None:
    text = "step,lr,train/loss_step,train/loss_epoch,val_loss,once,stage_index\n0,1,1,1,1,,0\n1,1,1,1,1,7,1\n"
    groups = metric_groups({"s1": read_metrics(metrics_file(tmp_path, text))})
    assert list(groups.items()) == [("loss", ["train/loss_step", "train/loss_epoch", "val_loss"]), ("lr", ["lr"])]


def test_runs_are_joined_end_to_end(tmp_path: Path) -> None:
    metrics = read_metrics(metrics_file(tmp_path, "step,a\n0,1\n100,2\n"))
    other = read_metrics(metrics_file(tmp_path, "step,b\n0,1\n100,2\n"))
    chart = joined_chart("a", ["a"], {"s1": metrics, "between": other, "s2": metrics})
    assert all(f">{text}</text>" in chart.svg for text in ("s1", "s2", "200"))
    assert "between" not in chart.svg
    assert ">300</text>" not in chart.svg


def test_stages_of_one_run_are_marked(tmp_path: Path) -> None:
    text = "step,a,stage_index\n0,1,0\n1,1,0\n2,1,1\n3,1,2\n"
    chart = joined_chart("a", ["a"], {"run": read_metrics(metrics_file(tmp_path, text))})
    assert all(f">stage {number}</text>" in chart.svg for number in (1, 2, 3))
