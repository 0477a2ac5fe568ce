"""Compiled: one forest that holds the components of an affinity graph at every level.

Affinities count as levels, 1 (above the lowest threshold of a grid) to the highest. A vertex
has at most one link, to a vertex of lower index, with a level; links of level l and more
form a forest whose trees are the components at l, for every l at once: a maximum spanning
forest, each root the first vertex of its component. An edge goes in at any time: it takes
the place of the weakest link on the cycle that it closes, so a volume is read once, in the
order in which it is stored. The vertices are parts of a box that `levels.join_strongest`
joins whatever the level. PyTC's tuner decodes a volume again for each threshold.

    edge put in    0 -2- 1      1 -1- 2      0 -3- 2
    parent         0 0 2        0 0 0        0 0 0
    level          0 2 0        0 2 1        0 2 3

The second edge links vertex 2 to 0, the top of vertex 1 at level 1. The third closes the
cycle 0-1-2 and takes the place of its weakest link, of level 1; that one would go in again
between 0 and 0, and is idle. Components at levels 1 and 2: {0 1 2}; at 3: {0 2} {1}.

Kernels that call one another stand in this one module: numba's cache does not see a changed
callee in another file.
"""

from typing import no_type_check

import numpy as np

from nisbjax.decode.kernels import kernel, part
from nisbjax.decode.thresholds.levels import NO_LEVEL

NONE = np.uint32(0xFFFFFFFF)


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
        if old == NO_LEVEL:
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
        count += kept[z] != NO_LEVEL
    for i in range(count):
        z = at[i]
        u, v = np.uint64(names[z]), np.uint64(names_before[z])
        _insert(parent, level, u, v, kept[z])


@no_type_check
@kernel
def span(levels, names, parent, level):
    """Fills a forest over the parts of a box from the edges between them.

    Args:
      levels: 3 x y z, as of `levels.read_levels`.
      names: x y z, vertex of each voxel; voxels of one vertex are joined at every level.
      parent, level: one for each vertex, receive the links; level 0 = none.
    """
    _, nx, ny, nz = levels.shape
    kept, at = np.empty(nz, np.uint8), np.empty(nz + 1, np.int64)
    for vertex in range(parent.size):
        parent[vertex], level[vertex] = vertex, NO_LEVEL
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
        if levels[i] != NO_LEVEL:
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
