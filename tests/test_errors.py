import pytest

from insvie_lightning.errors import first_line


@pytest.mark.parametrize(
    ("text", "line"), [("no such file", "no such file"), ("\n cut off\nat byte 3", "cut off"), ("", "ValueError")]
)
def test_the_first_line_of_an_error(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line
    assert len(first_line(ValueError("x" * 1000))) == 160
