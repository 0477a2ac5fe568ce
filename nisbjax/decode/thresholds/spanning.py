"""Compiled: one forest that holds the components of an affinity graph at every level.

Affinities count as levels, 1 (above the lowest threshold of a grid) to the highest. A vertex
has at most one link, to a vertex of lower index, with a level; links of level l and more
form a forest whose trees are the components at l, for every l at once: a maximum spanning
forest, each root the first vertex of its component. An edge goes in at any time: it takes
the place of the weakest link on the cycle that it closes, so a volume is read once, in the
order in which it is stored. Few voxels are asked about, so most of a box is first contracted
to parts that only plain components need to be found for (`join_strongest`); the forest
is one over the parts. PyTC's tuner decodes a volume anew for each threshold.

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
def _count(values, mask, masked, lows, high, count, out):
    """How many of `lows` lie below each value; 0 for NaN, negative and masked ones.

    `count` is room for a row in the type of the values, in which adding is fastest.
    """
    size = values.size
    for i in range(size):
        count[i] = 0
    for t in range(lows.size):
        low = lows[t]
        for i in range(size):
            count[i] += values[i] > low
    for i in range(size):
        out[i] = np.uint8(count[i]) * np.uint8(values[i] <= high)
    if masked:
        for i in range(size):
            out[i] *= np.uint8(mask[i] != 0)


@no_type_check
@kernel
def read_levels(affinities, mask, lows, high, destination, masked, both, levels):
    """Levels of the edges inside of a box, from its affinities.

    Args:
      affinities: 3 x y z, bits of the values.
      mask: x y z, 0 where masked; anything where not `masked`.
      lows: ascending; level l stands for lows[l - 1] < value <= high.
      high: bits of infinity, beyond which lie NaN and negative values.
      destination: edges are stored at the voxel of the higher index.
      masked, both: whether there is a mask, and whether it takes edges at both ends.
      levels: 3 x y z, receives each voxel's edges to those before it on x, y and z.
    """
    _, nx, ny, nz = affinities.shape
    stored, count = np.empty(nz, np.uint8), np.empty(nz, affinities.dtype)
    no_mask = np.zeros(nz, np.uint8)
    for x in range(nx):
        for y in range(ny):
            k = mask[x, y] if masked else no_mask
            _count(affinities[2, x, y], k, masked, lows, high, count, stored)
            row = levels[2, x, y]
            row[0] = _NO_LEVEL
            source, other = (1, 0) if destination else (0, 1)
            for z in range(nz - 1):
                row[z + 1] = stored[z + source]
            if masked and both:
                for z in range(nz - 1):
                    row[z + 1] *= np.uint8(k[z + other] != 0)
            for axis in range(2):
                if (y if axis else x) == 0:
                    for z in range(nz):
                        levels[axis, x, y, z] = _NO_LEVEL
                step = -1 if destination else 1
                x_other, y_other = (x, y + step) if axis else (x + step, y)
                if not (0 <= x_other < nx and 0 <= y_other < ny):
                    continue
                _count(affinities[axis, x, y], k, masked, lows, high, count, stored)
                row = (
                    levels[axis, x, y]
                    if destination
                    else levels[axis, x_other, y_other]
                )
                for z in range(nz):
                    row[z] = stored[z]
                if masked and both:
                    k_other = mask[x_other, y_other]
                    for z in range(nz):
                        row[z] *= np.uint8(k_other[z] != 0)


@no_type_check
@part
def _raise(edges, ahead, highest, done, top):
    """Raises the edges to the voxels `ahead` that are the highest of voxels not yet done."""
    for z in range(highest.size - ahead):
        hit = np.uint8((done[z] == 0) & (edges[z + ahead] == highest[z]))
        done[z] |= hit
        edges[z + ahead] = max(edges[z + ahead], hit * top)


@no_type_check
@kernel
def join_strongest(levels, terminals, top, highest):
    """Raises to `top` the highest edge of each voxel that is no terminal.

    How terminals are joined does not change, at any level: a way through the voxel is
    no stronger than that edge, at its one end or at the other. It is a round of Boruvka's
    algorithm for all levels at once.

    Args:
      levels: 3 x y z, as of `read_levels`; changed.
      terminals: x y z, not 0 at voxels about which somebody will ask.
      top: the highest level.
      highest: x y z, receives the highest level of an edge at each voxel, as it was.
    """
    _, nx, ny, nz = levels.shape
    for x in range(nx):
        for y in range(ny):
            row, ez = highest[x, y], levels[2, x, y]
            ey, ex = levels[1, x, y], levels[0, x, y]
            for z in range(nz):
                row[z] = max(ez[z], max(ey[z], ex[z]))
            for z in range(nz - 1):
                row[z] = max(row[z], ez[z + 1])
            if y + 1 < ny:
                ey = levels[1, x, y + 1]
                for z in range(nz):
                    row[z] = max(row[z], ey[z])
            if x + 1 < nx:
                ex = levels[0, x + 1, y]
                for z in range(nz):
                    row[z] = max(row[z], ex[z])
    # An edge that the voxel at its other end has raised is passed over for an equal one.
    done = np.empty(nz, np.uint8)
    for x in range(nx):
        for y in range(ny):
            row = highest[x, y]
            for z in range(nz):
                done[z] = np.uint8((terminals[x, y, z] != 0) | (row[z] == _NO_LEVEL))
            _raise(levels[2, x, y], 0, row, done, top)
            _raise(levels[1, x, y], 0, row, done, top)
            _raise(levels[0, x, y], 0, row, done, top)
            _raise(levels[2, x, y], 1, row, done, top)
            if y + 1 < ny:
                _raise(levels[1, x, y + 1], 0, row, done, top)
            if x + 1 < nx:
                _raise(levels[0, x + 1, y], 0, row, done, top)


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
@part
def _insert_row(parent, level, kept, names, names_before, at):
    """Adds the edges between two rows that join what has two names."""
    for z in range(kept.size):
        kept[z] *= np.uint8(names[z] != names_before[z])
    count = 0
    for z in range(kept.size):  # without branches, which nothing could foresee
        at[count] = z
        count += kept[z] != _NO_LEVEL
    for i in range(count):
        z = at[i]
        u, v = np.uint64(names[z]), np.uint64(names_before[z])
        _insert(parent, level, u, v, kept[z])


@no_type_check
@kernel
def span(levels, names, parent, level):
    """Fills a forest over the parts of a box from the edges between them.

    Args:
      levels: 3 x y z, as of `read_levels`.
      names: x y z, vertex of each voxel; voxels of one vertex are joined at every level.
      parent, level: one for each vertex, receive the links; level 0 = none.
    """
    _, nx, ny, nz = levels.shape
    kept, at = np.empty(nz, np.uint8), np.empty(nz + 1, np.int64)
    for vertex in range(parent.size):
        parent[vertex], level[vertex] = vertex, _NO_LEVEL
    for x in range(nx):
        for y in range(ny):
            ex, ey, ez = levels[0, x, y], levels[1, x, y], levels[2, x, y]
            own = names[x, y]
            for z in range(1, nz):
                kept[z] = ez[z]
            _insert_row(parent, level, kept[1:], own[1:], own[:-1], at)
            if y > 0:
                _thin(ey, ez, levels[2, x, y - 1], kept)
                _insert_row(parent, level, kept, own, names[x, y - 1], at)
            if x > 0:
                _thin(ex, ez, levels[2, x - 1, y], kept)
                if y > 0:
                    ex_other, ey_other = levels[0, x, y - 1], levels[1, x - 1, y]
                    for z in range(nz):
                        weakest = min(ey[z], min(ey_other[z], ex_other[z]))
                        kept[z] *= np.uint8(ex[z] > weakest)
                _insert_row(parent, level, kept, own, names[x - 1, y], at)


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
