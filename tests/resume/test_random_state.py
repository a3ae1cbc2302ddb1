import io
import random

import numpy as np
import torch

from insvie_lightning.resume.random_state import random_state, restore_random_state


def draws() -> tuple[float, float, float, float]:
    return random.gauss(0, 1), float(np.random.normal()), torch.randn(1).item(), random.random()


def test_the_same_numbers_come_again_even_through_a_file_without_pickled_objects() -> None:
    draws()  # a normal number is drawn in pairs: half of one is part of the state
    file = io.BytesIO()
    torch.save(random_state(), file)
    first, second = draws(), draws()
    assert first != second
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True))
    assert (draws(), draws()) == (first, second)
