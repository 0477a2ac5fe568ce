"""Voxels where two segments touch become background.

Labels that fill a volume put the wall between two neurites somewhere, and what lies there is a
guess; a skeleton's node on background costs less than one in another's segment. PyTC and BANIS
leave walls to the threshold. A row, shaved by 1 and by 2 voxels:

    labels    1 1 1 2 2 2 0 3 3
    by 1      1 1 0 0 2 2 0 3 3      3 touches nobody: background lies between
    by 2      1 0 0 0 0 2 0 3 3
"""

import numpy as np
from jaxtyping import Bool

from nisbjax.errors import InputError
from nisbjax.typing import Labels

MOST = 16  # voxels; boxes read so many beside themselves


def shaved(labels: Labels, voxels: int) -> Labels:
    """Labels without what lies within some voxels of another segment's.

    Args:
      labels: [x y z], 0 = background.
      voxels: 1 takes those that share a face with a voxel of another segment; n those from
        which one of these is reached in n - 1 steps through their own segment. 0: none.

    Returns:
      [x y z] labels, of the same type; a voxel depends on those up to `voxels` steps away.

    Raises:
      InputError: fewer than none, or too many for a box.
    """
    check(voxels)
    if not voxels:
        return labels
    taken = np.zeros(labels.shape, bool)
    for low, high in _neighbours():
        a, b = labels[low], labels[high]
        touching = (a != b) & (a != 0) & (b != 0)
        taken[low] |= touching
        taken[high] |= touching
    for _ in range(voxels - 1):
        taken = _one_further(labels, taken)
    return np.where(taken, 0, labels).astype(labels.dtype)


def check(voxels: int) -> None:
    """Refuses a number of voxels that means nothing.

    Raises:
      InputError: as `shaved`.
    """
    if not 0 <= voxels <= MOST:
        raise InputError(f"decode.shave is {voxels}; wanted 0 to {MOST} voxels")


def _one_further(
    labels: Labels, taken: Bool[np.ndarray, "x y z"]
) -> Bool[np.ndarray, "x y z"]:
    """What was taken, and its neighbours of the same segment."""
    found = taken.copy()
    for low, high in _neighbours():
        same = labels[low] == labels[high]
        found[low] |= same & taken[high]
        found[high] |= same & taken[low]
    return found


def _neighbours():
    """By axis: all voxels but the last, and those behind them."""
    for axis in range(3):
        before = (slice(None),) * axis
        yield (*before, slice(None, -1)), (*before, slice(1, None))
