"""The skeletons of one box, by kimimaro's TEASAR (Sato et al. 2000, doi 10.1109/PCCGA.2000.883951).

kimimaro's own joining of chunks (`postprocess`) moves and cuts what it finds; here a box
leaves its nodes as voxels, so that neighbours meet exactly. Somata are traced like thick
neurites: kimimaro's way with them fills their holes, and nodes would leave their label.
"""

import dataclasses
import importlib.util
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, Integer

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.skeletonize.boxes import SharedBox
from nisbjax.store import files, npy
from nisbjax.store.unlabeled import is_unlabeled
from nisbjax.store.volume import Volume
from nisbjax.typing import FloatTriple

BYTES_PER_VOXEL = 45  # 38 at the peak, of labels of 64 bits; docs/performance.md
_NO_SOMA = 1e30  # nm; a radius that none has


class BoxSkeletons(NamedTuple):
    """What one box found: n nodes, e edges, k labels.

    Attributes:
      node_id: label of each node.
      index: its voxel in the volume, x y z.
      radius_nm: distance from there to the end of its label.
      edges: rows of two nodes.
      label: those of the voxels that the box owns, ascending, without background.
      voxels: how many of them.
    """

    node_id: Int64[np.ndarray, " n"]
    index: Int64[np.ndarray, "n 3"]
    radius_nm: Float32[np.ndarray, " n"]
    edges: Int64[np.ndarray, "e 2"]
    label: Int64[np.ndarray, " k"]
    voxels: Int64[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True)
class Teasar:
    """How far a path clears its surroundings: `scale` times its radius plus `const_nm`.

    Branches that do not reach beyond are not traced.
    """

    scale: float
    const_nm: float

    def parameters(self) -> dict[str, float]:
        """In kimimaro's words, with its defaults for the penalty of the border."""
        return {
            "scale": self.scale,
            "const": self.const_nm,
            "pdrf_scale": 100_000,
            "pdrf_exponent": 4,
            "soma_detection_threshold": _NO_SOMA,
            "soma_acceptance_threshold": _NO_SOMA,
            "soma_invalidation_scale": 1.0,
            "soma_invalidation_const": 0.0,
        }


@dataclasses.dataclass(frozen=True)
class BoxSkeletonizer:
    """`skeletonizer(box)` reads a box and returns its skeletons; picklable.

    Attributes:
      labels: [x y z].
      teasar: how.
      voxel_size_nm: x y z.
      unlabeled: labels that say nothing, see `unlabeled.parse_codes`.
    """

    labels: Volume
    teasar: Teasar
    voxel_size_nm: FloatTriple
    unlabeled: str

    def __call__(self, box: SharedBox) -> BoxSkeletons:
        values = self.labels.read(box.read)
        missing = is_unlabeled(values, self.unlabeled)
        if missing is not None:
            values = np.where(missing, values.dtype.type(0), values)
        own = values[box.own.relative_to(box.read.start).slices]
        label, voxels = np.unique(own, return_counts=True)
        if len(label) and int(label[-1]) >= 1 << 63:
            raise InputError(
                f"{self.labels.source} holds the label {int(label[-1])}, which does not "
                "fit int64; number it again, or say that it is none with "
                f"--config.data.unlabeled={int(label[-1])}"
            )
        kept = label != 0
        found = trace(values, box.read, self.teasar, self.voxel_size_nm)
        return BoxSkeletons(*found, label[kept].astype(np.int64), voxels[kept])


def trace(
    labels: Integer[np.ndarray, "x y z"],
    box: Box,
    teasar: Teasar,
    voxel_size_nm: FloatTriple,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """node_id, index, radius_nm and edges of the labels of a box, as `BoxSkeletons`.

    Every node is a voxel of its label. Each label's parts in the box have a tree each; one
    of a single voxel has none.
    """
    import kimimaro

    skeletons = {}
    if labels.any():
        skeletons = kimimaro.skeletonize(
            labels,
            teasar_params=teasar.parameters(),
            anisotropy=voxel_size_nm,
            dust_threshold=0,
            fix_borders=True,
            progress=False,
            parallel=1,
        )
    size = np.asarray(voxel_size_nm)
    node_id, index, radius, edges = [], [], [], []
    count = 0
    for label in sorted(skeletons):
        found = skeletons[label]
        nodes = len(found.vertices)
        node_id.append(np.full(nodes, int(label), np.int64))
        index.append(np.rint(found.vertices / size).astype(np.int64))
        radius.append(found.radii.astype(np.float32))
        edges.append(found.edges.astype(np.int64) + count)
        count += nodes
    return (
        np.concatenate([np.zeros(0, np.int64), *node_id]),
        np.concatenate([np.zeros((0, 3), np.int64), *index]) + np.array(box.start),
        np.concatenate([np.zeros(0, np.float32), *radius]),
        np.concatenate([np.zeros((0, 2), np.int64), *edges]),
    )


def require_installed() -> None:
    """Refuses to begin without kimimaro.

    Raises:
      InputError: saying how to install it.
    """
    if importlib.util.find_spec("kimimaro") is None:
        raise InputError(
            "--mode=skeletonize needs kimimaro; pip install 'nisbjax[skeletons]'"
        )


def save(found: BoxSkeletons, path: str) -> None:
    """Writes the skeletons of a box to an npz, durably."""
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **found._asdict())


def load(path: str) -> BoxSkeletons:
    """The skeletons of a box, as `save` wrote them."""
    with npy.Archive(path) as archive:
        return BoxSkeletons(**archive.all())
