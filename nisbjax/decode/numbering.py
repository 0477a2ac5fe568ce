"""Compiled: from a forest of runs to labels, and what becomes of labels afterwards.

Labels are 1..N in C order of each component's first voxel (as PyTC's and BANIS'), and a
parent always has the lower index, so one pass in that order finds every root before its
descendants: the label of a parent is there when it is needed, in the same array. Two rows of
four voxels, with the runs 0-1, 2, 3 and 4, 5-6, 7:

    voxel     0  1  2  3    4  5  6  7      run 2 is alone, 4 hangs at 0, 5 hangs at 3
    edge      1  1  1  1    1  1  1  0      voxel 7 has none: background
    parent    0  1  2  3    0  3  6  7      voxels 1 and 6 begin no run: nobody asks them
    label     1     2  3    1  3     0      of the starts of runs: roots count up, 4 and 5
                                            take what stands at 0 and 3
    spread    1  1  2  3    1  3  3  0      along the runs
"""

from typing import no_type_check

import numpy as np

from nisbjax.decode.kernels import kernel, part, trailing_zeros

_0, _1, _6, _64 = (np.uint64(i) for i in (0, 1, 6, 64))
_FEW_RUNS = 6  # in a word, that are filled one by one


@no_type_check
@kernel
def flatten_plane(parent, joined, x):
    """Points every run start of a plane to the root of its slab's own forest."""
    ny, words = joined.shape[1:]
    nz = np.uint64(parent.size // (joined.shape[0] * ny))
    for y in range(ny):
        base = np.uint64(x * ny + y) * nz
        for w in range(np.uint64(words)):
            starts = ~joined[x, y, w]
            while starts != _0:
                z = (w << _6) + np.uint64(trailing_zeros(starts))
                starts &= starts - _1
                if z >= nz:
                    break
                v = base + z
                root = np.uint64(parent[v])
                while np.uint64(parent[root]) != root:
                    root = np.uint64(parent[root])
                while v != root:
                    above = np.uint64(parent[v])
                    parent[v] = root
                    v = above


@no_type_check
@kernel
def resolve(parent, attached):
    """Points attached roots, in ascending order, to the roots of the whole volume."""
    for i in range(attached.size):
        parent[attached[i]] = parent[np.uint64(parent[attached[i]])]


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
@part
def _spread(labels, foreground, joined, begin, stop):
    """Gives the voxels of a row the label that stands at the start of their run."""
    own = labels[begin]
    for w in range(np.uint64(joined.size)):
        starts, front = ~joined[w], foreground[w]
        end = min(begin + _64, stop)
        few = starts
        for _ in range(_FEW_RUNS):
            few &= few - _1
        if few == _0:
            v = begin
            while v < end:
                after = end
                if starts != _0:
                    after = min(end, begin + np.uint64(trailing_zeros(starts)))
                for u in range(v, after):
                    labels[u] = own
                if after < end:
                    own = labels[after] if (front >> (after - begin)) & _1 else own * 0
                    starts &= starts - _1
                v = after
        else:
            # Runs too short to be worth a branch.
            for v in range(begin, end):
                own = labels[v] if starts & _1 else own
                labels[v] = own * (front & _1)
                starts >>= _1
                front >>= _1
            own = labels[end - _1]
        begin = end


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
    label = np.uint64(label)
    i = 0
    for x in range(start, stop):
        for y in range(ny):
            base = np.uint64(x * ny + y) * nz
            for w in range(np.uint64(words)):
                starts = foreground[x, y, w] & ~joined[x, y, w]
                while starts != _0:
                    v = base + (w << _6) + np.uint64(trailing_zeros(starts))
                    starts &= starts - _1
                    above = np.uint64(parent[v])
                    if above == v:
                        label += _1
                        parent[v] = label
                    elif above >= first:
                        parent[v] = parent[above]  # labelled: it comes before
                    else:
                        parent[v] = cross_labels[i]
                        i += 1
            _spread(parent, foreground[x, y], joined[x, y], base, base + nz)
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
def renumber(labels, table):
    """Gives labels the numbers 1..N in C order of their first voxels, in place.

    Args:
      labels: flat.
      table: zeroed room for every label.
    """
    count = 0
    for i in range(labels.size):
        label = labels[i]
        if label == 0:
            continue
        if table[label] == 0:
            count += 1
            table[label] = count
        labels[i] = table[label]


@no_type_check
@kernel
def relabel(labels, table, result):
    """result[i] = table[labels[i]], flat; run by run, as neighbours are mostly equal.

    Returns:
      Whether the table has all labels; where not, the result ends at the first other one.
    """
    size, last = np.uint64(table.size), labels[0]
    if np.uint64(last) >= size:
        return False
    value = table[last]
    for i in range(labels.size):
        if labels[i] != last:
            last = labels[i]
            if np.uint64(last) >= size:
                return False
            value = table[last]
        result[i] = value
    return True
