"""The recipes of the toy models reproduce the scores of the files that are shipped."""

import csv
from pathlib import Path

import pytest

from insvie_lightning.cli import main

SHIPPED = {
    "toy_vae": ("val_psnr_db", 31.56, 0.3),
    "toy_base": ("val_caption_recall", 0.989, 0.02),
    "toy_clip": ("val_retrieval", 0.945, 0.03),
}


@pytest.mark.proof
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("recipe", SHIPPED)
def test_a_recipe_reproduces_the_shipped_score(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "-c", recipe]) == 0
    name, score, tolerance = SHIPPED[recipe]
    with (tmp_path / "runs" / recipe / "metrics.csv").open() as file:
        values = [float(row[name]) for row in csv.DictReader(file) if row[name]]
    assert values[-1] == pytest.approx(score, abs=tolerance)
