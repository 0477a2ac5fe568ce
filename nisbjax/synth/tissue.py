"""Made-up neuropil: its parameters, and the centre lines of a whole cube.

The tissue follows what the NISB site says of its LICONN cubes (dense neurites of widely
varying calibre); ours is set by the few numbers of `Tissue`, so that a demo needs no
download. Centre lines are made for a whole cube at once and are small beside its voxels:
100 bytes for 36 nm of neurite, which is 0.1 MB for a cubic micrometre of the default
tissue and 2 GB for a cube of 27 um (a few times that while they grow).
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.synth import growth, packing
from nisbjax.typing import FloatTriple, Triple


@dataclasses.dataclass(frozen=True)
class Tissue:
    """What the tissue and its image look like; lengths in nm, grey values in 0..255."""

    median_radius: float = 70.0
    radius_spread: float = 0.5  # of the log radius between neurites
    radius_modulation: float = 0.25  # of the log radius along one neurite
    radius_range: tuple[float, float] = (36.0, 200.0)
    persistence: float = 1500.0  # length over which a neurite forgets its direction
    branch_every: float = 2500.0
    flattening: float = 1.0  # profiles are up to sqrt(1 + this) times wider than thick
    fill: float = 0.65  # cross-sections, added up, as a share of the volume
    extracellular: float = 2.0  # a neurite ends at this many radii in free space
    gap: float = 13.0  # labels end this far from the membrane's middle
    membrane: float = 14.0  # half width at 1/e
    membrane_contrast: float = 0.66
    membrane_fade: float = 0.4  # share of the contrast lost beside the thinnest
    texture: float = 0.13
    brightness: float = 150.0
    brightness_spread: float = 0.45  # between neurites
    drift: float = 0.3  # uneven background
    organelles: float = 0.5  # the higher, the more of the thick neurites' length
    vesicles: float = 0.15  # dark dots per cell of 5 x 5 x 5 voxels
    blur_voxels: FloatTriple = (0.8, 0.8, 0.8)
    noise: float = 14.0
    halo_voxels: int = 6  # dark ring at the x and y faces, of half to all this width
    background: int = 20  # the brightest grey value of that ring
    defects: tuple[int, int] = (4, 3)  # dim planes at the low and high z face

    def __post_init__(self) -> None:
        thinnest, thickest = self.radius_range
        if not 0 < thinnest <= self.median_radius <= thickest:
            raise InputError(
                f"the tissue's radius_range is {self.radius_range} and its median_radius "
                f"{self.median_radius}; wanted 0 < thinnest <= median <= thickest [nm]"
            )
        if not 0 < self.fill <= 2:
            raise InputError(
                f"the tissue's fill is {self.fill}; wanted more than 0, up to 2"
            )

    @property
    def morphology(self) -> growth.Morphology:
        """Of its neurites."""
        names = [field.name for field in dataclasses.fields(growth.Morphology)]
        return growth.Morphology(**{name: getattr(self, name) for name in names})

    def labelled(self, shape: Triple) -> Box:
        """The part of a cube without its dark ring and defective planes.

        Raises:
          InputError: they leave less than 8 voxels along an axis.
        """
        ring, (below, above) = self.halo_voxels, self.defects
        x, y, z = shape
        box = Box((ring, ring, below), (x - ring, y - ring, z - above))
        if min(box.shape) < 8:
            raise InputError(
                f"a cube of shape {shape} with a ring of {ring} and {below} + {above} "
                "defective planes holds no tissue; wanted 8 voxels more along each axis"
            )
        return box


_SWEEPS = 40
_SHORTEST = 6  # samples; shorter pieces are crumbs, not neurites


@dataclasses.dataclass(frozen=True)
class Neurites(growth.Samples):
    """Samples of a cube's centre lines; `neurite` is 1, 2, ... as in the labels."""

    @property
    def count(self) -> int:
        return int(self.neurite.max(initial=0))


def grow_neurites(
    shape: Triple, voxel_size_nm: FloatTriple, tissue: Tissue, seed: int
) -> Neurites:
    """Centre lines for a cube of this shape: a function of the arguments alone.

    Walks start anywhere in the cube or a margin around it, until their cross-sections
    add up to `tissue.fill`; then lines that are closer than their radii push each other
    apart. Where a thin one still runs too close to another for a label to pass, it ends;
    what lies beyond is a neurite of its own, and so is what leaves the cube and returns.
    """
    extent = np.array(shape) * np.array(voxel_size_nm)
    margin = tissue.extracellular * tissue.radius_range[1]
    low, high = np.full(3, -margin), extent + margin
    samples = _fill_block(np.random.Philox(seed), low, high, tissue)
    samples = dataclasses.replace(samples, position=samples.position.copy())
    columns = (getattr(samples, name) for name in packing.Lines._fields)
    lines = packing.Lines(*columns)
    clearance = packing.pack(lines, low, high, growth.STEP_NM, _SWEEPS)
    # What passes through the dark ring or a defective plane is cut there too.
    box = tissue.labelled(shape)
    reach = 0.7 * samples.radius[:, None]
    above = samples.position > box.start * np.array(voxel_size_nm) - reach
    below = samples.position < box.stop * np.array(voxel_size_nm) + reach
    passes = clearance > tissue.gap + max(voxel_size_nm)
    return _number(samples, np.all(above & below, axis=1) & passes)


def _fill_block(
    bits: np.random.Philox,
    low: Float64[np.ndarray, "3"],
    high: Float64[np.ndarray, "3"],
    tissue: Tissue,
) -> growth.Samples:
    """Neurites, in batches, until they would fill the block."""
    rng = np.random.Generator(bits)
    wanted = tissue.fill * float(np.prod(high - low))
    # A neurite that crosses the block, of twice the median section.
    typical = 2 * np.pi * tissue.median_radius**2 * float(np.mean(high - low))
    batch_size = max(8, int(wanted / typical / 4))
    batches: list[growth.Samples] = []
    filled = 0.0
    while filled < wanted:
        batch = growth.grow(rng, batch_size, low, high, tissue.morphology)
        volume = np.bincount(batch.neurite, batch.volume_nm3, minlength=batch_size)
        enough = np.searchsorted(np.cumsum(volume), wanted - filled) + 1
        batch = _keep(batch, batch.neurite < enough)
        filled += float(volume[:enough].sum())
        batches.append(batch)
    return growth.join(batches)


def _keep(samples: growth.Samples, kept: Bool[np.ndarray, " n"]) -> growth.Samples:
    """Some samples; one whose parent is dropped becomes a root."""
    new_row = np.where(kept, np.cumsum(kept) - 1, -1)
    parent = np.where(samples.parent < 0, -1, new_row[samples.parent])
    return dataclasses.replace(samples, parent=parent).take(kept)


def _number(samples: growth.Samples, usable: Bool[np.ndarray, " n"]) -> Neurites:
    """Connected pieces of the usable samples as neurites 1, 2, ...; crumbs dropped."""
    piece = packing.number_pieces(samples.parent, usable)
    length = np.bincount(piece[usable], minlength=1)
    kept = usable & (length[piece] >= _SHORTEST)
    left = _keep(samples, kept)
    neurite = np.unique(piece[kept], return_inverse=True)[1].astype(np.int64) + 1
    return Neurites(
        left.position,
        left.radius,
        left.parent,
        neurite,
        left.axis,
        left.flatness,
        left.organelle,
    )
