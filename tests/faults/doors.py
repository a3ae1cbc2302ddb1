"""All doors, by the kind of the spoilt file."""

import real_doors
import run_doors
import shard_doors
import source_doors
import weight_doors
from corrupter import DAMAGES
from door import Door

_ALL = (
    *source_doors.DOORS,
    *weight_doors.DOORS,
    *shard_doors.DOORS,
    *run_doors.DOORS,
    *real_doors.DOORS,
)
DOORS: tuple[Door, ...] = tuple(sorted(_ALL, key=lambda door: list(DAMAGES).index(door.kind)))
