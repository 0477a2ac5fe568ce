"""Connected components of the affinity graph, exact, parallel, read straight off the disk's
own types.

The graph, the strict comparison and the labels' order are those of BANIS `inference.py` and
PyTC `decode_affinity_cc` (numba backend). They threshold into boolean copies and then flood
(BANIS) or sweep at most 256 times (PyTC); here each row of affinities becomes a row of bits,
64 voxels to the word, and runs along z are the nodes of a union-find whose forest lives in
the label array itself (Rem's algorithm; Patwary, Blair and Manne, SEA 2010). Edges that a
closed square of other edges implies are dropped as bits, before any memory is touched.

All kernels of decoding stand in this one module: numba's cache does not see a changed
callee in another file.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Shaped, UInt
from numba.cpython.unsafe.numbers import leading_zeros, trailing_zeros

from nisbjax.decode.keep import MASK_EDGES, Keep, keep_mask
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.masking import MaskSpec
from nisbjax.typing import Affinities, Mask, Triple
from nisbjax.volume import Volume

# numba turns uint64 with a plain int into float64, so every number here is typed.
_0, _1, _63, _64 = np.uint64(0), np.uint64(1), np.uint64(63), np.uint64(64)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_GATHER = np.uint64(0x0102040810204080)  # lowest bits of eight bytes into the top byte
_56 = np.uint64(56)

_kernel = numba.njit(nogil=True, cache=True, error_model="numpy")
_part = numba.njit(nogil=True, error_model="numpy")


@_part
def _pack(values, low, high, flags, words):
    """Bit z of `words` is low < values[z] <= high; `flags` is zeroed room for a row."""
    for z in range(values.size):
        flags[z] = (values[z] > low) & (values[z] <= high)
    quads = flags.view(np.uint64)
    packed = words.view(np.uint8)
    for i in range(quads.size):
        packed[i] = (quads[i] * _GATHER) >> _56


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


@_part
def _unite_rows(parent, edges, base, joined, base_before, joined_before, w):
    """Unites along the edges of one word between two rows."""
    while edges != _0:
        bit = np.uint64(trailing_zeros(edges))
        edges &= edges - _1
        u = base + _run_start(joined, w, bit)
        v = base_before + _run_start(joined_before, w, bit)
        _unite(parent, u, v)


@_kernel
def _unite_planes(
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
    parent,
    foreground,
    joined,
    carry,
):
    """Adds planes to the forest; those before them, from `first` > 0 on, are in it.

    Args:
      affinities_*: p y z, of the planes.
      keep: p y z, 0 where masked; anything where not `masked`.
      low, high: an edge is there where low < affinity <= high.
      destination: edges are stored at the voxel of the higher index.
      masked, both: whether there is a mask, and whether it takes edges at both ends.
      first: index of the first of these planes in the volume.
      inner: whether the plane before `first` is in the forest (else a seam is left).
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
    last_word, last_bit = np.uint64((nz - 1) // 64), np.uint64((nz - 1) % 64)
    for p in range(planes):
        x = first + p
        for y in range(ny):
            base = np.uint64(x * ny + y) * np.uint64(nz)
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
                row[w] = iz
                front[w] = alone | iz | (iz >> _1) | iy | ix
                if w and iz & _1:
                    front[w - _1] |= _1 << _63
                front_y[w] |= iy
                front_x[w] |= ix
                # A square of edges that lacks one joins its corners all the same.
                edges_y = iy & ~(((iy << _1) | iy_above) & iz & row_y[w])
                edges_x = ix & ~(((ix << _1) | ix_above) & iz & row_x[w])
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


@_kernel
def _flatten_plane(parent, joined, x):
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


@_part
def _attached_root(parent, root):
    while np.uint64(parent[root]) != root:
        parent[root] = parent[np.uint64(parent[root])]
        root = np.uint64(parent[root])
    return root


@_kernel
def _join_seam(
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
      Others as in `_unite_planes`.

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


@_kernel
def _resolve(parent, attached):
    """Points attached roots, in ascending order, to the roots of the whole volume."""
    for i in range(attached.size):
        parent[attached[i]] = parent[np.uint64(parent[attached[i]])]


@_kernel
def _count_roots(parent, foreground, joined, start, stop, wanted, ranks):
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


@_kernel
def _write_labels(parent, foreground, joined, start, stop, label, cross, cross_labels):
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
                    while z < nz and (joints[z >> np.uint64(6)] >> (z & _63)) & _1:
                        row[z] = own
                        z += _1
    return label


class _Range(NamedTuple):
    """Unsigned values v with low < v <= high are edges."""

    bits: np.dtype
    low: np.unsignedinteger
    high: np.unsignedinteger


def edge_range(dtype: np.dtype, threshold: float) -> _Range:
    """`affinity > threshold` as a comparison of the stored bits.

    A float's bits grow with its value from 0 to infinity; negative values and NaN lie
    above those of infinity. The threshold is rounded to the affinities' own type, as numpy
    does for PyTC; uint8 stands for value / 255 in double precision.

    Raises:
      InputError: another type, or a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:  # also NaN
        raise InputError(
            f"threshold {threshold} came for affinities; wanted a number from 0 to 1"
        )
    if dtype == np.uint8:
        low = np.flatnonzero(np.arange(256) / 255 <= threshold)[-1]
        return _Range(np.dtype(np.uint8), np.uint8(low), np.uint8(255))
    for real, bits in ((np.float16, np.uint16), (np.float32, np.uint32)):
        if dtype == real:
            low, high = np.array([abs(threshold), np.inf], real).view(bits)
            return _Range(np.dtype(bits), low, high)
    raise InputError(
        f"affinities are {dtype}; wanted float16, float32, or uint8 (value / 255)"
    )


def label_affinities(
    affinities: Affinities,
    threshold: float,
    *,
    edge_offset: int = 0,
    mask: Shaped[np.ndarray, "x y z"] | Volume | MaskSpec | None = None,
    mask_edges: str = "both",
    threads: int | None = None,
    image: Shaped[np.ndarray, "x y z *k"] | Volume | None = None,
) -> UInt[np.ndarray, "x y z"]:
    """Connected components of the graph of affinities above a threshold.

    Voxels v and v + e_c are joined where affinity c, stored at v + edge_offset e_c, exceeds
    the threshold. A voxel is foreground if it has an edge, or an affinity above the
    threshold whose other voxel lies outside of the volume. PyTC's decoder besides sets voxel
    (0, 0, 0) to background where no other voxel is; this one does not.

    Args:
      affinities: [c x y z], c >= 3, channels 0-2 for the neighbours on x, y, z; float16,
        float32, or uint8 meaning value / 255. NaN and negative values are no edges.
      threshold: in [0, 1], compared strictly, in the type of the affinities.
      edge_offset: 0 where edges are stored at their source (BANIS), 1 at the destination.
      mask: [x y z], 0 (or False) = masked; or a specification.
      mask_edges: `both` drops every edge that touches a masked voxel; `source` only those
        stored at one, as PyTC does, by which one plane behind a masked region stays.
      threads: at work; all cores where None. The labels do not depend on it.
      image: [x y z] or [x y z k], which a specification with a border ring needs.

    Returns:
      [x y z] labels, 0 = background, 1..N by each component's first voxel in C order;
      uint32, or uint64 where the volume has 2^32 voxels or more. Takes this much memory
      and 6.3 % more.

    Raises:
      InputError: fewer than 3 channels, another dtype, a bad threshold or option, or a mask
        of another shape.
    """
    shape = affinities.shape[1:]
    keep = keep_mask(mask, image, shape)
    dtype = np.uint32 if np.prod(shape, dtype=np.uint64) < 2**32 else np.uint64
    labels, _ = label_box(
        affinities,
        threshold,
        keep=keep,
        edge_offset=edge_offset,
        mask_edges=mask_edges,
        threads=threads,
        dtype=dtype,
    )
    return labels


def label_box(
    affinities: Affinities,
    threshold: float,
    *,
    keep: Keep | None,
    edge_offset: int = 0,
    mask_edges: str = "both",
    threads: int | None = None,
    dtype: type = np.uint32,
) -> tuple[UInt[np.ndarray, "x y z"], int]:
    """As `label_affinities`, with the mask as a function; also the number of labels."""
    if len(affinities) < 3:
        raise InputError(
            f"affinities have {len(affinities)} channel(s); wanted at least 3, the edges "
            "on x, y and z"
        )
    check_options(edge_offset, mask_edges)
    shape: Triple = affinities.shape[1:]
    bits, low, high = edge_range(affinities.dtype, threshold)
    values = affinities.view(bits)
    labels = np.empty(shape, dtype)
    if labels.size == 0:
        return labels, 0
    words = (shape[2] + 63) // 64
    forest = _Forest(
        labels.reshape(-1),
        np.empty((*shape[:2], words), np.uint64),
        np.empty((*shape[:2], words), np.uint64),
    )
    rule = (low, high, bool(edge_offset), keep is not None, mask_edges == "both")
    threads = threads or len(os.sched_getaffinity(0))
    cuts = np.linspace(0, shape[0], min(threads, shape[0]) + 1).astype(int)
    slabs = list(zip(cuts[:-1], cuts[1:], strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def unite(slab):
            _unite_slab(values, keep, rule, forest, *slab)

        list(pool.map(unite, slabs))
        attached = [_join(values, keep, rule, forest, x) for x in cuts[1:-1]]
        attached = np.sort(np.concatenate([np.empty(0, dtype), *attached]))
        _resolve(forest.parent, attached)
        return labels, _number(pool, forest, cuts, attached, threads)


def check_options(edge_offset: int, mask_edges: str) -> None:
    """Refuses what is no edge convention.

    Raises:
      InputError: naming the value and the choices.
    """
    if edge_offset not in (0, 1):
        raise InputError(
            f"edge_offset is {edge_offset}; wanted 0 (stored at the source) or 1 "
            "(at the destination)"
        )
    if mask_edges not in MASK_EDGES:
        raise InputError(
            f"mask_edges is {mask_edges!r}; wanted one of {', '.join(MASK_EDGES)}"
        )


class _Forest(NamedTuple):
    parent: UInt[np.ndarray, "xyz"]
    foreground: UInt[np.ndarray, "x y w"]
    joined: UInt[np.ndarray, "x y w"]


def _fixed(array: np.ndarray) -> np.ndarray:
    """Contiguous and read-only, so that one compiled kernel serves all callers."""
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array


def _kept(keep: Keep | None, start: int, stop: int, shape: Triple) -> np.ndarray:
    """Bytes of the mask's planes; an empty array where there is no mask."""
    if keep is None:
        return _fixed(np.empty((0, 0, 0), np.uint8))
    box = Box((start, 0, 0), (stop, *shape[1:]))
    return _fixed(np.ascontiguousarray(keep(box)).view(np.uint8))


_PLANES_VOXELS = 1 << 21  # at once, where planes are copied or a mask is made of them


def _unite_slab(values, keep, rule, forest, start, stop):
    shape = values.shape[1:]
    carry = np.zeros((2, *forest.joined.shape[1:]), np.uint64)
    step = stop - start
    if keep is not None or not values[0].flags.c_contiguous:
        step = max(1, _PLANES_VOXELS // (shape[1] * shape[2]))
    for first in range(start, stop, step):
        planes = slice(first, min(first + step, stop))
        kept = _kept(keep, planes.start, planes.stop, shape)
        channels = [_fixed(values[c, planes]) for c in range(3)]
        inner = first > start
        _unite_planes(*channels, kept, *rule, first, inner, *forest, carry)
    # What the seams need; both planes belong to this slab alone.
    _flatten_plane(forest.parent, forest.joined, start)
    _flatten_plane(forest.parent, forest.joined, stop - 1)


def _join(values, keep, rule, forest, x):
    shape = values.shape[1:]
    destination = rule[2]
    plane = values[0, x if destination else x - 1]
    kept = [_kept(keep, i, i + 1, shape).reshape(-1, shape[2]) for i in (x - 1, x)]
    attached = np.empty(plane.size, forest.parent.dtype)
    seam = [_fixed(part) for part in (plane, *kept)]
    return attached[: _join_seam(*seam, *rule, x, *forest, attached)]


def _number(pool, forest, cuts, attached, threads) -> int:
    """Numbers the components in C order and writes their labels; returns how many."""
    nx, ny = forest.joined.shape[:2]
    plane = forest.parent.size // nx
    pieces = [
        (int(a), int(b))
        for start, stop in zip(cuts[:-2], cuts[1:-1], strict=True)
        for a, b in itertools.pairwise(
            np.linspace(start, stop, threads + 1).astype(int)
        )
    ]
    roots = np.unique(forest.parent[attached])
    bounds = [np.searchsorted(roots, (a * plane, b * plane)) for a, b in pieces]
    ranks = np.empty(len(roots), np.uint64)

    def count(piece, bound):
        part = slice(*bound)
        return _count_roots(*forest, *piece, roots[part], ranks[part])

    counts = list(pool.map(count, pieces, bounds))
    before = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    for i, bound in enumerate(bounds):
        ranks[slice(*bound)] += before[i]
    labels = ranks[np.searchsorted(roots, forest.parent[attached])]

    def write(i):
        start, stop = int(cuts[i]), int(cuts[i + 1])
        own = slice(*np.searchsorted(attached, (start * plane, stop * plane)))
        cross = forest.parent[attached[own]] < start * plane
        base = before[i * threads]
        part = attached[own][cross], labels[own][cross]
        return _write_labels(*forest, start, stop, base, *part)

    return int(list(pool.map(write, range(len(cuts) - 1)))[-1])
