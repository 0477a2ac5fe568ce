"""Neurites of a few samples, for tests of what is made from centre lines."""

import numpy as np

from nisbjax.synth import tissue

SIZE_NM = (9.0, 9.0, 12.0)
THIN = tissue.Tissue(median_radius=50.0, radius_range=(36.0, 90.0), defects=(3, 2))


def line(positions, parents, numbers):
    """Neurites of radius 60 nm through given voxels."""
    n = len(parents)
    return tissue.Neurites(
        position=np.array(positions) * np.array(SIZE_NM),
        radius=np.full(n, 60.0),
        parent=np.array(parents),
        neurite=np.array(numbers),
        axis=np.tile([1.0, 0.0, 0.0], (n, 1)),
        flatness=np.zeros(n),
        organelle=np.zeros(n),
    )
