"""What the microscope and the edge of the slab add to painted neuropil: kernels over a box.

Noise, drift, defective planes and a dark ring, and labels only where something is to be
seen. NISB's diffusion model makes tissue and image at once.
"""

from typing import NamedTuple, no_type_check

import numpy as np

from nisbjax.synth import hashing
from nisbjax.synth.hashing import kernel


class Exposure(NamedTuple):
    """What the microscope and the edge of the slab add; fields of `Tissue`.

    Attributes:
      drift: of the background, as a share.
      noise: standard deviation, grey values.
      brightness: mean grey value of tissue.
      halo: the widest that the dark ring becomes, voxels.
      background: grey value of the ring.
      low_defects, high_defects: defective planes at the low and high z faces.
    """

    drift: float
    noise: float
    brightness: float
    halo: int
    background: float
    low_defects: int
    high_defects: int


@no_type_check
@kernel
def _ring_width(seed, x, y, z, halo):
    """Of the dark ring beside this voxel: halo / 2 to halo voxels, slowly varying."""
    return halo * (0.75 + 0.25 * hashing.smooth(seed, x / 24, y / 24, z / 24))


@no_type_check
@kernel
def _in_ring(seed, x, y, z, shape, halo):
    face = min(min(x, shape[0] - 1 - x), min(y, shape[1] - 1 - y))
    return face < halo and face < _ring_width(seed, x, y, z, halo)


@no_type_check
@kernel
def expose(image, start, shape, seed, exposure):
    """Uneven background, noise, defective planes and the dark ring; then bytes.

    Args:
      image: Float32[x y z], blurred.
      start: Int64[3], its first voxel in the cube.
      shape: Int64[3], of the cube.
      seed: of the cube.
      exposure: `Exposure`.
    """
    out = np.zeros(image.shape, np.uint8)
    background, brightness = exposure.background, exposure.brightness
    low, high = exposure.low_defects, exposure.high_defects
    noise_key, drift_key = (
        hashing.key(seed, hashing.NOISE),
        hashing.key(seed, hashing.DRIFT),
    )
    ring_key = hashing.key(seed, hashing.RING)
    for i in range(image.shape[0]):
        x = start[0] + i
        for j in range(image.shape[1]):
            y = start[1] + j
            for k in range(image.shape[2]):
                z = start[2] + k
                level = hashing.normal(hashing.bits(noise_key, x, y, z))
                if _in_ring(ring_key, x, y, z, shape, exposure.halo):
                    value = min(0.4 * background + 0.1 * background * level, background)
                else:
                    gain = 1 + exposure.drift * hashing.smooth(
                        drift_key, x / 50, y / 50, z / 40
                    )
                    value = gain * image[i, j, k] + exposure.noise * level
                    if z < low or z >= shape[2] - high:
                        # Hardly any signal: dim, with little contrast and noise.
                        value = 0.42 * brightness + 0.15 * (value - brightness)
                        value += 0.4 * exposure.noise * level
                    # The ring alone is as dark as the background.
                    value = max(value, background + 1.0)
                out[i, j, k] = np.uint8(min(max(value, 0.0), 255.0) + 0.5)
    return out


@no_type_check
@kernel
def separate(raw, low, start, shape, cube_shape, seed, exposure):
    """Labels of a box, where no two neurites share a face and something is to be seen.

    Args:
      raw: Int32, labels of the box and at least one voxel around it.
      low: where the box begins in `raw`.
      start: where it begins in the cube.
      shape: of the box.
      cube_shape: of the cube.
      seed: of the cube.
      exposure: `Exposure`.
    """
    labels = np.zeros(shape, np.int32)
    ring_key = hashing.key(seed, hashing.RING)
    last = cube_shape[2] - exposure.high_defects
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                x, y, z = i + low[0], j + low[1], k + low[2]
                own = raw[x, y, z]
                plane = start[2] + k
                if plane < exposure.low_defects or plane >= last:
                    continue
                if own == 0 or _in_ring(
                    ring_key,
                    start[0] + i,
                    start[1] + j,
                    plane,
                    cube_shape,
                    exposure.halo,
                ):
                    continue
                alone = True
                for side in (-1, 1):
                    a, b, c = (
                        raw[x + side, y, z],
                        raw[x, y + side, z],
                        raw[x, y, z + side],
                    )
                    alone &= (a == own or a == 0) and (b == own or b == 0)
                    alone &= c == own or c == 0
                if alone:
                    labels[i, j, k] = own
    return labels
