"""Who owns a voxel of made-up neuropil: the nearest centre line in units of its radius.

A multiplicatively weighted Voronoi diagram (Aurenhammer and Edelsbrunner 1984) of the
centre lines: neighbours touch, and a thin neurite keeps its domain beside a thick one.
NISB's base segmentation is grown voxel by voxel instead.
"""

import math
from typing import no_type_check

import numba
import numpy as np

# Columns of a segment: one end 0-2, the vector to the other 3-5, the radii 6 7, the
# flattened axis 8-10, the flatness 11, the organelle's shares 12 13, the neurite 14.
COLUMNS = 15

_kernel = numba.njit(nogil=True, cache=True, error_model="numpy")


@no_type_check
@_kernel
def rasterize(segments, start, shape, size, extracellular):
    """For each voxel its segment and the nearest one of another neurite.

    Args:
      segments: Float64[s 15], see `COLUMNS`; all that reach into the box.
      start: Int64[3], first voxel of the box.
      shape: of the box.
      size: Float64[3], of a voxel, nm.
      extracellular: radii that a neurite reaches at most.

    Returns:
      two Int32[x y z] of rows of `segments`, -1 where there is none.
    """
    first = np.full(shape, -1, np.int32)
    second = np.full(shape, -1, np.int32)
    limit = np.float32(extracellular * extracellular)
    best = np.full(shape, limit)
    next_best = np.full(shape, limit)
    scaled = np.empty(shape[2], np.float32)
    for index in range(len(segments)):
        segment = segments[index]
        ax, ay, az, vx, vy, vz, ra, rb, ux, uy, uz, flatness = segment[:12]
        neurite = segment[14]
        per_length = 1 / (vx * vx + vy * vy + vz * vz + 1e-9)
        # The whole domain lies in a ball around the segment's middle.
        mx, my, mz = ax + vx / 2, ay + vy / 2, az + vz / 2
        ball = extracellular * max(ra, rb) + 0.5 / math.sqrt(per_length)
        x_low, x_high = _range(mx, ball, size[0], start[0], shape[0])
        for i in range(x_low, x_high):
            x = (start[0] + i) * size[0]
            disc = ball * ball - (x - mx) ** 2
            y_low, y_high = _range(
                my, math.sqrt(max(disc, 0)), size[1], start[1], shape[1]
            )
            for j in range(y_low, y_high):
                y = (start[1] + j) * size[1]
                chord = math.sqrt(max(disc - (y - my) ** 2, 0))
                z_low, z_high = _range(mz, chord, size[2], start[2], shape[2])
                # Arithmetic first, in a loop of its own that the compiler vectorises.
                for k in range(z_low, z_high):
                    z = (start[2] + k) * size[2]
                    dx, dy, dz = x - ax, y - ay, z - az
                    t = (dx * vx + dy * vy + dz * vz) * per_length
                    t = min(max(t, 0.0), 1.0)
                    dx, dy, dz = dx - t * vx, dy - t * vy, dz - t * vz
                    radius = ra + t * (rb - ra)
                    along = dx * ux + dy * uy + dz * uz
                    square = dx * dx + dy * dy + dz * dz + flatness * along * along
                    scaled[k] = square / (radius * radius)
                for k in range(z_low, z_high):
                    s = scaled[k]
                    if s >= next_best[i, j, k]:
                        continue
                    owner = first[i, j, k]
                    if owner >= 0 and segments[owner, 14] == neurite:
                        if s < best[i, j, k]:
                            best[i, j, k] = s
                            first[i, j, k] = index
                    elif s < best[i, j, k]:
                        next_best[i, j, k] = best[i, j, k]
                        second[i, j, k] = owner
                        best[i, j, k] = s
                        first[i, j, k] = index
                    else:
                        next_best[i, j, k] = s
                        second[i, j, k] = index
    return first, second


@no_type_check
@_kernel
def _range(middle, reach, size, start, count):
    """Voxels of a box along one axis that lie within `reach` of `middle` [nm]."""
    low = math.ceil((middle - reach) / size) - start
    high = math.floor((middle + reach) / size) + 1 - start
    return max(low, 0), min(high, count)
