import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.judges.reply import parse_reply, reply_schema

SCALE = (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"score": 4}', 4),
        ("{'score': 3}", 3),  # the paper's form, which is no JSON
        ("{‘score’: 3}", 3),  # noqa: RUF001 (as the paper prints it)
        ('```json\n{"score": 2}\n```', 2),
        ('{"score": "5"}', 5),
        ('{"score": 4.0}', 4),
        ('Here you are: {"reason": "soft edges", "score": 1}.', 1),
        ('{"score": 4, "details": {"blur": 2}}', 4),
        ('{"result": {"score": 4}}', 4),
        ("Score: 4/5", 4),
        ("**Score:** 3", 3),
        ("The score is 2 out of 5.", 2),
        ("4", 4),
        ('<think>{"score": 1}? No, more like score: 2.</think>\n{"score": 4}', 4),
        ('{"score": 3} {"score": 3}', 3),
        ('{"score": 5', 5),  # cut at the end
    ],
)
def test_an_answer_is_found(text, answer):
    assert parse_reply(text, "score", SCALE) == answer


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no 'score'"),
        ("I cannot help with that.", "has no 'score'"),
        ("The edit takes 4 seconds.", "has no 'score'"),
        ('{"score": null}', "no whole number of 1 to 5"),
        ('{"score": true}', "no whole number of 1 to 5"),
        ('{"score": 3.5}', "no whole number of 1 to 5"),
        ("Score: 3.5", "no whole number of 1 to 5"),
        ('{"score": 7}', "no whole number of 1 to 5"),
        ('{"score": 0}', "no whole number of 1 to 5"),
        ('{"score": -3}', "no whole number of 1 to 5"),
        ('{"score": [3]}', "no whole number of 1 to 5"),
        ("{'score': 3} or rather {'score': 4}", "several values"),
        ("score: 3 for colour, score: 4 for motion", "several values"),
        ("{" + "(" * 5000 + "}", "has no 'score'"),
        ('{"underscore": 3}', "has no 'score'"),
        ("Score: 4/10", "no whole number of 1 to 5"),
        ("Score: 4 out of 10", "no whole number of 1 to 5"),
        ("Score 1-5: 4", "no whole number of 1 to 5"),
        ("A score of 1 to 5: 3", "no whole number of 1 to 5"),
        ("Score: 4,5", "no whole number of 1 to 5"),
        ("Score: " + "1" * 400, "no whole number of 1 to 5"),  # what a model says that repeats itself
        ('{"score": ' + "9" * 400 + "}", "no whole number of 1 to 5"),
    ],
)
def test_nothing_is_guessed(text, says):
    with pytest.raises(InputError, match=says):
        parse_reply(text, "score", SCALE)


def test_nothing_is_executed(tmp_path):
    with pytest.raises(InputError):
        parse_reply(f"{{'score': open({str(tmp_path / 'x')!r}, 'w')}}", "score", SCALE)
    assert not list(tmp_path.iterdir())


def test_the_best_of_six_candidates():
    legal = tuple(range(6))
    assert parse_reply("{'best_image': 0}", "best_image", legal) == 0
    assert parse_reply("Best image: 5", "best_image", legal) == 5
    with pytest.raises(InputError, match="0 to 5"):
        parse_reply('{"best_image": 6}', "best_image", legal)


def test_the_schema_is_strict_and_lists_the_answers():
    assert reply_schema("score", SCALE) == {
        "type": "object",
        "properties": {"score": {"type": "integer", "enum": [1, 2, 3, 4, 5]}},
        "required": ["score"],
        "additionalProperties": False,
    }
