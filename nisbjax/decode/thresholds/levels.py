"""Compiled: affinities become levels of a grid of thresholds, and most of them are joined.

Level l means: above the l lowest thresholds of the grid; 0 is no edge. Few voxels are asked
about, so every other one is joined beforehand to the neighbour to which its edge is
strongest, which changes no answer. PyTC's tuner compares affinities once for each threshold.

    thresholds .5 .7 .9    voxel  0     1     2     3      0 and 3 are asked about
    affinity                        .75   .55   .95
    level                            2     1     3
    strongest of 1 and 2             ^           ^         1 goes to 0, 2 goes to 3
    raised to the top (3)            3     1     3         parts 0-1 and 2-3, level 1 between

At level 1 the voxels 0 and 3 are joined, at 2 and 3 they are not, before and afterwards.

Kernels that call one another stand in this one module: numba's cache does not see a changed
callee in another file.
"""

from typing import no_type_check

import numpy as np

from nisbjax.decode.kernels import kernel, part

NO_LEVEL = np.uint8(0)


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
            row[0] = NO_LEVEL
            source, other = (1, 0) if destination else (0, 1)
            for z in range(nz - 1):
                row[z + 1] = stored[z + source]
            if masked and both:
                for z in range(nz - 1):
                    row[z + 1] *= np.uint8(k[z + other] != 0)
            for axis in range(2):
                if (y if axis else x) == 0:
                    for z in range(nz):
                        levels[axis, x, y, z] = NO_LEVEL
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
                done[z] = np.uint8((terminals[x, y, z] != 0) | (row[z] == NO_LEVEL))
            _raise(levels[2, x, y], 0, row, done, top)
            _raise(levels[1, x, y], 0, row, done, top)
            _raise(levels[0, x, y], 0, row, done, top)
            _raise(levels[2, x, y], 1, row, done, top)
            if y + 1 < ny:
                _raise(levels[1, x, y + 1], 0, row, done, top)
            if x + 1 < nx:
                _raise(levels[0, x + 1, y], 0, row, done, top)
