"""The planes of a volume one after another, as files that are written whole have them."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nisbjax.convert import copying
from nisbjax.convert.plan import Plan
from nisbjax.geometry import Box
from nisbjax.store.volume import Volume


def planes(plan: Plan, source: Volume) -> Iterator[np.ndarray]:
    """Planes [y x] in the output's type, z by z, channel by channel.

    They are read in slabs that memory holds, the next while one is written.

    Args:
      plan: whose memory and type hold.
      source: (c) z y x.
    """
    leading = source.shape[:-2]
    itemsize = max(plan.dtype.itemsize, source.dtype.itemsize)
    plane = math.prod(source.shape[-2:]) * itemsize
    many = max(1, int(plan.memory_bytes / 4 / plane))
    chunk = max(source.spatial_chunks[2], 1)
    many = max(many // chunk * chunk, min(many, chunk))
    pending: Any = None
    for at in np.ndindex(*leading[:-1]):
        for start in range(0, leading[-1], many):
            stop = min(start + many, leading[-1])
            index = (*at, slice(start, stop), slice(None), slice(None))
            box = Box((0, 0, start), (source.shape[-1], source.shape[-2], stop))
            ahead = box, source.start_read(index)
            if pending is not None:
                yield from copying.of_type(plan, pending[0], pending[1].result())
            pending = ahead
    if pending is not None:
        yield from copying.of_type(plan, pending[0], pending[1].result())
