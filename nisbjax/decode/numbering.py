"""Compiled: from a forest of runs to labels, and what becomes of labels afterwards.

Labels are 1..N in C order of each component's first voxel (as PyTC's and BANIS'), and a
parent always has the lower index, so one pass in that order finds every root before its
descendants: the label of a parent is there when it is needed, in the same array.
"""

from typing import no_type_check

import numpy as np

from nisbjax.decode.kernels import kernel, trailing_zeros

_0, _1, _6, _63, _64 = (np.uint64(i) for i in (0, 1, 6, 63, 64))


@no_type_check
@kernel
def count_roots(parent, foreground, joined, start, stop, wanted, ranks):
    """Counts the components that begin in planes start to stop.

    `ranks` receives, for each ascending root `wanted` of these planes, how many components
    begin there up to and with its own.
    """
    ny, words = joined.shape[1:]
    nz = np.uint64(parent.size // (joined.shape[0] * ny))
    count, i = 0, 0
    for x in range(start, stop):
        for y in range(ny):
            base = np.uint64(x * ny + y) * nz
            for w in range(np.uint64(words)):
                starts = foreground[x, y, w] & ~joined[x, y, w]
                while starts != _0:
                    v = base + w * _64 + np.uint64(trailing_zeros(starts))
                    starts &= starts - _1
                    if np.uint64(parent[v]) == v:
                        count += 1
                        if i < wanted.size and np.uint64(wanted[i]) == v:
                            ranks[i] = count
                            i += 1
    return count


@no_type_check
@kernel
def write_labels(parent, foreground, joined, start, stop, label, cross, cross_labels):
    """Turns the forest of planes start to stop into labels, in place.

    Args:
      label: the last one given before these planes.
      cross: ascending run starts whose root lies before these planes.
      cross_labels: theirs.

    Returns:
      The last label given.
    """
    ny, words = joined.shape[1:]
    nz = np.uint64(parent.size // (joined.shape[0] * ny))
    first = np.uint64(start * ny) * nz
    forest = np.empty(nz, parent.dtype)
    label = np.uint64(label)
    i = 0
    for x in range(start, stop):
        for y in range(ny):
            base = np.uint64(x * ny + y) * nz
            row = parent[base : base + nz]
            joints = joined[x, y]
            forest[:] = row
            row[:] = 0
            for w in range(np.uint64(words)):
                starts = foreground[x, y, w] & ~joints[w]
                while starts != _0:
                    bit = np.uint64(trailing_zeros(starts))
                    starts &= starts - _1
                    z = w * _64 + bit
                    above = np.uint64(forest[z])
                    if above == base + z:
                        label += _1
                        own = label
                    elif above >= first:
                        own = np.uint64(parent[above])  # labelled: it comes before
                    else:
                        own = np.uint64(cross_labels[i])
                        i += 1
                    row[z] = own
                    # To the end of the run, the next voxel without an edge before it.
                    z += _1
                    while z < nz and (joints[z >> _6] >> (z & _63)) & _1:
                        row[z] = own
                        z += _1
    return label


@no_type_check
@kernel
def measure(labels, first, size):
    """First index and number of voxels of labels 1..N that are numbered in C order.

    Args:
      labels: flat.
      first, size: room for N + 1; `size` zeroed; entry 0 is the background's.
    """
    last, start, newest = labels[0], 0, np.int64(0)
    for i in range(labels.size + 1):
        if i < labels.size and labels[i] == last:
            continue
        if last > newest:
            newest = np.int64(last)
            first[newest] = start
        size[last] += i - start
        if i < labels.size:
            last, start = labels[i], i


@no_type_check
@kernel
def relabel(labels, table, result):
    """result[i] = table[labels[i]], flat; run by run, as neighbours are mostly equal."""
    last, value = labels[0], table[labels[0]]
    for i in range(labels.size):
        if labels[i] != last:
            last, value = labels[i], table[labels[i]]
        result[i] = value
