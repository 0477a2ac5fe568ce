"""What label erosion leaves of a volume, for each reading of its axes.

    python tests/benchmarks/bench_erosion.py [LABELS]

Prints, for radii 1 and 2: faces between two objects that still touch, across x, y and z;
the share of labeled voxels set to background; the share of positives among the edges of
offsets 1 and 10. "training" is `legacy` averaged over the six axis permutations that
training draws; validation is not permuted. Numbers in docs/differences.md are of the FIB-25
validation block, the default where it lies beside the project.
"""

import itertools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from nisbjax.data.affinities import affinity_targets
from nisbjax.data.labels import erode, erosion_triple
from nisbjax.offsets import OFFSETS_6
from nisbjax.store.volume import open_labels

DEFAULT = "shared/data/fib25/val/seed1/data.zarr/seg"


def touching(labels: np.ndarray) -> list[int]:
    faces = []
    for axis in range(3):
        first, second = np.delete(labels, -1, axis), np.delete(labels, 0, axis)
        faces.append(int(((first != second) & (first > 0) & (second > 0)).sum()))
    return faces


def facts(labels: np.ndarray, eroded: np.ndarray) -> np.ndarray:
    targets, valid = map(
        np.asarray, affinity_targets(jnp.asarray(eroded[None]), OFFSETS_6)
    )
    positive = [targets[..., c][valid[..., c]].mean() for c in range(6)]
    lost = ((labels > 0) & (eroded == 0)).sum() / (labels > 0).sum()
    return np.array([*touching(eroded), lost, *positive])


def main() -> None:
    default = pathlib.Path(__file__).parents[3] / DEFAULT
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    if not path.exists():
        print(f"no labels at {path}; name a volume")
        return
    labels = open_labels(path).read().astype(np.int32)
    jitted = jax.jit(erode, static_argnames="erosion")

    def after(volume: np.ndarray, erosion) -> np.ndarray:
        return np.asarray(jitted(jnp.asarray(volume[None]), erosion)[0])

    print(f"{path}: {labels.shape}, faces that touch {touching(labels)}")
    for radius in (1, 2):
        rows = {}
        for axes in ("legacy", "xy", "xyz"):
            erosion = erosion_triple((0, radius, radius), axes)
            rows[f"{axes} {erosion}"] = facts(labels, after(labels, erosion))
        permuted = [
            after(labels.transpose(p), (0, radius, radius)).transpose(np.argsort(p))
            for p in itertools.permutations(range(3))
        ]
        rows["legacy, training"] = np.mean([facts(labels, e) for e in permuted], 0)
        for name, row in rows.items():
            faces = " ".join(f"{n:6.0f}" for n in row[:3])
            shares = " ".join(f"{n:.3f}" for n in row[3:])
            print(f"{name:20} touching {faces}  lost and positive {shares}")


if __name__ == "__main__":
    main()
