"""What a voxel of made-up neuropil looks like, and its label: kernels over a box.

Membranes are drawn where two neurites are equally near in units of their radii, and fade
beside thin ones. Randomness is a hash (SplitMix64: Steele, Lea and Flood, OOPSLA 2014)
of global voxels or of neurites' numbers, so a box made alone has the bytes that it has
inside a larger one. NISB paints with a diffusion model in one piece.

The kernels share this module: numba's cache does not see a changed callee elsewhere.
"""

import math
from typing import NamedTuple, no_type_check

import numba
import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
# Streams of random numbers.
_BRIGHTNESS, _DOTS, _FINE, _COARSE, _PATCHES, _NOISE, _DRIFT, _RING = range(8)

_kernel = numba.njit(nogil=True, cache=True, error_model="numpy")


@no_type_check
@_kernel
def _mix(value):
    """Scrambles 64 bits: a bijection in which each bit depends on all."""
    value = np.uint64(value)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@no_type_check
@_kernel
def _key(seed, stream):
    """A fresh stream's key, from another's."""
    return _mix(np.uint64(seed) + _STEP * (np.uint64(stream) + np.uint64(1)))


@no_type_check
@_kernel
def _bits(seed, x, y, z):
    """64 random bits of a lattice site; coordinates may be negative."""
    value = _mix(np.uint64(seed) + _STEP * np.uint64(x))
    value = _mix(value + _STEP * np.uint64(y))
    return _mix(value + _STEP * np.uint64(z))


@no_type_check
@_kernel
def _unit(value):
    """[0, 1) from the high 53 bits."""
    return np.float64(value >> np.uint64(11)) * 2.0**-53


@no_type_check
@_kernel
def _normal(value):
    """About standard normal, |.| < 3.5: four 16-bit numbers added (Irwin and Hall)."""
    low = np.uint64(0xFFFF)
    total = np.float64(value & low) + np.float64((value >> np.uint64(16)) & low)
    total += np.float64((value >> np.uint64(32)) & low)
    total += np.float64(value >> np.uint64(48))
    # The sum of four uniform numbers has mean 2 and variance 1/3.
    return (total / 65536.0 - 2.0) * math.sqrt(3.0)


@no_type_check
@_kernel
def _smooth(seed, x, y, z):
    """Value noise in [-1, 1] at a point given in lattice units, once differentiable."""
    x0, y0, z0 = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - x0, y - y0, z - z0
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    i, j, k = np.int64(x0), np.int64(y0), np.int64(z0)
    total = 0.0
    for a in range(2):
        p = u if a else 1 - u
        for b in range(2):
            q = v if b else 1 - v
            for c in range(2):
                r = w if c else 1 - w
                total += p * q * r * _unit(_bits(seed, i + a, j + b, k + c))
    return 2.0 * total - 1.0


@no_type_check
@_kernel
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
@_kernel
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


class Exposure(NamedTuple):
    """What the microscope and the edge of the slab add; fields of `Tissue`.

    Attributes:
      drift: of the background, as a share.
      noise: standard deviation, grey values.
      brightness: mean grey value of tissue.
      halo: the widest that the dark ring becomes, voxels.
      background: grey value of the ring.
      low_defects, high_defects: defective planes at the low and high z faces.
    """

    drift: float
    noise: float
    brightness: float
    halo: int
    background: float
    low_defects: int
    high_defects: int


@no_type_check
@_kernel
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
    brightness_key, dot_key = _key(seed, _BRIGHTNESS), _key(seed, _DOTS)
    fine_key, coarse_key = _key(seed, _FINE), _key(seed, _COARSE)
    patch_key = _key(seed, _PATCHES)
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
                level = _normal(_bits(brightness_key, identity, 0, 0))
                value = look.brightness * max(1 + 0.5 * look.spread * level, 0.4)
                # White here, speckle once blurred.
                site = _bits(fine_key, start[0] + i, start[1] + j, start[2] + k)
                grain = 0.9 * _normal(site)
                grain += _smooth(coarse_key, x / 80, y / 80, z / 80)
                value *= shade * max(1 + look.texture * grain, 0.2)
                value *= _vesicle_shade(
                    dot_key, start[0] + i, start[1] + j, start[2] + k, look.vesicles
                )
                thin = 1 - min((calibre - look.thinnest) / (0.4 * look.thickest), 1.0)
                patch = _smooth(patch_key, x / 60, y / 60, z / 60)
                depth = look.contrast * (1 - look.fade * thin) * (1 + 0.2 * patch)
                profile = math.exp(-((distance / look.membrane) ** 2))
                image[i, j, k] = value * (1 - depth * profile)
    return image, labels


