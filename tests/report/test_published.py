"""The published rows, and what is said of ours."""

from insvie_lightning.report.published import EDITS, MODELS, notes, other_model, published_rows


def test_the_rows_end_with_the_paper_s() -> None:
    plain, plus = ({row.method: row.scores for row in published_rows(name)} for name in EDITS)
    assert list(plain)[-1] == list(plus)[-1] == "InsViE"
    assert plain["InsViE"] == {
        "pick_score": "20.90",
        "clip_frame": "0.941",
        "viclip_dir": "0.242",
        "viclip_out": "0.278",
    }
    assert plus["InsViE"] == {
        "pick_score": "20.97",
        "clip_frame": "0.945",
        "viclip_dir": "0.201",
        "viclip_out": "0.270",
    }
    assert plain["Tune-A-Video"]["clip_text"] == "27.12" and plus["AnyV2V"] == {"clip_text": "23.52"}
    assert "EditVerse" in plus and "EditVerse" not in plain


def test_every_row_has_a_source_and_believable_numbers() -> None:
    legal = {"pick_score": (19, 22), "clip_frame": (0.8, 1), "clip_text": (20, 30), "viclip_dir": (0, 0.3),
             "viclip_out": (0.1, 0.3)}  # fmt: skip
    for name in EDITS:
        for row in published_rows(name):
            assert "Table" in row.source and row.scores
            assert all(legal[column][0] < float(text) < legal[column][1] for column, text in row.scores.items())


def test_columns_of_one_kind_share_a_note() -> None:
    said = notes(["clip_frame", "epe_dis_px", "pick_score", "psnr_db", "source_clip_frame"])
    assert [note.partition(":")[0] for note in said] == ["clip_frame, pick_score", "epe_dis_px", "source_clip_frame"]


def test_another_model_is_told() -> None:
    assert not other_model("clip_frame", "openai/clip-vit-large-patch14")
    assert not other_model("pick_score", "/models/PickScore_v1/") and not other_model("epe_dis_px", "dis")
    assert other_model("clip_text", "toy") == MODELS["clip_text"]
