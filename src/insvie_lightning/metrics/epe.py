"""Does an edit move as its source does: the end-point error between their optical flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.metrics.flow import BackendName, flow_backend
from insvie_lightning.metrics.per_sample import EditedSample, PerSample
from insvie_lightning.nets.recent import Recent, fingerprint


class EPE(PerSample):
    """End-point error between the flows of source and edit, in pixels of the clips' own size; lower is better.

    The value is called `epe_dis_px`, `epe_raft_px` or `epe_gmflow_px`: values of different backends, or of clips of
    different sizes, are not comparable. InsViE (arXiv 2503.20287, section 5.1) reports the same positive number, by
    GMFlow; the "motion alignment" of V2VBench (`v2vbench/motion_alignment.py`) is its negative. Neither masks what is
    occluded. A clip of one frame has no flow: its value is nan, which counts as missing.

    Args:
        backend: Whose flow: `dis` (OpenCV, no weights), `raft` (torchvision) or `gmflow` (the published numbers').
        weights: A local file; see `flow_backend`.

    Raises:
        InputError: Backend and weights do not go together.
    """

    higher_is_better = False

    def __init__(self, backend: BackendName = "dis", weights: str | None = None) -> None:
        super().__init__(with_source=False)  # the source's own error is 0
        self.flow = flow_backend(backend, weights)
        self.names = (f"epe_{backend}_px",)
        self._flows: Recent[Tensor] = Recent(1)  # of the source, for the next edit of the same video

    def prepare(self) -> None:
        """Load the flow network.

        Raises:
            InputError: Its weights are absent, damaged or of another model.
        """
        self.flow.prepare()

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """The error in pixels.

        Raises:
            InputError: Source and edit differ in shape.
        """
        if sample.source.shape != sample.edited.shape:
            raise InputError(
                f"sample {sample.key!r}: the source is {tuple(sample.source.shape)}, the edit "
                f"{tuple(sample.edited.shape)} (F 3 H W); their flows are compared at one shape"
            )
        if len(sample.edited) < 2:
            return (math.nan,)
        source = sample.source
        flow = self._flows.get((fingerprint(source), source.device), lambda: self.flow(source))
        return (end_point_error_px(flow, self.flow(sample.edited)),)


def end_point_error_px(flow_px: Tensor, other_px: Tensor) -> float:
    """Mean over frames and pixels of the length of the difference of two flows, each F 2 H W."""
    errors = [torch.hypot(*(one - other)).mean() for one, other in zip(flow_px, other_px, strict=True)]
    return float(torch.stack(errors).mean())
