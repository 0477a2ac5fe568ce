"""What a voxel of made-up neuropil looks like, and its label: kernels over a box.

Membranes are drawn where two neurites are equally near in units of their radii, and fade
beside thin ones. Grey values vary by hashes of the place (`hashing`). NISB paints with a
diffusion model in one piece.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np

from nisbjax.synth import hashing
from nisbjax.synth.hashing import kernel


@no_type_check
@kernel
def _nearest(segment, x, y, z, away):
    """Fills `away`, from the nearest point of a segment.

    Returns:
      the scaled distance, and how far along the segment the point lies, 0 to 1.
    """
    dx, dy, dz = x - segment[0], y - segment[1], z - segment[2]
    vx, vy, vz = segment[3], segment[4], segment[5]
    t = (dx * vx + dy * vy + dz * vz) / (vx * vx + vy * vy + vz * vz + 1e-9)
    t = min(max(t, 0.0), 1.0)
    away[0], away[1], away[2] = dx - t * vx, dy - t * vy, dz - t * vz
    along = away[0] * segment[8] + away[1] * segment[9] + away[2] * segment[10]
    square = away[0] * away[0] + away[1] * away[1] + away[2] * away[2]
    radius = segment[6] + t * (segment[7] - segment[6])
    return math.sqrt(square + segment[11] * along * along) / radius, t


@no_type_check
@kernel
def _subtract_gradient(segment, scaled, radius, away, out):
    """Of the scaled distance; the change of radius along the line is left out.

    Returns:
      the length of what is then in `out`.
    """
    along = away[0] * segment[8] + away[1] * segment[9] + away[2] * segment[10]
    square = 0.0
    for a in range(3):
        value = away[a] + segment[11] * along * segment[8 + a]
        out[a] = value / (radius * radius * scaled + 1e-9) - out[a]
        square += out[a] * out[a]
    return math.sqrt(square) + 1e-9


class Look(NamedTuple):
    """What neuropil looks like before the microscope; fields of `Tissue`.

    Attributes:
      extracellular: scaled distance at which the space between neurites begins.
      gap: nm between a label and the middle of its membrane.
      membrane: its half width at 1/e of its contrast, nm.
      contrast: of membranes, and of the space between neurites.
      fade: share of its contrast that the membrane of the thinnest neurite loses.
      thinnest, thickest: radii, nm.
      texture, spread: of grey values within and between neurites.
      vesicles: share of cells of 5^3 voxels with a dark dot.
      brightness: mean grey value.
    """

    extracellular: float
    gap: float
    membrane: float
    contrast: float
    fade: float
    thinnest: float
    thickest: float
    texture: float
    spread: float
    vesicles: float
    brightness: float


@no_type_check
@kernel
def paint(segments, first, second, start, size, seed, look):
    """The sharp image, and labels that end `look.gap` nm before the membrane's middle.

    Args:
      segments, first, second: see `domains.rasterize`.
      start: Int64[3], first voxel of the box.
      size: Float64[3], of a voxel, nm.
      seed: of the cube.
      look: `Look`.

    Returns:
      Float32[x y z] grey values, Int32[x y z] labels (neurites may still share a face).
    """
    shape = first.shape
    image = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.int32)
    away, slope = np.zeros(3), np.zeros(3)
    brightness_key, dot_key = (
        hashing.key(seed, hashing.BRIGHTNESS),
        hashing.key(seed, hashing.DOTS),
    )
    fine_key, coarse_key = (
        hashing.key(seed, hashing.FINE),
        hashing.key(seed, hashing.COARSE),
    )
    patch_key = hashing.key(seed, hashing.PATCHES)
    dark = look.brightness * (1 - look.contrast)
    for i in range(shape[0]):
        x = (start[0] + i) * size[0]
        for j in range(shape[1]):
            y = (start[1] + j) * size[1]
            for k in range(shape[2]):
                z = (start[2] + k) * size[2]
                if first[i, j, k] < 0:
                    image[i, j, k] = dark
                    continue
                segment = segments[first[i, j, k]]
                shade, distance, calibre = _membrane(
                    segments, segment, second[i, j, k], x, y, z, look, away, slope
                )
                if distance >= look.gap:
                    labels[i, j, k] = int(segment[14])
                identity = np.int64(segment[14])
                level = hashing.normal(hashing.bits(brightness_key, identity, 0, 0))
                value = look.brightness * max(1 + 0.5 * look.spread * level, 0.4)
                # White here, speckle once blurred.
                site = hashing.bits(fine_key, start[0] + i, start[1] + j, start[2] + k)
                grain = 0.9 * hashing.normal(site)
                grain += hashing.smooth(coarse_key, x / 80, y / 80, z / 80)
                value *= shade * max(1 + look.texture * grain, 0.2)
                value *= _vesicle_shade(
                    dot_key, start[0] + i, start[1] + j, start[2] + k, look.vesicles
                )
                thin = 1 - min((calibre - look.thinnest) / (0.4 * look.thickest), 1.0)
                patch = hashing.smooth(patch_key, x / 60, y / 60, z / 60)
                depth = look.contrast * (1 - look.fade * thin) * (1 + 0.2 * patch)
                profile = math.exp(-((distance / look.membrane) ** 2))
                image[i, j, k] = value * (1 - depth * profile)
    return image, labels


@no_type_check
@kernel
def _membrane(segments, segment, rival_row, x, y, z, look, away, slope):
    """Shade of an organelle, distance to the membrane's middle, radius of the thinner side.

    `away` and `slope` are room for vectors; `rival_row` is below 0 where nobody is near.
    """
    scaled, t = _nearest(segment, x, y, z, away)
    radius = segment[6] + t * (segment[7] - segment[6])
    slope[0] = slope[1] = slope[2] = 0.0
    steep = _subtract_gradient(segment, scaled, radius, away, slope)
    # Organelles lie beside the centre line, across the flattened axis.
    organelle = segment[12] + t * (segment[13] - segment[12])
    shade = 1.0
    if organelle > 0.1:
        shade = _organelle_shade(segment, away, radius, organelle)
    # First-order distance to where the scaled distance meets its rival.
    distance = (look.extracellular - scaled) / steep
    calibre = radius
    if rival_row >= 0:
        other = segments[rival_row]
        rival, t = _nearest(other, x, y, z, away)
        radius = other[6] + t * (other[7] - other[6])
        steep = _subtract_gradient(other, rival, radius, away, slope)
        distance = min(distance, (rival - scaled) / steep)
        calibre = min(calibre, radius)
    return shade, distance, calibre


@no_type_check
@kernel
def _vesicle_shade(seed, x, y, z, share):
    """Dark dots, at most one in each cell of 5 x 5 x 5 voxels, off its faces."""
    dot = hashing.bits(seed, x // 5, y // 5, z // 5)
    if hashing.unit(dot) >= share:
        return 1.0
    dx = x % 5 - 1 - int(dot % np.uint64(3))
    dy = y % 5 - 1 - int((dot >> np.uint64(2)) % np.uint64(3))
    dz = z % 5 - 1 - int((dot >> np.uint64(4)) % np.uint64(3))
    return 1 - 0.55 * math.exp(-0.6 * (dx * dx + dy * dy + dz * dz))


@no_type_check
@kernel
def _organelle_shade(segment, away, radius, share):
    """1 outside an organelle, darker inside, darkest at its rim."""
    vx, vy, vz = segment[3], segment[4], segment[5]
    length = math.sqrt(vx * vx + vy * vy + vz * vz) + 1e-9
    ux, uy, uz = segment[8], segment[9], segment[10]
    beside = 0.3 * radius / length
    dx = away[0] - beside * (vy * uz - vz * uy)
    dy = away[1] - beside * (vz * ux - vx * uz)
    dz = away[2] - beside * (vx * uy - vy * ux)
    scaled = math.sqrt(dx * dx + dy * dy + dz * dz) / (share * radius)
    rim = math.exp(-((math.fabs(scaled - 1) * share * radius / 12) ** 2))
    inside = 1 / (1 + math.exp(12 * (scaled - 1)))
    return 1 - 0.35 * inside - 0.2 * rim
