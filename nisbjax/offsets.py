"""Affinity offsets: which two voxels an edge joins and where it is stored.

Channel i holds the edge from v to v + offset_i. BANIS stores it at v ("source"), DeepEM
and PyTC's SNEMI3D recipe at v + offset_i ("destination"); nisbjax keeps "source" in
memory and on disk, and turns others at the reader.
"""

from nisbjax.typing import Triple

SHORT_RANGE: tuple[Triple, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
OFFSETS_6: tuple[Triple, ...] = (*SHORT_RANGE, (10, 0, 0), (0, 10, 0), (0, 0, 10))

Slices = tuple[slice, slice, slice]


def edge_slices(shape: Triple, offset: Triple) -> tuple[Slices, Slices]:
    """Slices of the voxels at both ends of every edge that stays inside the volume.

    Args:
      shape: of the volume, x y z.
      offset: of the edge; components may be negative.

    Returns:
      Slices of the sources v and of the destinations v + offset; an offset longer than the
      volume gives empty slices.
    """
    source, destination = [], []
    for size, step in zip(shape, offset, strict=True):
        low, high = max(0, -step), max(0, size - max(0, step))
        high = max(low, high)
        source.append(slice(low, high))
        destination.append(
            slice(low + step, high + step) if high > low else slice(0, 0)
        )
        if high == low:
            source[-1] = slice(0, 0)
    return tuple(source), tuple(destination)


def context(offsets: tuple[Triple, ...]) -> tuple[Triple, Triple]:
    """Voxels that a crop needs before and behind it, so that all its edges have both ends.

    Returns:
      (before, behind), each x y z: (0, 0, 0) and (10, 10, 10) for `OFFSETS_6`, PyTC's
      `target_context`.
    """
    x, y, z = (max(0, *(-o[axis] for o in offsets)) for axis in range(3))
    before = x, y, z
    x, y, z = (max(0, *(o[axis] for o in offsets)) for axis in range(3))
    return before, (x, y, z)
