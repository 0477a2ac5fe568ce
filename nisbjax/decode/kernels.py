"""Compiled: a forest over the runs of voxels that affinities join, built from rows of bits.

Each row of affinities along z becomes a row of bits, 64 voxels to the word; runs along z are
the nodes of a forest that lives in the label array itself (Rem's algorithm with splicing;
Patwary, Blair and Manne, SEA 2010). Edges that a closed square of other edges implies are
dropped as bits, before any memory is touched. BANIS `inference.py` floods voxel by voxel,
PyTC sweeps labels along the axes at most 256 times.

Kernels that call one another stand in one module: numba's cache does not see a changed
callee in another file. What turns the forest into labels calls none of these (`numbering`).
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np
from numba.cpython.unsafe import numbers

# numba turns uint64 with a plain int into float64, so every number here is typed.
_0, _1, _63, _64 = np.uint64(0), np.uint64(1), np.uint64(63), np.uint64(64)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_GATHER = np.uint64(0x0102040810204080)  # lowest bits of eight bytes into the top byte
_56 = np.uint64(56)

leading_zeros: Callable[..., Any] = numbers.leading_zeros
trailing_zeros: Callable[..., Any] = numbers.trailing_zeros


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at the first call and cached on disk; runs without Python's lock."""
    return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


def _part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Part of a kernel, compiled into it."""
    return numba.njit(nogil=True, error_model="numpy")(function)


@no_type_check
@_part
def _pack(values, low, high, flags, words):
    """Bit z of `words` is low < values[z] <= high; `flags` is zeroed room for a row."""
    for z in range(values.size):
        flags[z] = (values[z] > low) & (values[z] <= high)
    quads = flags.view(np.uint64)
    packed = words.view(np.uint8)
    for i in range(quads.size):
        packed[i] = (quads[i] * _GATHER) >> _56


@no_type_check
@_part
def _run_start(joined, w, bit):
    """First voxel of the run that holds voxel 64 w + bit of a row.

    Bit z of `joined`: there is an edge between z - 1 and z.
    """
    starts = ~joined[w] & (_ALL >> (_63 - bit))
    while starts == _0:
        w -= _1
        starts = ~joined[w]
    return w * _64 + _63 - np.uint64(leading_zeros(starts))


@no_type_check
@_part
def _unite(parent, u, v):
    """Rem's union with splicing; a parent has the lower index, so a root is a first voxel."""
    pu, pv = np.uint64(parent[u]), np.uint64(parent[v])
    while pu != pv:
        if pu > pv:
            parent[u] = pv
            if u == pu:
                return
            u = pu
            pu = np.uint64(parent[u])
        else:
            parent[v] = pu
            if v == pv:
                return
            v = pv
            pv = np.uint64(parent[v])


@no_type_check
@_part
def _unite_rows(parent, edges, base, joined, base_before, joined_before, w):
    """Unites along the edges of one word between two rows."""
    while edges != _0:
        bit = np.uint64(trailing_zeros(edges))
        edges &= edges - _1
        u = base + _run_start(joined, w, bit)
        v = base_before + _run_start(joined_before, w, bit)
        _unite(parent, u, v)


