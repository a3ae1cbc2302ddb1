"""The bar of a training, as long as the run."""

from lightning.pytorch.callbacks import RichProgressBar


class StepBar(RichProgressBar):
    """Lightning's bar, with the run's own length and time left where `max_steps` ends it before the data do."""

    @property
    def total_train_batches(self) -> int | float:
        """Batches of this epoch, but no more than are left until `max_steps`."""
        trainer, whole = self.trainer, self.trainer.num_training_batches
        if trainer.max_steps < 0 or not whole:
            return whole
        # At the start of an epoch the count is still that of the one before, which was whole.
        seen = trainer.fit_loop.epoch_loop.batch_progress.current.completed % whole
        left = max(trainer.max_steps - trainer.global_step, 0) * trainer.accumulate_grad_batches
        return min(whole, seen + left)