@no_type_check
@_kernel
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
@_kernel
def _vesicle_shade(seed, x, y, z, share):
    """Dark dots, at most one in each cell of 5 x 5 x 5 voxels, off its faces."""
    dot = _bits(seed, x // 5, y // 5, z // 5)
    if _unit(dot) >= share:
        return 1.0
    dx = x % 5 - 1 - int(dot % np.uint64(3))
    dy = y % 5 - 1 - int((dot >> np.uint64(2)) % np.uint64(3))
    dz = z % 5 - 1 - int((dot >> np.uint64(4)) % np.uint64(3))
    return 1 - 0.55 * math.exp(-0.6 * (dx * dx + dy * dy + dz * dz))


@no_type_check
@_kernel
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


@no_type_check
@_kernel
def _ring_width(seed, x, y, z, halo):
    """Of the dark ring beside this voxel: halo / 2 to halo voxels, slowly varying."""
    return halo * (0.75 + 0.25 * _smooth(seed, x / 24, y / 24, z / 24))


@no_type_check
@_kernel
def _in_ring(seed, x, y, z, shape, halo):
    face = min(min(x, shape[0] - 1 - x), min(y, shape[1] - 1 - y))
    return face < halo and face < _ring_width(seed, x, y, z, halo)


@no_type_check
@_kernel
def expose(image, start, shape, seed, exposure):
    """Uneven background, noise, defective planes and the dark ring; then bytes.

    Args:
      image: Float32[x y z], blurred.
      start: Int64[3], its first voxel in the cube.
      shape: Int64[3], of the cube.
      seed: of the cube.
      exposure: `Exposure`.
    """
    out = np.zeros(image.shape, np.uint8)
    background, brightness = exposure.background, exposure.brightness
    low, high = exposure.low_defects, exposure.high_defects
    noise_key, drift_key = _key(seed, _NOISE), _key(seed, _DRIFT)
    ring_key = _key(seed, _RING)
    for i in range(image.shape[0]):
        x = start[0] + i
        for j in range(image.shape[1]):
            y = start[1] + j
            for k in range(image.shape[2]):
                z = start[2] + k
                level = _normal(_bits(noise_key, x, y, z))
                if _in_ring(ring_key, x, y, z, shape, exposure.halo):
                    value = min(0.4 * background + 0.1 * background * level, background)
                else:
                    gain = 1 + exposure.drift * _smooth(
                        drift_key, x / 50, y / 50, z / 40
                    )
                    value = gain * image[i, j, k] + exposure.noise * level
                    if z < low or z >= shape[2] - high:
                        # Hardly any signal: dim, with little contrast and noise.
                        value = 0.42 * brightness + 0.15 * (value - brightness)
                        value += 0.4 * exposure.noise * level
                    # The ring alone is as dark as the background.
                    value = max(value, background + 1.0)
                out[i, j, k] = np.uint8(min(max(value, 0.0), 255.0) + 0.5)
    return out


@no_type_check
@_kernel
def separate(raw, low, start, shape, cube_shape, seed, exposure):
    """Labels of a box, where no two neurites share a face and something is to be seen.

    Args:
      raw: Int32, labels of the box and at least one voxel around it.
      low: where the box begins in `raw`.
      start: where it begins in the cube.
      shape: of the box.
      cube_shape: of the cube.
      seed: of the cube.
      exposure: `Exposure`.
    """
    labels = np.zeros(shape, np.int32)
    ring_key = _key(seed, _RING)
    last = cube_shape[2] - exposure.high_defects
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                x, y, z = i + low[0], j + low[1], k + low[2]
                own = raw[x, y, z]
                plane = start[2] + k
                if plane < exposure.low_defects or plane >= last:
                    continue
                if own == 0 or _in_ring(
                    ring_key,
                    start[0] + i,
                    start[1] + j,
                    plane,
                    cube_shape,
                    exposure.halo,
                ):
                    continue
                alone = True
                for side in (-1, 1):
                    a, b, c = (
                        raw[x + side, y, z],
                        raw[x, y + side, z],
                        raw[x, y, z + side],
                    )
                    alone &= (a == own or a == 0) and (b == own or b == 0)
                    alone &= c == own or c == 0
                if alone:
                    labels[i, j, k] = own
    return labels
