"""Compiled sums over the planes of a prediction.

Halves are read as integers: numba has no float16, and shifting exponents into place turns
every loop into vector instructions (about 1 ns for each value, where PyTC widens whole
planes with numpy).
"""

from typing import no_type_check

import numba
import numpy as np


@no_type_check
@numba.njit(nogil=True, cache=True, error_model="numpy")
def sum_halves(bits, count, nan, inf, total, squares, low, high):
    """Adds planes of float16, given as their bits [c x y z].

    One short loop for each quantity: all of them become vector instructions.
    """
    channels, nx, ny, nz = bits.shape
    moved = np.empty(nz, np.uint32)
    values = moved.view(np.float32)
    smallest, largest = np.empty(nz, np.int16), np.empty(nz, np.int16)
    signed = bits.view(np.int16)
    for c in range(channels):
        plane_total, plane_squares = total[c], squares[c]
        smallest[:] = 0x7BFF
        largest[:] = -0x7C00
        for x in range(nx):
            for y in range(ny):
                row, keys = bits[c, x, y], signed[c, x, y]
                top = 0
                for z in range(nz):
                    top = max(top, row[z] & 0x7FFF)
                _decode(row, moved, values)
                if top >= 0x7C00:
                    _leave_out(row, nan[c], inf[c], values)
                for z in range(nz):
                    value = np.float64(values[z])
                    plane_total[z] += value
                    plane_squares[z] += value * value
                if top < 0x7C00:
                    for z in range(nz):
                        # As integers, halves order like their values once the
                        # magnitude bits of the negative ones are inverted.
                        key = keys[z] ^ ((keys[z] >> 15) & np.int16(0x7FFF))
                        smallest[z] = min(smallest[z], key)
                        largest[z] = max(largest[z], key)
                else:
                    for z in range(nz):
                        if row[z] & 0x7FFF < 0x7C00:
                            key = keys[z] ^ ((keys[z] >> 15) & np.int16(0x7FFF))
                            smallest[z] = min(smallest[z], key)
                            largest[z] = max(largest[z], key)
        for z in range(nz):
            count[c, z] = nx * ny - nan[c, z] - inf[c, z]
        for keys, into in ((smallest, low[c]), (largest, high[c])):
            for z in range(nz):
                keys[z] ^= (keys[z] >> 15) & np.int16(0x7FFF)
            _decode(keys.view(np.uint16), moved, values)
            for z in range(nz):
                if count[c, z]:
                    into[z] = values[z]


@no_type_check
@numba.njit(nogil=True, cache=True, error_model="numpy")
def _decode(row, moved, values):
    """Float32 `values` of finite halves; `moved` are the same bytes as integers.

    The exponent is shifted into place and rebiased; a subnormal half becomes 2^-14 plus its
    value first, since arithmetic on subnormal floats is slow.
    """
    for z in range(row.size):
        bits = np.uint32(row[z])
        subnormal = np.uint32(bits & np.uint32(0x7C00)) == np.uint32(0)
        rebias = np.uint32(113 << 23) if subnormal else np.uint32(112 << 23)
        moved[z] = ((bits & np.uint32(0x7FFF)) << np.uint32(13)) + rebias
    for z in range(row.size):
        subnormal = np.uint32(row[z] & np.uint16(0x7C00)) == np.uint32(0)
        values[z] -= np.float32(2.0**-14) if subnormal else np.float32(0)
    for z in range(row.size):
        moved[z] |= np.uint32(row[z] & np.uint16(0x8000)) << np.uint32(16)


@no_type_check
@numba.njit(nogil=True, cache=True, error_model="numpy")
def _leave_out(row, nan, inf, values):
    """Counts values that are not finite and makes them 0 for the sums."""
    for z in range(row.size):
        magnitude = row[z] & 0x7FFF
        if magnitude >= 0x7C00:
            nan[z] += magnitude > 0x7C00
            inf[z] += magnitude == 0x7C00
            values[z] = 0


@no_type_check
@numba.njit(nogil=True, cache=True, error_model="numpy")
def sum_floats(values, count, nan, inf, total, squares, low, high):
    """Adds planes of float32 [c x y z]."""
    channels, nx, ny, nz = values.shape
    for c in range(channels):
        for x in range(nx):
            for y in range(ny):
                for z in range(nz):
                    value = values[c, x, y, z]
                    if np.isnan(value):
                        nan[c, z] += 1
                    elif np.isinf(value):
                        inf[c, z] += 1
                    else:
                        total[c, z] += np.float64(value)
                        squares[c, z] += np.float64(value) * np.float64(value)
                        low[c, z] = min(low[c, z], value)
                        high[c, z] = max(high[c, z], value)
        for z in range(nz):
            count[c, z] = nx * ny - nan[c, z] - inf[c, z]
