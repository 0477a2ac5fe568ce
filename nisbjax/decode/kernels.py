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
from llvmlite import ir
from numba.core import types
from numba.cpython.unsafe import numbers
from numba.extending import intrinsic

# numba turns uint64 with a plain int into float64, so every number here is typed.
_0, _1, _2, _3, _6, _63 = (np.uint64(i) for i in (0, 1, 2, 3, 6, 63))
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)

leading_zeros: Callable[..., Any] = numbers.leading_zeros
trailing_zeros: Callable[..., Any] = numbers.trailing_zeros


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at the first call and cached on disk; runs without Python's lock."""
    return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Part of a kernel, compiled into it."""
    return numba.njit(nogil=True, error_model="numpy")(function)


@no_type_check
@intrinsic
def _compare_64(context, values, start, low, high):
    """Bit i is low < values[start + i] <= high, for 64 values at once, as the CPU likes."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, arguments[0])
        element = context.get_value_type(kind.dtype)
        lanes, index = ir.VectorType(element, 64), ir.IntType(32)
        at = builder.gep(array.data, [arguments[1]])
        at = builder.bitcast(at, lanes.as_pointer())
        found = builder.load(at, align=kind.dtype.bitwidth // 8)

        def everywhere(value):
            nothing = ir.Constant(lanes, ir.Undefined)
            first = builder.insert_element(nothing, value, ir.Constant(index, 0))
            copies = ir.Constant(ir.VectorType(index, 64), [0] * 64)
            return builder.shuffle_vector(first, nothing, copies)

        above = builder.icmp_unsigned(">", found, everywhere(arguments[2]))
        below = builder.icmp_unsigned("<=", found, everywhere(arguments[3]))
        return builder.bitcast(builder.and_(above, below), ir.IntType(64))

    return types.uint64(values, start, values.dtype, values.dtype), generate


@no_type_check
@part
def _pack(values, start, size, low, high, words, at):
    """Bit z of words[at:] is low < values[start + z] <= high, for z < size."""
    whole = size >> _6
    for w in range(whole):
        words[at + w] = _compare_64(values, start + (w << _6), low, high)
    if size & _63:
        last = _0
        for z in range(whole << _6, size):
            value = values[start + z]
            last |= np.uint64((value > low) & (value <= high)) << (z & _63)
        words[at + whole] = last


@no_type_check
@part
def _run_start(joined, row, w, bit):
    """First voxel of the run that holds voxel 64 w + bit of the row at joined[row:].

    Bit z of a row: there is an edge between z - 1 and z.
    """
    starts = ~joined[row + w] & (_ALL >> (_63 - bit))
    while starts == _0:
        w -= _1
        starts = ~joined[row + w]
    return (w << _6) + _63 - np.uint64(leading_zeros(starts))


@no_type_check
@part
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
@part
def _unite_runs(parent, edges, base, joined, row, w):
    """Unites two runs of a row for each edge that has just joined them."""
    while edges != _0:
        bit = np.uint64(trailing_zeros(edges))
        edges &= edges - _1
        z = (w << _6) + bit
        _unite(parent, base + z, base + _run_start(joined, row, w, bit))


@no_type_check
@part
def _unite_rows(parent, edges, base, before, joined, row, row_before, w):
    """Unites along the edges of one word between two rows of runs."""
    while edges != _0:
        bit = np.uint64(trailing_zeros(edges))
        edges &= edges - _1
        u = base + _run_start(joined, row, w, bit)
        v = before + _run_start(joined, row_before, w, bit)
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
    top,
    destination,
    masked,
    both,
    first,
    inner,
    parent,
    foreground_bits,
    joined_bits,
    carried,
):
    """Adds planes to the forest, or more edges between planes that are in it.

    Args:
      affinities_*: p y z, of the planes.
      keep: p y z, 0 where masked; anything where not `masked`.
      low, high, top: an edge is there where low < affinity <= top; those above `high` are
        in the forest already; where `high` is `top` the planes are new.
      destination: edges are stored at the voxel of the higher index.
      masked, both: whether there is a mask, and whether it takes edges at both ends.
      first: index of the first of these planes in the volume.
      inner: whether the plane before `first` is in the forest (else a seam is left).
      parent: x*y*z, the forest over run starts.
      foreground_bits, joined_bits: x y w, foreground voxels, and edges along z.
      carried: 4 y w, of the last plane: edges along y, affinities along x (all; new), mask.
    """
    planes, rows, length = affinities_z.shape
    nx, ny, nz = np.uint64(joined_bits.shape[0]), np.uint64(rows), np.uint64(length)
    words = np.uint64(joined_bits.shape[2])
    # Flat throughout: a view of each row would cost more than the row.
    foreground, joined = foreground_bits.reshape(-1), joined_bits.reshape(-1)
    ax, ay = affinities_x.reshape(-1), affinities_y.reshape(-1)
    az, kept_bytes, carry = (
        affinities_z.reshape(-1),
        keep.reshape(-1),
        carried.reshape(-1),
    )
    more = high != top
    # All edges and the new ones, of this row and of the one before (in turns, for y).
    hx, hz = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    hx_new, hz_new = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    hy, hy_new = np.zeros(2 * words, np.uint64), np.zeros(2 * words, np.uint64)
    k, ix_row = np.full(2 * words, _ALL), np.zeros(2 * words, np.uint64)
    last_word, last_bit = (nz - _1) >> _6, (nz - _1) & _63
    plane = ny * words
    for p in range(np.uint64(planes)):
        x = np.uint64(first) + p
        for y in range(ny):
            base, source = (x * ny + y) * nz, (p * ny + y) * nz
            row = (x * ny + y) * words
            now, last = (y & _1) * words, (_1 - (y & _1)) * words
            _pack(ax, source, nz, low, top, hx, _0)
            _pack(ay, source, nz, low, top, hy, now)
            _pack(az, source, nz, low, top, hz, _0)
            if more:
                _pack(ax, source, nz, low, high, hx_new, _0)
                _pack(ay, source, nz, low, high, hy_new, now)
                _pack(az, source, nz, low, high, hz_new, _0)
            else:
                for w in range(words):
                    joined[row + w], foreground[row + w] = _0, _0
                    hx_new[w], hy_new[now + w], hz_new[w] = _ALL, _ALL, _ALL
                for z in range(nz):
                    parent[base + z] = base + z
            if masked:
                _pack(kept_bytes, source, nz, np.uint8(0), np.uint8(255), k, now)
                for w in range(words):
                    hx[w] &= k[now + w]
                    hy[now + w] &= k[now + w]
                    hz[w] &= k[now + w]
            h_above, new_above, k_above, ix_above, iy_above = _0, _0, _0, _0, _0
            for w in range(words):
                here = y * words + w
                # Edges between this row's voxels and those before them on z, y and x.
                if destination:
                    alone = hz[w] & _1 if w == _0 else _0
                    if y == _0:
                        alone |= hy[now + w]
                    if x == _0:
                        alone |= hx[w]
                    iz, iy, ix = hz[w], hy[now + w], hx[w]
                    z_new, y_new, x_new = hz_new[w], hy_new[now + w], hx_new[w]
                    if w == _0:
                        iz &= ~_1
                    if both:
                        iz &= (k[now + w] << _1) | k_above
                        iy &= k[last + w]
                        ix &= carry[_3 * plane + here]
                else:
                    iz = (hz[w] << _1) | h_above
                    z_new = (hz_new[w] << _1) | new_above
                    alone = _0
                    if w == last_word:
                        alone = hz[w] & (_1 << last_bit)
                        iz &= _ALL >> (_63 - last_bit)
                    if y == ny - _1:
                        alone |= hy[now + w]
                    if x == nx - _1:
                        alone |= hx[w]
                    iy, y_new = hy[last + w], hy_new[last + w]
                    ix, x_new = carry[plane + here], carry[_2 * plane + here]
                    if both:
                        iz &= k[now + w]
                        iy &= k[now + w]
                        ix &= k[now + w]
                if y == _0:
                    iy = _0
                if p == _0 and not inner:
                    ix = _0
                h_above, new_above = hz[w] >> _63, hz_new[w] >> _63
                k_above = k[now + w] >> _63
                joined[row + w] = iz
                foreground[row + w] |= alone | iz | (iz >> _1) | iy | ix
                if w != _0 and iz & _1:
                    foreground[row + w - _1] |= _1 << _63
                if y != _0:
                    foreground[row - words + w] |= iy
                if x != _0:
                    foreground[row - plane + w] |= ix
                if more and iz & z_new:  # else the run itself is the node
                    _unite_runs(parent, iz & z_new, base, joined, row, w)
                # A square of edges that lacks one joins its corners all the same.
                edges_y, edges_x = iy & y_new, ix & x_new
                if edges_y:
                    edges_y &= ~(((iy << _1) | iy_above) & iz & joined[row - words + w])
                    _unite_rows(
                        parent, edges_y, base, base - nz, joined, row, row - words, w
                    )
                if edges_x:
                    edges_x &= ~(((ix << _1) | ix_above) & iz & joined[row - plane + w])
                    edges_x &= ~(ix_row[last + w] & iy & carry[here])
                    before = base - ny * nz
                    _unite_rows(
                        parent, edges_x, base, before, joined, row, row - plane, w
                    )
                iy_above, ix_above = iy >> _63, ix >> _63
                ix_row[now + w] = ix
                carry[here] = iy
                carry[plane + here], carry[_2 * plane + here] = hx[w], hx_new[w]
                carry[_3 * plane + here] = k[now + w]


