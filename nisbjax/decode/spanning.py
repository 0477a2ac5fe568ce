"""Compiled: one forest that holds the components of an affinity graph at every level.

Affinities count as levels, 1 (above the lowest threshold of a grid) to the highest. A vertex
has at most one link, to a vertex of lower index, with a level; links of level l and more
form a forest whose trees are the components at l, for every l at once: a maximum spanning
forest, each root the first vertex of its component. An edge goes in at any time: it takes
the place of the weakest link on the cycle that it closes, so a volume is read once, in the
order in which it is stored. PyTC's tuner decodes a volume anew for each threshold.

Kernels that call one another stand in this one module: numba's cache does not see a changed
callee in another file.
"""

from typing import no_type_check

import numpy as np

from nisbjax.decode.kernels import kernel, part

NONE = np.uint32(0xFFFFFFFF)
_NO_LEVEL = np.uint8(0)


@no_type_check
@part
def _levels(values, keep, masked, lows, high, out):
    """How many of `lows` lie below each value; 0 for NaN, negative and masked ones."""
    size = values.size
    for i in range(size):
        out[i] = _NO_LEVEL
    for t in range(lows.size):
        low = lows[t]
        for i in range(size):
            out[i] += np.uint8((values[i] > low) & (values[i] <= high))
    if masked:
        for i in range(size):
            out[i] *= np.uint8(keep[i] != 0)


@no_type_check
@part
def _top(parent, level, vertex, least):
    """First vertex of the component of level `least`; shortens the way on."""
    while level[vertex] >= least:
        above = parent[vertex]
        if level[above] >= level[vertex]:
            parent[vertex] = parent[above]
        vertex = np.uint64(above)
    return vertex


@no_type_check
@part
def _insert(parent, level, u, v, new):
    """Adds an edge; what it displaces goes in again, as a weaker edge, until one is idle."""
    while True:
        u = _top(parent, level, u, new)
        v = _top(parent, level, v, new)
        if u == v:
            return
        if u < v:
            u, v = v, u
        other, old = np.uint64(parent[u]), level[u]
        parent[u], level[u] = v, new
        if old == _NO_LEVEL:
            return
        u, new = other, old


@no_type_check
@part
def _thin(edges, rail, rail_other, kept):
    """Keeps edges between two rows that no square makes idle; ties fall to the later one.

    The weakest edge of a cycle is in no maximum spanning forest. The rails (edges within
    the two rows, between z - 1 and z) win ties.
    """
    size = edges.size
    for z in range(size):
        kept[z] = edges[z]
    for z in range(1, size):
        weakest = min(rail[z], rail_other[z])
        idle = (edges[z] <= weakest) & (edges[z] <= edges[z - 1])
        idle_before = (edges[z - 1] <= weakest) & (edges[z - 1] < edges[z])
        kept[z] *= np.uint8(not idle)
        kept[z - 1] *= np.uint8(not idle_before)


