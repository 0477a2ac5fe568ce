"""The connected components of dense labels, as a decode of perfect affinities.

What no decoder can beat: a neurite that leaves a volume and comes back is two components in
it, and skeletons that know better cost even the truth. Neither reference system asks.
"""

import functools
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Integer

from nisbjax.decode.thresholds import sweep
from nisbjax.errors import InputError
from nisbjax.offsets import SHORT_RANGE, edge_slices
from nisbjax.store.unlabeled import DEFAULT, is_unlabeled
from nisbjax.store.views import view
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple

_HALF = 0.5  # any threshold between absent and present edges


def at_nodes(
    labels: Volume,
    positions: Integer[np.ndarray, "n 3"],
    *,
    memory_gb: float,
    unlabeled: str = DEFAULT,
) -> Integer[np.ndarray, " n"]:
    """The component of its label that each voxel lies in; 0 = background.

    Voxels are joined over their faces. A label's single voxel without a neighbour of the
    same label counts as background, as in a decode.

    Args:
      labels: [x y z]; 0 and what `unlabeled` names are background.
      positions: voxels, x y z.
      memory_gb: for the boxes at work.
      unlabeled: see `unlabeled.parse_codes`.

    Raises:
      InputError: as `nodes_by_threshold`.
    """
    if labels.rank != 3:
        raise InputError(f"{labels.source} has {labels.rank} axes; wanted labels x y z")
    affinities = true_affinities(labels, unlabeled)
    (found,) = sweep.nodes_by_threshold(
        affinities, positions, (_HALF,), memory_gb=memory_gb
    )
    return found


def true_affinities(labels: Volume, unlabeled: str = DEFAULT) -> Volume:
    """Affinities [3 x y z] that join what carries one label: 255 there, else 0.

    Args:
      labels: [x y z].
      unlabeled: see `unlabeled.parse_codes`; joined to nothing.
    """
    shape, chunks = labels.spatial_shape, labels.spatial_chunks
    reader = functools.partial(_read, labels, unlabeled, shape)
    store = view(reader, (3, *shape), np.uint8, (1, *chunks), own_threads=True)
    return Volume(store, "cxyz", source=labels.source)


def _read(
    labels: Volume,
    unlabeled: str,
    shape: Triple,
    domain: ts.IndexDomain,
    chunk: np.ndarray,
    _: Any,
) -> None:
    channels, *box = domain.index_exp
    for row, channel in enumerate(range(channels.start, channels.stop)):
        offset = SHORT_RANGE[channel]
        ends = [
            slice(b.start, min(b.stop + o, s))
            for b, o, s in zip(box, offset, shape, strict=True)
        ]
        values = labels.read(tuple(ends))
        missing = is_unlabeled(values, unlabeled)
        if missing is not None:
            values = np.where(missing, 0, values)
        source, target = edge_slices(values.shape, offset)
        same = (values[source] == values[target]) & (values[source] > 0)
        chunk[row] = 0
        chunk[(row, *map(slice, same.shape))] = np.where(same, 255, 0)
