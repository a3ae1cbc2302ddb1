"""What was computed last is not computed again, and no more than that is kept."""

import torch

from insvie_lightning.nets.recent import Recent, fingerprint


def test_the_last_values_are_computed_once() -> None:
    computed: list[str] = []
    recent: Recent[str] = Recent(2)

    def get(key: str) -> str:
        return recent.get(key, lambda: computed.append(key) or key.upper())  # type: ignore[func-returns-value]

    assert [get(key) for key in "abacab"] == ["A", "B", "A", "C", "A", "B"]
    assert computed == ["a", "b", "c", "b"]  # `a` was asked for in between and stays; `b` went for `c`


def test_fingerprints_tell_clips_apart_by_content_and_shape() -> None:
    clip = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    other = clip.clone()
    other[1, 2, 3, 4] += 1
    assert fingerprint(clip) == fingerprint(clip.clone()) == fingerprint(clip.mT.contiguous().mT)
    assert len({fingerprint(clip), fingerprint(other), fingerprint(clip.reshape(2, 3, 5, 4))}) == 3
