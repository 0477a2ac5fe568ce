"""Coarse pictures of the planes at both ends of a prediction, taken as its chunks come by.

A cut lies near an end, and where is known only after all planes were read. PyTC's report
has no pictures; here these planes are kept while scanning or predicting, so that showing
both cuts reads nothing again.
"""

import functools

import numpy as np
from jaxtyping import Shaped, UInt16

from nisbjax.typing import Triple

DEPTH = 64  # planes kept at each end, twice what the reference's search looks at
PIXELS = 256  # of a picture on each side, at most

Pictures = UInt16[np.ndarray, "p i j"]


def row_of(z: int, depth: int) -> int | None:
    """Where plane z stands among those that are kept; None where it is not."""
    if z < DEPTH:
        return z
    return z - max(depth - 2 * DEPTH, 0) if z >= depth - DEPTH else None


def step_of(shape: Triple) -> int:
    """Every so many voxels of a plane make its picture."""
    return max(1, -(-max(shape[:2]) // PIXELS))


def empty(shape: Triple) -> Pictures:
    """Pictures of nothing yet; values are sums over the channels, in 1 / 255."""
    step = step_of(shape)
    size = min(2 * DEPTH, shape[2]), -(-shape[0] // step), -(-shape[1] // step)
    return np.zeros(size, np.uint16)


def take(
    values: Shaped[np.ndarray, "c x y z"], start: Triple, shape: Triple
) -> tuple[Pictures, Triple]:
    """The part of the pictures that a part of the prediction shows, and where it lies.

    Args:
      values: float16, float32, or uint8 meaning value / 255.
      start: first voxel of the part.
      shape: of the whole prediction, x y z.

    Returns:
      Sums over the channels, and their first plane, row and column in the whole's.
    """
    step = step_of(shape)
    rows = [row_of(start[2] + k, shape[2]) for k in range(values.shape[3])]
    planes = [k for k, row in enumerate(rows) if row is not None]
    p0 = rows[planes[0]] if planes else 0
    i0, j0 = -(-start[0] // step), -(-start[1] // step)
    x = slice(i0 * step - start[0], None, step)
    y = slice(j0 * step - start[1], None, step)
    shown = values[:, x, y][..., planes]
    if shown.dtype == np.float16:
        tones = _tones()[shown.view(np.uint16)]
    elif shown.dtype == np.uint8:
        tones = shown
    else:
        tones = _as_tones(shown)
    total = tones.sum(0, dtype=np.uint16)
    return np.ascontiguousarray(np.moveaxis(total, 2, 0)), (p0 or 0, i0, j0)


def _as_tones(values: np.ndarray) -> np.ndarray:
    finite = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(finite, 0, 1) * 255).astype(np.uint8)


@functools.cache
def _tones() -> np.ndarray:
    """Tone of every 16-bit float by its bits."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return _as_tones(every.astype(np.float32))
