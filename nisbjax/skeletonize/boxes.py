"""The boxes that a volume is skeletonized in: neighbours share one plane of voxels.

There kimimaro's `fix_borders` puts a node into the middle of every patch of a label, the
same from both sides. Igneous (seung-lab) cuts a volume into chunks of one shape, the last ones
slivers; here boxes are as equal as they can be, and follow from the volume and the largest
shape alone.
"""

import itertools
from typing import NamedTuple

from nisbjax.geometry import Box
from nisbjax.typing import Triple


class SharedBox(NamedTuple):
    """One box.

    Attributes:
      read: what is skeletonized, with the planes that neighbours have too.
      own: the part of it that no other box owns; all of them tile the region.
    """

    read: Box
    own: Box


def boxes(region: Box, largest: Triple) -> list[SharedBox]:
    """Boxes that cover a region, in C order.

    7 voxels in boxes of at most 3 are cut at 0, 3 and 6: 0:4 and 3:7 are read, of which
    0:3 and 3:7 are owned.

    Args:
      region: in voxels of the volume, not empty.
      largest: steps of a box along x, y and z, a shared plane not counted.
    """
    x, y, z = (
        _spans(start, stop, most)
        for start, stop, most in zip(region.start, region.stop, largest, strict=True)
    )
    found = []
    for spans in itertools.product(x, y, z):
        (x0, x1, x2), (y0, y1, y2), (z0, z1, z2) = spans
        found.append(
            SharedBox(Box((x0, y0, z0), (x1, y1, z1)), Box((x0, y0, z0), (x2, y2, z2)))
        )
    return found


def _spans(start: int, stop: int, most: int) -> list[tuple[int, int, int]]:
    """Along one axis: the first voxel of each box, its end as read and as owned."""
    steps = stop - 1 - start
    count = max(1, -(-steps // most))
    cuts = [start + i * steps // count for i in range(count)]
    ends = [*cuts[1:], stop - 1]
    last = count - 1
    return [
        (cut, end + 1, end + (i == last))
        for i, (cut, end) in enumerate(zip(cuts, ends, strict=True))
    ]
