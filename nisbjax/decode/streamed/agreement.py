"""Fragments of two boxes are one where the boxes agree: in the voxels that both decoded.

A fragment is compared with each one of the other box by what they share of the voxels
around the face between the boxes; two are one where that is at least half of what either
has there. Three such halves do not fit into a whole, so hardly ever does one fragment find
two. Around a face, of six voxels along x, boxes that say:

    box 0     1 1 1 2 2 2        1 and 4 share 3 of 4 voxels: one fragment
    box 1     4 4 4 4 5 5        2 and 5 share 2 of 3: one fragment; 2 and 4 1 of 6: two

Blockwise watersheds of the field (`cluster_tools`, funlib's) join what touches, by a
graph over the volume, or by the largest overlap alone, which joins also where boxes disagree.
"""

import dataclasses

import numpy as np
from jaxtyping import Int

from nisbjax.decode.streamed.fragments import Runs
from nisbjax.decode.streamed.layers import FacingLabels, Pairs


@dataclasses.dataclass(frozen=True)
class AgreeingFragments(FacingLabels):
    """The records of all boxes of a volume, as the `MutexDecoder` left them."""

    def shared(self, index: int, behind: int, axis: int) -> Pairs:
        """Fragments that agree, of a box and of that behind it."""
        return agreeing(self._runs(index, axis, -1), self._runs(behind, axis, 0))

    def _runs(self, index: int, axis: int, side: int) -> Runs:
        record = self.record(index)
        face = f"{axis}{side}"
        return record.array(f"starts{face}"), record.array(f"labels{face}")


def agreeing(one: Runs, other: Runs) -> Pairs:
    """Pairs of labels that share at least half of the voxels that either has.

    Args:
      one, other: two labellings of the same voxels, 0 = background; see `fragments.runs`.
    """
    cuts = np.union1d(one[0], other[0])
    voxels = np.diff(cuts.astype(np.int64))
    a, b = (
        labels[np.searchsorted(starts, cuts[:-1], side="right") - 1].astype(np.int64)
        for starts, labels in (one, other)
    )
    return agreeing_pairs(a, b, voxels)


def agreeing_pairs(
    a: Int[np.ndarray, " r"], b: Int[np.ndarray, " r"], voxels: Int[np.ndarray, " r"]
) -> Pairs:
    """As `agreeing`, of voxels that are counted by both of their labels.

    Args:
      a, b: labels in the two labellings; a pair may come several times.
      voxels: that have them.
    """
    of_a, of_b = np.bincount(a, voxels), np.bincount(b, voxels)
    both = (a > 0) & (b > 0)
    pairs, which = np.unique(a[both] * len(of_b) + b[both], return_inverse=True)
    shared = np.bincount(which, voxels[both])
    a, b = pairs // len(of_b), pairs % len(of_b)
    # Shared of united: n / (a + b - n) is half where 3 n is a + b.
    found = 3 * shared >= of_a[a] + of_b[b]
    return np.stack([a[found], b[found]])
