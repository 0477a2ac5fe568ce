"""Affinity targets from instance labels, on device.

The edge of offset d joins voxels v and v + d; its affinity is 1 where both carry the same
positive id. BANIS stores it at the source v (`data.py`, `comp_affinities`), DeepEM and
PyTC's SNEMI3D recipe at the destination v + d. Background (0) is a supervised negative,
unlabeled (negative) and the outside of the crop are not supervised. Where BANIS marks invalid
edges by a third value of an int8 target, we carry a boolean beside it.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int

from nisbjax.errors import InputError
from nisbjax.offsets import context, edge_slices
from nisbjax.typing import Triple

STORED_AT = ("source", "destination")


def affinity_targets(
    labels: Int[Array, "b x y z"],
    offsets: Sequence[Triple],
    *,
    stored_at: str = "source",
) -> tuple[Bool[Array, "b x y z c"], Bool[Array, "b x y z c"]]:
    """Affinities of every edge and which of them are known.

    Args:
      labels: 0 = background, > 0 = instance, negative = unlabeled.
      offsets: of the edges in voxels, one per channel; components may be negative.
      stored_at: the voxel at which an edge stands: `source` (BANIS) or `destination`.

    Returns:
      (targets, valid), of one channel per offset. `valid` is False where the edge leaves
      the array or ends in an unlabeled voxel; `targets` is False there.

    Raises:
      InputError: `stored_at` is another word.
    """
    _check(stored_at)
    _, x, y, z = labels.shape
    shape = (x, y, z)
    same, known = [], []
    for offset in offsets:
        source, destination = edge_slices(shape, offset)
        first, second = labels[:, *source], labels[:, *destination]
        stored = source if stored_at == "source" else destination
        # All edges leave the array: the slices are empty and everything is padding.
        padding = [(0, 0)] + [
            (s.start, size - s.stop) for s, size in zip(stored, shape, strict=True)
        ]
        same.append(jnp.pad((first == second) & (first > 0), padding))
        known.append(jnp.pad((first >= 0) & (second >= 0), padding))
    return jnp.stack(same, axis=-1), jnp.stack(known, axis=-1)


def target_context(
    offsets: Sequence[Triple], *, stored_at: str = "source"
) -> tuple[Triple, Triple]:
    """Voxels to read before and behind a patch so that none of its edges leaves the crop.

    Returns:
      (before, behind): (0, 0, 0), (10, 10, 10) for the six offsets of BANIS stored at the
      source, the two exchanged when stored at the destination (PyTC `target_context`).

    Raises:
      InputError: `stored_at` is another word than source or destination.
    """
    _check(stored_at)
    before, behind = context(tuple(offsets))
    return (before, behind) if stored_at == "source" else (behind, before)


def _check(stored_at: str) -> None:
    if stored_at not in STORED_AT:
        raise InputError(
            f"edge_stored_at is {stored_at!r}; wanted one of {', '.join(STORED_AT)}"
        )
