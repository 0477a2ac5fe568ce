"""How much each voxel of an inference window counts where windows overlap.

The weights follow BANIS `inference.py` and PyTC. PyTC multiplies and sums in float16; here
weights and both sums (`sums`) are float32.
"""

import numpy as np

from nisbjax.errors import InputError
from nisbjax.typing import Triple, Weights


def _distance(window: Triple) -> Weights:
    ramps = [
        np.minimum(np.arange(1, w + 1), np.arange(w, 0, -1)).astype(np.float32)
        for w in window
    ]
    x, y, z = np.ix_(*ramps)
    return np.minimum(np.minimum(x, y), z)


def _bump(window: Triple) -> Weights:
    kernels = []
    for w in window:
        u = np.arange(1, w + 1) / (w + 1) * 2 - 1
        kernel = np.exp(-1 / (1 - u**2))
        kernels.append(kernel / kernel.max())
    x, y, z = np.ix_(*kernels)
    return np.maximum(x * y * z, 1e-5).astype(np.float32)


def _constant(window: Triple) -> Weights:
    return np.ones(window, np.float32)


KINDS = {"distance": _distance, "bump": _bump, "constant": _constant}


def window_weights(window: Triple, kind: str = "distance") -> Weights:
    """How much each voxel of a window counts in the average; never 0.

    `distance`: W(p) = min over axes of min(p_a + 1, w_a - p_a), the chessboard distance
    to the outside (BANIS). `bump`: product over axes of exp(-1 / (1 - u^2)), floored at
    1e-5 (PyTC, SNEMI3D). `constant`: 1.

    Raises:
      InputError: an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"predict.blend={kind!r} is not one of {sorted(KINDS)}")
    return KINDS[kind](window)
