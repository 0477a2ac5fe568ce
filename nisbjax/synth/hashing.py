"""Random numbers that are functions of a place: kernels.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) of a seed and global voxels, or the numbers
of neurites, so that a box made alone has the bytes that it has inside a larger one; numpy's
generators count what they have drawn. A kernel that calls these is compiled again when they
change, since the cache belongs to all sources together (`parallel.kernel_cache`).
"""

import math
from typing import no_type_check

import numba
import numpy as np

kernel = numba.njit(nogil=True, cache=True, error_model="numpy")

_STEP = np.uint64(0x9E3779B97F4A7C15)
# Streams of random numbers.
BRIGHTNESS, DOTS, FINE, COARSE, PATCHES, NOISE, DRIFT, RING = range(8)


@no_type_check
@kernel
def mix(value):
    """Scrambles 64 bits: a bijection in which each bit depends on all."""
    value = np.uint64(value)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@no_type_check
@kernel
def key(seed, stream):
    """A fresh stream's key, from another's."""
    return mix(np.uint64(seed) + _STEP * (np.uint64(stream) + np.uint64(1)))


@no_type_check
@kernel
def bits(seed, x, y, z):
    """64 random bits of a lattice site; coordinates may be negative."""
    value = mix(np.uint64(seed) + _STEP * np.uint64(x))
    value = mix(value + _STEP * np.uint64(y))
    return mix(value + _STEP * np.uint64(z))


@no_type_check
@kernel
def unit(value):
    """[0, 1) from the high 53 bits."""
    return np.float64(value >> np.uint64(11)) * 2.0**-53


@no_type_check
@kernel
def normal(value):
    """About standard normal, |.| < 3.5: four 16-bit numbers added (Irwin and Hall)."""
    low = np.uint64(0xFFFF)
    total = np.float64(value & low) + np.float64((value >> np.uint64(16)) & low)
    total += np.float64((value >> np.uint64(32)) & low)
    total += np.float64(value >> np.uint64(48))
    # The sum of four uniform numbers has mean 2 and variance 1/3.
    return (total / 65536.0 - 2.0) * math.sqrt(3.0)


@no_type_check
@kernel
def smooth(seed, x, y, z):
    """Value noise in [-1, 1] at a point given in lattice units, once differentiable."""
    x0, y0, z0 = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - x0, y - y0, z - z0
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    i, j, k = np.int64(x0), np.int64(y0), np.int64(z0)
    total = 0.0
    for a in range(2):
        p = u if a else 1 - u
        for b in range(2):
            q = v if b else 1 - v
            for c in range(2):
                r = w if c else 1 - w
                total += p * q * r * unit(bits(seed, i + a, j + b, k + c))
    return 2.0 * total - 1.0
