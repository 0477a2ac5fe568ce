"""Image and labels of any box of made-up neuropil, from its centre lines.

The box is made with a halo as wide as the blur and cut out, so its bytes are those of the
whole cube; tissue goes on beyond the cube's faces. NISB renders its segmentations with a
diffusion model instead, in one piece.
"""

import math

import numpy as np
from jaxtyping import Float32, UInt8

from nisbjax.geometry import Box
from nisbjax.synth import domains, exposure, painting
from nisbjax.synth.tissue import Neurites, Tissue
from nisbjax.typing import FloatTriple, Labels, Triple

BYTES_PER_VOXEL = 40.0  # of a box with its halo: two distances, two owners, two images


def cube_seed(seed: int, number: int) -> int:
    """The seed of one cube of a data set."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def render_box(
    neurites: Neurites,
    tissue: Tissue,
    box: Box,
    shape: Triple,
    voxel_size_nm: FloatTriple,
    seed: int,
) -> tuple[UInt8[np.ndarray, "x y z"], Labels]:
    """Image and labels of one box of a cube.

    Args:
      neurites: of the whole cube, from `grow_neurites`.
      tissue: what it looks like.
      box: which voxels; inside the cube.
      shape: of the cube, for the dark ring and the defective planes at its faces.
      voxel_size_nm: x y z.
      seed: of the cube.

    Returns:
      image: grey values.
      labels: int32, 0 between neurites and in the dark ring. Voxels of two different
        neurites never share a face.
    """
    reach = [max(len(_taps(sigma)) // 2, 1) for sigma in tissue.blur_voxels]
    halo: Triple = (reach[0], reach[1], reach[2])
    grown = box.grow(halo, halo)
    start, cube_shape = np.array(box.start), np.array(shape)
    size, bits = np.array(voxel_size_nm), np.uint64(seed)
    segments = _segments_near(neurites, grown, size, tissue.extracellular)
    owners = domains.rasterize(
        segments, np.array(grown.start), grown.shape, size, tissue.extracellular
    )
    sharp, raw = painting.paint(
        segments, *owners, np.array(grown.start), size, bits, _look(tissue)
    )
    for axis, sigma in enumerate(tissue.blur_voxels):
        sharp = _smooth(sharp, sigma, axis, halo[axis])
    added = exposure.Exposure(
        tissue.drift,
        tissue.noise,
        tissue.brightness,
        tissue.halo_voxels,
        tissue.background,
        *tissue.defects,
    )
    image = exposure.expose(sharp, start, cube_shape, bits, added)
    labels = exposure.separate(
        raw, np.array(halo), start, box.shape, cube_shape, bits, added
    )
    return image, labels


def _taps(sigma: float) -> np.ndarray:
    """A normalised Gaussian, cut at 3 sigma."""
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def _smooth(
    values: Float32[np.ndarray, "x y z"], sigma: float, axis: int, margin: int
) -> Float32[np.ndarray, "i j k"]:
    """A Gaussian along one axis of what lies `margin` voxels off its two ends.

    Sums run in one order, so the result does not depend on the size of the array, as that
    of scipy's filters may.
    """
    weights = _taps(sigma)
    first = margin - len(weights) // 2
    size = values.shape[axis] - 2 * margin
    shape = [size if a == axis else n for a, n in enumerate(values.shape)]
    total = np.zeros(shape, np.float32)
    part = [slice(None)] * 3
    for tap, weight in enumerate(weights):
        part[axis] = slice(first + tap, first + tap + size)
        total += weight * values[tuple(part)]
    return total


def _look(tissue: Tissue) -> painting.Look:
    return painting.Look(
        tissue.extracellular,
        tissue.gap,
        tissue.membrane,
        tissue.membrane_contrast,
        tissue.membrane_fade,
        *tissue.radius_range,
        tissue.texture,
        tissue.brightness_spread,
        tissue.vesicles,
        tissue.brightness,
    )


def _segments_near(neurites, box, size, extracellular):
    """The segments that may reach into a box, in a fixed order; `domains.COLUMNS`."""
    a = np.flatnonzero(neurites.parent >= 0)
    b = neurites.parent[a]
    reach = extracellular * np.maximum(neurites.radius[a], neurites.radius[b])
    low, high = box.start * size, (np.array(box.stop) - 1) * size
    ends = neurites.position[a], neurites.position[b]
    near = np.all(np.maximum(*ends) + reach[:, None] >= low, 1)
    near &= np.all(np.minimum(*ends) - reach[:, None] <= high, 1)
    a, b = a[near], b[near]
    return np.column_stack(
        [
            neurites.position[a],
            neurites.position[b] - neurites.position[a],
            neurites.radius[a],
            neurites.radius[b],
            neurites.axis[a],
            neurites.flatness[a],
            neurites.organelle[a],
            neurites.organelle[b],
            neurites.neurite[a],
        ]
    )
