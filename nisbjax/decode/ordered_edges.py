"""Edges to the next voxels in the order of their strength, sorted by counting.

Affinities fall into few numbers, so their bits are counted first and each edge then has its
place: no comparison, and no list but the result. float32 has more bits than there is room
to count; what shares a count is put in order afterwards. Equal edges stay in C order of their
lower voxel, then by axis. BANIS and PyTC have no such order; `mwatershed` sorts by comparing.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import UInt

from nisbjax.decode.kernels import kernel
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.geometry import Box

BUCKETS = 1 << 24  # of edges by affinity, at most; float16 needs fewer


@no_type_check
@kernel
def _collect(values, mask, rule, fixed, place, edges):
    """Sorts edges with low < affinity <= high into buckets, strongest first.

    Args:
      values: bits of the affinities, [3 x y z].
      mask: [x y z], or of size 0.
      rule: low; high; the shift of a difference of bits that makes it a bucket; whether
        edges are stored at their upper voxel; whether a mask asks for both of their voxels.
      fixed: flat; an edge between two voxels that are not 0 here is none. Or of size 0.
      place: where the next edge of each bucket goes; advanced, which counts them too.
      edges: receives 3 * (flat index of the lower voxel) + axis; of size 0 to count only.
    """
    low, high, shift, destination, both = rule
    nx, ny, nz = values.shape[1:]
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                for axis in range(3):
                    x1, y1, z1 = x + (axis == 0), y + (axis == 1), z + (axis == 2)
                    if x1 == nx or y1 == ny or z1 == nz:
                        continue
                    value = values[axis, x, y, z]
                    if destination:
                        value = values[axis, x1, y1, z1]
                    if value <= low or value > high:
                        continue
                    if mask.size:
                        near, far = mask[x, y, z], mask[x1, y1, z1]
                        stored = far if destination else near
                        if not stored or (both and not (near and far)):
                            continue
                    v = (x * ny + y) * nz + z
                    if fixed.size and fixed[v] and fixed[(x1 * ny + y1) * nz + z1]:
                        continue
                    bucket = (np.int64(high) - np.int64(value)) >> shift
                    if edges.size:
                        edges[place[bucket]] = 3 * v + axis
                    place[bucket] += 1


@no_type_check
@kernel
def _order(values, strides, destination, edges):
    """Puts edges of one bucket in order too: insertion into what is almost sorted."""
    flat = values.reshape(3, -1)
    for i in range(edges.size):
        edge = np.int64(edges[i])
        v = edge // 3 + (strides[edge % 3] if destination else 0)
        value = flat[edge % 3, v]
        j = i
        while j > 0:
            before = np.int64(edges[j - 1])
            u = before // 3 + (strides[before % 3] if destination else 0)
            if flat[before % 3, u] >= value:
                break
            edges[j] = edges[j - 1]
            j -= 1
        edges[j] = edge


def edges_between(
    values: UInt[np.ndarray, "axis x y z"],
    weakest: np.unsignedinteger,
    strongest: np.unsignedinteger,
    edges: MaskedEdges,
    fixed: np.ndarray | None = None,
) -> UInt[np.ndarray, " e"]:
    """3 voxel + axis of the edges with weakest < affinity <= strongest, strongest first.

    Args:
      values: bits of the affinities, contiguous.
      weakest, strongest: bits too.
      edges: which of them count.
      fixed: flat labels; edges between two labelled voxels are left out.
    """
    shape = values.shape[1:]
    mask = edges.mask_of(Box.whole(shape))
    mask = np.empty((0, 0, 0), bool) if mask is None else mask
    destination = bool(edges.edge_offset)
    span = int(strongest) - int(weakest)
    shift = max(0, span.bit_length() - BUCKETS.bit_length() + 1)
    place = np.zeros((span >> shift) + 1, np.int64)
    wide = np.uint32 if values.size < 2**32 else np.uint64
    fixed = np.empty(0, wide) if fixed is None else fixed
    rule = (weakest, strongest, shift, destination, edges.both)
    _collect(values, mask, rule, fixed, place, np.empty(0, wide))
    ordered = np.empty(place.sum(), wide)
    place = np.cumsum(place) - place
    if ordered.size:
        _collect(values, mask, rule, fixed, place, ordered)
    if shift:
        strides = np.array([shape[1] * shape[2], shape[2], 1])
        _order(values, strides, destination, ordered)
    return ordered