@no_type_check
@kernel
def span(
    affinities,
    keep,
    lows,
    high,
    destination,
    masked,
    both,
    parent,
    level,
    foreground,
):
    """Fills a forest over the voxels of a box from its affinities.

    Args:
      affinities: 3 x y z, bits of the values.
      keep: x y z, 0 where masked; anything where not `masked`.
      lows: ascending; level l stands for lows[l - 1] < value <= high.
      high: bits of infinity, beyond which lie NaN and negative values.
      destination: edges are stored at the voxel of the higher index.
      masked, both: whether there is a mask, and whether it takes edges at both ends.
      parent, level: x*y*z, receive the links; level 0 = none.
      foreground: x*y*z, receives the highest level of an edge at each voxel, also of
        one that leaves the box.
    """
    _, nx, ny, nz = affinities.shape
    # Levels as stored, of the last plane (x) and row (y); edges to the voxel before on x, y,
    # z, of this plane and the last.
    stored_x, stored_y = np.zeros((ny, nz), np.uint8), np.zeros(nz, np.uint8)
    stored = np.zeros(nz, np.uint8)
    ex, ey = np.zeros((2, ny, nz), np.uint8), np.zeros((2, ny, nz), np.uint8)
    ez, kept = np.zeros((2, ny, nz), np.uint8), np.zeros(nz, np.uint8)
    keep_none = np.zeros(nz, np.uint8)
    for x in range(nx):
        now, last = x & 1, 1 - (x & 1)
        for y in range(ny):
            base = np.uint64((x * ny + y) * nz)
            fore = foreground[base : base + np.uint64(nz)]
            k = keep[x, y] if masked else keep_none
            ez_row, ey_row, ex_row = ez[now, y], ey[now, y], ex[now, y]
            for z in range(nz):
                fore[z] = _NO_LEVEL

            _levels(affinities[2, x, y], k, masked, lows, high, stored)
            ez_row[0] = _NO_LEVEL
            if destination:
                fore[0] = stored[0]
                for z in range(1, nz):
                    ez_row[z] = stored[z]
                if masked and both:
                    for z in range(1, nz):
                        ez_row[z] *= np.uint8(k[z - 1] != 0)
            else:
                fore[nz - 1] = stored[nz - 1]
                for z in range(1, nz):
                    ez_row[z] = stored[z - 1]
                if masked and both:
                    for z in range(1, nz):
                        ez_row[z] *= np.uint8(k[z] != 0)
            for z in range(1, nz):
                fore[z] = max(fore[z], ez_row[z])
                fore[z - 1] = max(fore[z - 1], ez_row[z])

            if not destination:
                for z in range(nz):
                    ey_row[z] = stored_y[z]
            _levels(affinities[1, x, y], k, masked, lows, high, stored_y)
            if destination:
                for z in range(nz):
                    ey_row[z] = stored_y[z]
            if y == (0 if destination else ny - 1):
                for z in range(nz):
                    fore[z] = max(fore[z], stored_y[z])
            if y > 0:
                if masked and both:
                    k_other = keep[x, y - 1] if destination else k
                    for z in range(nz):
                        ey_row[z] *= np.uint8(k_other[z] != 0)
                before = foreground[base - np.uint64(nz) : base]
                for z in range(nz):
                    fore[z] = max(fore[z], ey_row[z])
                    before[z] = max(before[z], ey_row[z])

            if not destination:
                for z in range(nz):
                    ex_row[z] = stored_x[y, z]
            _levels(affinities[0, x, y], k, masked, lows, high, stored_x[y])
            if destination:
                for z in range(nz):
                    ex_row[z] = stored_x[y, z]
            if x == (0 if destination else nx - 1):
                for z in range(nz):
                    fore[z] = max(fore[z], stored_x[y, z])
            if x > 0:
                if masked and both:
                    k_other = keep[x - 1, y] if destination else k
                    for z in range(nz):
                        ex_row[z] *= np.uint8(k_other[z] != 0)
                start = base - np.uint64(ny * nz)
                before = foreground[start : start + np.uint64(nz)]
                for z in range(nz):
                    fore[z] = max(fore[z], ex_row[z])
                    before[z] = max(before[z], ex_row[z])

            # The row by itself: a voxel links to the first of its run at that level.
            for z in range(nz):
                vertex, new = base + np.uint64(z), ez_row[z]
                top = vertex
                if new != _NO_LEVEL:
                    top = vertex - np.uint64(1)
                    while level[top] >= new:
                        top = np.uint64(parent[top])
                parent[vertex], level[vertex] = top, new
            if y > 0:
                _thin(ey_row, ez_row, ez[now, y - 1], kept)
                for z in range(nz):
                    if kept[z] != _NO_LEVEL:
                        vertex = base + np.uint64(z)
                        _insert(parent, level, vertex, vertex - np.uint64(nz), kept[z])
            if x > 0:
                _thin(ex_row, ez_row, ez[last, y], kept)
                if y > 0:
                    ex_other, ey_other = ex[now, y - 1], ey[last, y]
                    for z in range(nz):
                        weakest = min(ey_row[z], min(ey_other[z], ex_other[z]))
                        kept[z] *= np.uint8(ex_row[z] > weakest)
                for z in range(nz):
                    if kept[z] != _NO_LEVEL:
                        vertex = base + np.uint64(z)
                        before_x = vertex - np.uint64(ny * nz)
                        _insert(parent, level, vertex, before_x, kept[z])


@no_type_check
@kernel
def insert_edges(parent, level, sources, targets, levels):
    """Adds edges to a forest; those of level 0 are none."""
    for i in range(sources.size):
        if levels[i] != _NO_LEVEL:
            u, v = np.uint64(sources[i]), np.uint64(targets[i])
            _insert(parent, level, u, v, levels[i])


@no_type_check
@kernel
def contract(parent, level, terminals, top, owner, sources, targets, levels):
    """A forest over some of the vertices that joins them as the whole one does.

    Args:
      parent, level: the whole forest.
      terminals: m vertices, each once.
      top: the highest level.
      owner: one uint32 a vertex, all NONE, before and after.
      sources, targets, levels: room for m edges, between indices of `terminals`.

    Returns:
      How many edges there are.
    """
    alone, tops = np.arange(terminals.size), terminals.copy()
    count, edges = terminals.size, 0
    for least in range(top, 0, -1):
        left = 0
        for i in range(count):
            own = alone[i]
            vertex = _top(parent, level, np.uint64(tops[own]), np.uint8(least))
            tops[own] = vertex
            if owner[vertex] == NONE:
                owner[vertex] = own
                alone[left] = own
                left += 1
            else:
                sources[edges], targets[edges] = own, owner[vertex]
                levels[edges] = least
                edges += 1
        for i in range(left):
            owner[tops[alone[i]]] = NONE
        count = left
    return edges


@no_type_check
@kernel
def find_components(parent, level, foreground, vertices, segments):
    """Segments [t n]: first vertex + 1 of each component at levels 1..t; 0 = background."""
    for i in range(vertices.size):
        vertex = np.uint64(vertices[i])
        highest = foreground[vertex]
        for least in range(segments.shape[0], 0, -1):
            vertex = _top(parent, level, vertex, np.uint8(least))
            found = vertex + np.uint64(1)
            segments[least - 1, i] = found if least <= highest else np.uint64(0)
