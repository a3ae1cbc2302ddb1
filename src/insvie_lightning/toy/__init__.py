"""The toy world: moving coloured shapes whose edits are known exactly, so that learning is measured."""
