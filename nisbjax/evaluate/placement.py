"""Whether skeletons lie where a volume's labels lie: a look at some nodes.

A skeleton of another volume, or one whose axes are turned, scores like a network that learnt
nothing. PyTC and BANIS score it.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int64, Integer

from nisbjax.evaluate import nodes
from nisbjax.skeletons import Skeletons
from nisbjax.store.unlabeled import is_unlabeled
from nisbjax.store.volume import Volume

_NODES = 2000  # that are looked at; each may cost a chunk
_ENOUGH = 0.9  # of the nodes, on the label of most of their skeleton


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where nodes lie among labels.

    Attributes:
      looked_at: nodes, of `nodes`, without those where nobody vouches for the labels.
      nodes: of all skeletons.
      skeletons: how many of them have nodes that were looked at.
      background: share of nodes on label 0.
      together: share of nodes on the label on which most of their skeleton lies.
      same_id: share of nodes on a label with the number of their skeleton.
    """

    looked_at: int
    nodes: int
    skeletons: int
    background: float
    together: float
    same_id: float

    @property
    def fits(self) -> bool:
        return self.together >= _ENOUGH

    def __str__(self) -> str:
        return (
            f"{self.looked_at} of {self.nodes} nodes of {self.skeletons} skeletons: "
            f"{self.together:.0%} on the label of most of their skeleton, "
            f"{self.background:.0%} on background, {self.same_id:.0%} on the label of "
            "their own number"
        )


def placement(found: Skeletons, labels: Volume, unlabeled: str) -> Placement | None:
    """Looks at up to 2,000 nodes, evenly over all.

    Args:
      found: the skeletons, all inside the volume.
      labels: [x y z].
      unlabeled: values that nobody vouches for, see `unlabeled.parse_codes`.

    Returns:
      None where no node is on labels that anybody vouches for.
    """
    count = len(found.node_id)
    if not count:
        return None
    rows = np.unique(np.linspace(0, count - 1, min(count, _NODES)).astype(np.int64))
    some = Skeletons(
        found.node_id[rows],
        found.index_position[rows],
        found.position_nm[rows],
        np.zeros((0, 2), np.int64),
        found.source,
    )
    at_nodes = nodes.read_node_segments(labels, some)
    nobody = is_unlabeled(at_nodes, unlabeled)
    known = np.ones(len(rows), bool) if nobody is None else ~nobody
    if not known.any():
        return None
    ids, at_nodes = some.node_id[known], at_nodes[known]
    return Placement(
        looked_at=len(ids),
        nodes=count,
        skeletons=len(np.unique(ids)),
        background=float(np.mean(at_nodes == 0)),
        together=float(np.mean(_on_main_label(ids, at_nodes))),
        same_id=float(np.mean(at_nodes.astype(np.int64) == ids)),
    )


def turned(found: Skeletons) -> Skeletons:
    """The same with its voxel indices read as z y x."""
    return dataclasses.replace(found, index_position=found.index_position[:, ::-1])


def _on_main_label(
    ids: Int64[np.ndarray, " n"], labels: Integer[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Of each node, whether it lies on the label that most nodes of its skeleton lie on."""
    result = np.zeros(len(ids), bool)
    for skeleton in np.unique(ids):
        own = ids == skeleton
        values, counts = np.unique(labels[own & (labels > 0)], return_counts=True)
        if len(values):
            result |= own & (labels == values[counts.argmax()])
    return result
