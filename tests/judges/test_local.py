import shutil

import numpy as np
import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.judges import QUALITY, Question, VLMJudge
from insvie_lightning.judges.local import LocalModel


@pytest.fixture(scope="module")
def model(tiny_vlm):
    return LocalModel(str(tiny_vlm), device="cpu", max_tokens=32)


@pytest.mark.parametrize("answer", [1, 2, 3, 4, 5])
def test_a_score_of_what_the_model_sees(model, make_question, answer):
    verdict = VLMJudge(model).ask(make_question(answer))
    assert (verdict.answer, verdict.replies) == (answer, (f'{{"score": {answer}}}',))
    assert verdict.completion_tokens == len(verdict.replies[0]) + 1


def test_it_says_what_it_says_behind_a_server(model, judge_server, make_question):
    """The same messages reach the model: as many tokens, and the same reply, though a server's pictures are JPEG."""
    from insvie_lightning.judges.server import Server

    behind = Server("tiny-vlm", judge_server.url)
    for earlier in ((), (("Hm.", "Again, please."),)):
        ours, theirs = model.reply(make_question(4), earlier), behind.reply(make_question(4), earlier)
        assert ours == theirs and ours.prompt_tokens > 50


def test_a_cut_reply_is_missing(tiny_vlm, make_question):
    verdict = VLMJudge(LocalModel(str(tiny_vlm), "cpu", max_tokens=4), reasks=1).ask(make_question())
    assert verdict.answer is None and verdict.replies == ('{"sc', '{"sc') and "raise max_tokens" in verdict.reason


def test_questions_in_several_threads(model, make_question):
    verdicts = VLMJudge(model, concurrency=3).ask_all(make_question(i % 5 + 1) for i in range(10))
    assert [verdict.answer for verdict in verdicts] == [1, 2, 3, 4, 5] * 2


def test_frames_of_any_shape(model):
    frames = np.full((3, 3, 40, 90), 225, np.uint8)
    assert VLMJudge(model).ask(Question(QUALITY, "make it white", frames, frames)).answer in (1, 2, 3, 4, 5)


def test_a_folder_is_known_by_its_full_path(tiny_vlm, monkeypatch):
    monkeypatch.chdir(tiny_vlm.parent)
    assert LocalModel("tiny_vlm").identity == {"model": str(tiny_vlm)}
    assert LocalModel("some/hub-id").identity == {"model": "some/hub-id"}


def test_weights_that_are_not_there_are_one_sentence(monkeypatch):
    monkeypatch.setattr("insvie_lightning.nets.hub.HfApi.model_info", lambda *args, **options: 1 / 0)
    with pytest.raises(InputError, match=r"'no/such-model' are neither a folder.*name the folder as the judge's"):
        LocalModel("no/such-model").check()


def test_weights_of_another_kind_are_one_sentence(tmp_path, tiny_vlm):
    with pytest.raises(InputError, match="cannot be loaded as an image-text-to-text model"):
        LocalModel(str(tmp_path)).check()
    shutil.copytree(tiny_vlm, tmp_path / "text")
    (tmp_path / "text/config.json").write_text('{"model_type": "t5", "architectures": ["T5Model"]}')
    with pytest.raises(InputError, match="cannot be loaded as an image-text-to-text model"):
        LocalModel(str(tmp_path / "text")).check()


def test_code_that_comes_with_weights_is_not_run(tmp_path, tiny_vlm):
    folder = tmp_path / "foreign"
    shutil.copytree(tiny_vlm, folder)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "config.json").write_text(
        '{"model_type": "foreign", "auto_map": {"AutoConfig": "code.C", "AutoModelForImageTextToText": "code.M"}}'
    )
    with pytest.raises(InputError, match="cannot be loaded"):
        LocalModel(str(folder)).check()
    assert not (tmp_path / "ran").exists()
