"""Contrast-limited adaptive histogram equalisation (CLAHE), slice by slice of z.

After Zuiderveld (Graphics Gems IV, 1994): a slice is divided into tiles, each tile's
histogram is cut at a limit and what was cut is spread over all levels, its running sum is
the tile's table of grey values, and a voxel takes the mean of the tables around it,
weighted by its distance to their tiles' centres. scikit-image's `equalize_adapthist` works
on a plane in memory; here tiles are fixed by the volume and their tables are made once, so
that a crop is the same wherever its box lies.
"""

import functools
import itertools
from typing import Any, no_type_check

import numba
import numpy as np
import tensorstore as ts
from jaxtyping import Float64, Int64, Shaped, UInt8
from numpy import ndarray

from nisbjax.data.intensity import require_grey
from nisbjax.geometry import Box
from nisbjax.store import views
from nisbjax.store.volume import Volume

_LEVELS = 256


def tables(
    image: Volume, grey: tuple[float, float], tile: int, clip: float
) -> UInt8[np.ndarray, "z i j c 256"]:
    """The table of each tile: what becomes of each grey level.

    Args:
      image: [x y z c], a whole volume.
      grey: values that are the lowest and the highest of 256 levels.
      tile: its edge in voxels along x and y; tiles of a slice are of one size but for a voxel.
      clip: largest share of a tile's voxels that counts in one level; 1 for no limit.

    Raises:
      InputError: no grey values.
    """
    require_grey(image)
    x, y, z = image.spatial_shape
    x_ends, y_ends = _ends(x, tile), _ends(y, tile)
    channels, depth = image.shape[-1], image.spatial_chunks[2]
    shape = (z, len(x_ends) - 1, len(y_ends) - 1, channels)
    found = np.empty((*shape, _LEVELS), np.uint8)
    for start in range(0, z, depth):
        stop = min(start + depth, z)
        for i, (x0, x1) in enumerate(itertools.pairwise(x_ends)):
            values = image.read(Box((int(x0), 0, start), (int(x1), y, stop)))
            levels = _levels(values, grey)
            for j, (y0, y1) in enumerate(itertools.pairwise(y_ends)):
                for k, c in np.ndindex(stop - start, channels):
                    part = levels[:, y0:y1, k, c].ravel()
                    counts = np.bincount(part, minlength=_LEVELS)
                    found[start + k, i, j, c] = table(counts, clip)
    return found


def table(counts: Int64[np.ndarray, " 256"], clip: float) -> UInt8[np.ndarray, " 256"]:
    """What becomes of each level of a tile, by how many voxels have it."""
    limit = max(int(clip * counts.sum()), 1)
    kept = np.minimum(counts, limit)
    kept = kept + (counts - kept).sum() / len(counts)
    return np.rint(np.cumsum(kept) * (255 / counts.sum())).astype(np.uint8)


def equalized(
    image: Volume,
    tables: UInt8[np.ndarray, "z i j c 256"],
    grey: tuple[float, float],
) -> Volume:
    """A view of an image in bytes, by the tables of its tiles.

    Args:
      image: [x y z c], a whole volume.
      tables: of `tables`.
      grey: as there.
    """
    store = views.view(
        functools.partial(_equalize, image, tables, grey),
        image.shape,
        np.uint8,
        image.chunks,
        own_threads=True,
    )
    return Volume(store, image.axes, image.attributes, image.source, image.stored_axes)


def _equalize(
    image: Volume,
    tables: UInt8[np.ndarray, "z i j c 256"],
    grey: tuple[float, float],
    domain: ts.IndexDomain,
    chunk: np.ndarray,
    _: Any,
) -> None:
    index = tuple(slice(d.inclusive_min, d.exclusive_max) for d in domain)
    levels = _levels(image.read(index), grey)
    x, y, _z = image.spatial_shape
    along_x = _neighbours(index[0], _centres(x, tables.shape[1]))
    along_y = _neighbours(index[1], _centres(y, tables.shape[2]))
    out = np.empty(levels.shape, np.uint8)
    _look_up(levels, tables[index[2], :, :, index[3]], *along_x, *along_y, out)
    chunk[...] = out


def _levels(
    values: Shaped[np.ndarray, "x y z c"], grey: tuple[float, float]
) -> UInt8[np.ndarray, "x y z c"]:
    if values.dtype == np.uint8 and grey == (0.0, 255.0):
        return values
    low, high = grey
    values = np.where(np.isfinite(values), values, low).astype(np.float64)
    scaled = (values - low) * (255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def _ends(size: int, tile: int) -> Int64[np.ndarray, " n"]:
    """Where tiles begin and end along an axis."""
    return _divided(size, max(round(size / tile), 1))


def _divided(size: int, count: int) -> Int64[np.ndarray, " n"]:
    return np.arange(count + 1, dtype=np.int64) * size // count


def _centres(size: int, count: int) -> Float64[np.ndarray, " n"]:
    ends = _divided(size, count)
    return (ends[1:] + ends[:-1] - 1) / 2


def _neighbours(
    voxels: slice, centres: Float64[np.ndarray, " tiles"]
) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"], Float64[ndarray, " n"]]:
    """The tiles before and behind each voxel of an axis, and how near it is to the latter."""
    place = np.arange(voxels.start, voxels.stop)
    before = np.searchsorted(centres, place, side="right") - 1
    behind = np.minimum(before + 1, len(centres) - 1)
    before = np.maximum(before, 0)
    apart = np.where(before == behind, 1.0, centres[behind] - centres[before])
    return before, behind, np.clip((place - centres[before]) / apart, 0.0, 1.0)


@no_type_check  # beartype cannot wrap what numba compiles
@numba.njit(nogil=True, cache=True)
def _look_up(levels, tables, x0, x1, x_share, y0, y1, y_share, out):
    nx, ny, nz, nc = levels.shape
    for x in range(nx):
        a, b, f = x0[x], x1[x], x_share[x]
        for y in range(ny):
            c, d, g = y0[y], y1[y], y_share[y]
            for z in range(nz):
                for k in range(nc):
                    level = levels[x, y, z, k]
                    low = (1 - g) * tables[z, a, c, k, level] + g * tables[
                        z, a, d, k, level
                    ]
                    high = (1 - g) * tables[z, b, c, k, level] + g * tables[
                        z, b, d, k, level
                    ]
                    out[x, y, z, k] = np.uint8((1 - f) * low + f * high + 0.5)
