"""What the truth itself scores in a volume, so that a NERL is read against what it could be.

The labels of the volume, cut into their connected components there, are scored like any
segmentation: a neurite that leaves the volume and comes back is two pieces even to them.
BANIS and PyTC print a NERL as if 1 could be reached.
"""

from collections.abc import Callable

import numpy as np

from nisbjax.evaluate import nerl
from nisbjax.skeletons import Skeletons
from nisbjax.store import regions
from nisbjax.store.formats import is_there
from nisbjax.store.volume import Volume, open_labels

# Of the labels of a volume and voxels x y z: the component of its label at each voxel.
Components = Callable[[Volume, np.ndarray], np.ndarray]


def ceiling(
    skeletons: Skeletons, dense: str, segmentation: Volume, components: Components
) -> tuple[dict[str, float | int], str]:
    """Scores of the labels' components at the nodes, or a sentence on why there are none.

    Args:
      skeletons: as far as the segmentation covers them (`nodes.in_region`).
      dense: path of the volume's labels; "" for none.
      segmentation: whose region of the volume counts.
      components: gives the component of its label at each voxel.

    Returns:
      nerl_ceiling and nerl_mean_ceiling, and ""; or nothing, and the sentence.

    Raises:
      InputError: labels that cannot be read.
    """
    if not dense or not is_there(dense):
        return {}, (
            "no ceiling: no dense labels of the volume are there (evaluate.label names them)"
        )
    labels = open_labels(dense)
    _, shape = regions.region_of(segmentation)
    if labels.spatial_shape != shape:
        return {}, (
            f"no ceiling: {dense} has shape {labels.spatial_shape}, and the volume {shape}"
        )
    part = regions.part_like(labels, segmentation)
    best = nerl.score(skeletons, components(part, skeletons.index_position))
    return {
        "nerl_ceiling": best["nerl"],
        "nerl_mean_ceiling": best["nerl_mean"],
    }, ""
