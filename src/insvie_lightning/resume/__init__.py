"""Checkpoints of a run: written so that a crash cannot break them, and found again; random state is part of them."""
