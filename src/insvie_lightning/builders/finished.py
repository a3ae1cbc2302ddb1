"""Tell that a step has nothing to do before its weights are loaded."""

import math

from insvie_lightning.builders.builder import Builder
from insvie_lightning.builders.units import Inputs
from insvie_lightning.shards.funnel import write_funnel
from insvie_lightning.shards.manifest import finished_shards


def end_if_finished(builder: Builder, inputs: Inputs) -> bool:
    """Whether all that a step is to build of some inputs is built; then its funnel is written and printed.

    Raises:
        InputError: The output folder holds another job.
    """
    if len(finished_shards(builder.output)) < math.ceil(len(inputs.keys) / builder.shard_size):
        return False
    builder.feed(inputs, batch_size=1)
    if builder.ledger.unfinished():
        return False
    builder.ledger.tidy()
    write_funnel(builder.output, shown=True)
    return True