@no_type_check
@kernel
def unite_planes(
    affinities_x,
    affinities_y,
    affinities_z,
    keep,
    low,
    high,
    destination,
    masked,
    both,
    first,
    inner,
    more,
    parent,
    foreground,
    joined,
    carry,
):
    """Adds planes to the forest, or more edges between planes that are in it.

    Args:
      affinities_*: p y z, of the planes.
      keep: p y z, 0 where masked; anything where not `masked`.
      low, high: an edge is there where low < affinity <= high.
      destination: edges are stored at the voxel of the higher index.
      masked, both: whether there is a mask, and whether it takes edges at both ends.
      first: index of the first of these planes in the volume.
      inner: whether the plane before `first` is in the forest (else a seam is left).
      more: whether these planes are in it, with all edges above `high`.
      parent: x*y*z, the forest over run starts.
      foreground, joined: x y w, bits of foreground voxels and of edges along z.
      carry: 2 y w, of the last plane: edges along y, and what edges along x need.
    """
    planes, ny, nz = affinities_z.shape
    nx, words = joined.shape[0], joined.shape[2]
    flags = np.zeros(words * 64, np.uint8)
    hx, hz = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    hy, hy_before = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    k, k_before = np.full(words, _ALL), np.full(words, _ALL)
    x_row, x_row_before = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    nothing = np.zeros(words, np.uint64)
    last_word, last_bit = np.uint64((nz - 1) // 64), np.uint64((nz - 1) % 64)
    for p in range(planes):
        x = first + p
        for y in range(ny):
            base = np.uint64(x * ny + y) * np.uint64(nz)
            if not more:
                joined[x, y], foreground[x, y] = 0, 0
                for z in range(np.uint64(nz)):
                    parent[base + z] = base + z
            _pack(affinities_x[p, y], low, high, flags, hx)
            _pack(affinities_y[p, y], low, high, flags, hy)
            _pack(affinities_z[p, y], low, high, flags, hz)
            if masked:
                _pack(keep[p, y], np.uint8(0), np.uint8(255), flags, k)
                for w in range(words):
                    hx[w] &= k[w]
                    hy[w] &= k[w]
                    hz[w] &= k[w]
            row, front = joined[x, y], foreground[x, y]
            row_y, row_x = joined[x, y - 1 if y else 0], joined[x - 1 if x else 0, y]
            front_y = foreground[x, y - 1 if y else 0]
            front_x = foreground[x - 1 if x else 0, y]
            h_above, k_above, ix_above, iy_above = _0, _0, _0, _0
            for w in range(np.uint64(words)):
                kept = k[w] if both else _ALL
                # Edges between this row's voxels and those before them on z, y and x.
                if destination:
                    iz = hz[w]
                    alone = _0
                    if w == _0:
                        alone = iz & _1
                        iz &= ~_1
                    if both:
                        iz &= (k[w] << _1) | k_above
                    iy = hy[w] & (k_before[w] if both else _ALL)
                    ix = hx[w] & (carry[1, y, w] if both else _ALL)
                    if y == 0:
                        alone |= hy[w]
                    if x == 0:
                        alone |= hx[w]
                else:
                    iz = ((hz[w] << _1) | h_above) & kept
                    alone = _0
                    if w == last_word:
                        alone = hz[w] & (_1 << last_bit)
                        iz &= _ALL >> (_63 - last_bit)
                    iy = hy_before[w] & kept
                    ix = carry[1, y, w] & kept
                    if y == ny - 1:
                        alone |= hy[w]
                    if x == nx - 1:
                        alone |= hx[w]
                if y == 0:
                    iy = _0
                if p == 0 and not inner:
                    ix = _0
                h_above, k_above = hz[w] >> _63, k[w] >> _63
                row[w] |= iz
                front[w] |= alone | iz | (iz >> _1) | iy | ix
                if w and iz & _1:
                    front[w - _1] |= _1 << _63
                front_y[w] |= iy
                front_x[w] |= ix
                if more:  # else the run itself is the node
                    _unite_rows(parent, iz, base, row, base, nothing, w)
                # A square of edges that lacks one joins its corners all the same.
                edges_y = iy & ~(((iy << _1) | iy_above) & row[w] & row_y[w])
                edges_x = ix & ~(((ix << _1) | ix_above) & row[w] & row_x[w])
                edges_x &= ~(x_row_before[w] & iy & carry[0, y, w])
                iy_above, ix_above = iy >> _63, ix >> _63
                x_row[w] = ix
                carry[0, y, w] = iy
                carry[1, y, w] = k[w] if destination else hx[w]
                if edges_y:
                    _unite_rows(
                        parent, edges_y, base, row, base - np.uint64(nz), row_y, w
                    )
                if edges_x:
                    before = base - np.uint64(ny) * np.uint64(nz)
                    _unite_rows(parent, edges_x, base, row, before, row_x, w)
            hy, hy_before = hy_before, hy
            k, k_before = k_before, k
            x_row, x_row_before = x_row_before, x_row


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
                z = w * _64 + np.uint64(trailing_zeros(starts))
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
@_part
def _attached_root(parent, root):
    while np.uint64(parent[root]) != root:
        parent[root] = parent[np.uint64(parent[root])]
        root = np.uint64(parent[root])
    return root


@no_type_check
@kernel
def join_seam(
    affinities_x,
    keep_before,
    keep_after,
    low,
    high,
    destination,
    masked,
    both,
    x,
    parent,
    foreground,
    joined,
    attached,
):
    """Joins the slab that begins at plane x with the one before, both flattened there.

    Args:
      affinities_x: y z, plane x - 1, or x where edges are stored at the destination.
      keep_before, keep_after: y z, planes x - 1 and x.
      attached: room for y z indices of roots that cease to be roots.
      Others as in `unite_planes`.

    Returns:
      How many roots were attached.
    """
    ny, nz = affinities_x.shape
    words = joined.shape[2]
    flags = np.zeros(words * 64, np.uint8)
    h = np.zeros(words, np.uint64)
    k = np.zeros(words, np.uint64)
    count = 0
    for y in range(ny):
        base = np.uint64(x * ny + y) * np.uint64(nz)
        before = base - np.uint64(ny) * np.uint64(nz)
        _pack(affinities_x[y], low, high, flags, h)
        if masked:
            stored_after = 1 if destination else 0
            _pack(
                keep_after[y] if stored_after else keep_before[y],
                np.uint8(0),
                np.uint8(255),
                flags,
                k,
            )
            for w in range(words):
                h[w] &= k[w]
            if both:
                _pack(
                    keep_before[y] if stored_after else keep_after[y],
                    np.uint8(0),
                    np.uint8(255),
                    flags,
                    k,
                )
                for w in range(words):
                    h[w] &= k[w]
        row, row_before = joined[x, y], joined[x - 1, y]
        for w in range(np.uint64(words)):
            foreground[x, y, w] |= h[w]
            foreground[x - 1, y, w] |= h[w]
            edges = h[w] & ~((h[w] << _1) & row[w] & row_before[w])
            while edges != _0:
                bit = np.uint64(trailing_zeros(edges))
                edges &= edges - _1
                u = np.uint64(parent[base + _run_start(row, w, bit)])
                v = np.uint64(parent[before + _run_start(row_before, w, bit)])
                u, v = _attached_root(parent, u), _attached_root(parent, v)
                if u != v:
                    parent[max(u, v)] = min(u, v)
                    attached[count] = max(u, v)
                    count += 1
    return count


@no_type_check
@kernel
def resolve(parent, attached):
    """Points attached roots, in ascending order, to the roots of the whole volume."""
    for i in range(attached.size):
        parent[attached[i]] = parent[np.uint64(parent[attached[i]])]


@no_type_check
@kernel
def find_segments(parent, foreground, joined, voxels, segments):
    """First voxel + 1 of the segment at each voxel (flat index); 0 for background."""
    ny = joined.shape[1]
    nz = np.uint64(parent.size // (joined.shape[0] * ny))
    for i in range(voxels.size):
        voxel = np.uint64(voxels[i])
        row, z = voxel // nz, voxel % nz
        x, y = row // np.uint64(ny), row % np.uint64(ny)
        w, bit = z // _64, z % _64
        if not (foreground[x, y, w] >> bit) & _1:
            segments[i] = 0
            continue
        v = row * nz + _run_start(joined[x, y], w, bit)
        root = np.uint64(parent[v])
        while np.uint64(parent[root]) != root:
            root = np.uint64(parent[root])
        while v != root:
            above = np.uint64(parent[v])
            parent[v] = root
            v = above
        segments[i] = root + _1