@no_type_check
@part
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
    top,
    destination,
    masked,
    both,
    x,
    parent,
    foreground_bits,
    joined_bits,
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
    rows, length = affinities_x.shape
    ny, nz, words = np.uint64(rows), np.uint64(length), np.uint64(joined_bits.shape[2])
    foreground, joined = foreground_bits.reshape(-1), joined_bits.reshape(-1)
    values = affinities_x.reshape(-1)
    stored, other = keep_before.reshape(-1), keep_after.reshape(-1)
    if destination:
        stored, other = other, stored
    h, k = np.zeros(words, np.uint64), np.full(words, _ALL)
    k_other = np.full(words, _ALL)
    count = 0
    for y in range(ny):
        base, row = (np.uint64(x) * ny + y) * nz, (np.uint64(x) * ny + y) * words
        before, row_before = base - ny * nz, row - ny * words
        _pack(values, y * nz, nz, low, top, h, _0)
        if masked:
            _pack(stored, y * nz, nz, np.uint8(0), np.uint8(255), k, _0)
            if both:
                _pack(other, y * nz, nz, np.uint8(0), np.uint8(255), k_other, _0)
        for w in range(words):
            found = h[w] & k[w] & k_other[w]
            foreground[row + w] |= found
            foreground[row_before + w] |= found
            edges = found & ~((found << _1) & joined[row + w] & joined[row_before + w])
            while edges != _0:
                bit = np.uint64(trailing_zeros(edges))
                edges &= edges - _1
                u = base + _run_start(joined, row, w, bit)
                v = before + _run_start(joined, row_before, w, bit)
                u = _attached_root(parent, np.uint64(parent[u]))
                v = _attached_root(parent, np.uint64(parent[v]))
                if u != v:
                    parent[max(u, v)] = min(u, v)
                    attached[count] = max(u, v)
                    count += 1
    return count


@no_type_check
@kernel
def find_segments(parent, foreground_bits, joined_bits, voxels, segments):
    """First voxel + 1 of the segment at each voxel (flat index); 0 for background."""
    words = np.uint64(joined_bits.shape[2])
    nz = np.uint64(parent.size // (joined_bits.shape[0] * joined_bits.shape[1]))
    foreground, joined = foreground_bits.reshape(-1), joined_bits.reshape(-1)
    for i in range(voxels.size):
        voxel = np.uint64(voxels[i])
        row, z = voxel // nz, voxel % nz
        w, bit = z >> _6, z & _63
        if not (foreground[row * words + w] >> bit) & _1:
            segments[i] = 0
            continue
        v = row * nz + _run_start(joined, row * words, w, bit)
        root = np.uint64(parent[v])
        while np.uint64(parent[root]) != root:
            root = np.uint64(parent[root])
        while v != root:
            above = np.uint64(parent[v])
            parent[v] = root
            v = above
        segments[i] = root + _1
