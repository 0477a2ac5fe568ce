"""LZF, h5py's own compression, unpacked with every bound checked.

After Marc Lehmann's liblzf 3.6, which h5py carries; there a stream that ends early is no
error.
"""

from typing import no_type_check

import numba
import numpy as np


@no_type_check
@numba.njit(nogil=True, cache=True)
def unpack(data, out):
    """Unpacks a stream of bytes into an array of bytes.

    Returns:
      Bytes written, or -1 where the stream breaks off, points before its start, or holds
      more than the array takes.
    """
    i, o, n, room = 0, 0, data.size, out.size
    while i < n:
        control = np.int64(data[i])
        i += 1
        if control < 32:  # that many plus one bytes as they are
            count = control + 1
            if i + count > n or o + count > room:
                return -1
            for k in range(count):
                out[o + k] = data[i + k]
            i += count
            o += count
            continue
        count = control >> 5  # a copy of earlier bytes, which it may overlap
        if count == 7:
            if i >= n:
                return -1
            count += np.int64(data[i])
            i += 1
        if i >= n:
            return -1
        back = o - ((control & 31) << 8) - np.int64(data[i]) - 1
        i += 1
        count += 2
        if back < 0 or o + count > room:
            return -1
        for k in range(count):
            out[o + k] = out[back + k]
        o += count
    return o
