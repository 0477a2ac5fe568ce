"""Centre lines before packing: persistent random walks that branch.

A walk keeps its direction over a persistence length (a worm-like chain: Kratky and Porod
1949), its calibre fluctuates around a lognormal one of its own, and branches leave it at
random places. All walks of a batch advance together, one step of 36 nm at a time. NISB's
neurites follow branch statistics of real neurons instead.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64, Int64

STEP_NM = 36.0
_GENERATIONS = 4  # a neurite, its branches, theirs, ...


@dataclasses.dataclass(frozen=True)
class Morphology:
    """What neurites look like before packing; see the fields of `Tissue`, nm."""

    median_radius: float
    radius_spread: float
    radius_modulation: float
    radius_range: tuple[float, float]
    persistence: float
    branch_every: float
    flattening: float
    organelles: float


@dataclasses.dataclass(frozen=True)
class Samples:
    """Points of centre lines; the one before it on its neurite comes before each.

    Attributes:
      position: nm; voxel v of an axis lies at v times the voxel size.
      radius: nm, across the direction that is not flattened.
      parent: row of the sample before it, or -1 at the root of a neurite.
      neurite: which samples belong together.
      axis: unit vector along which the profile is flattened.
      flatness: k in the squared distance d^2 + k (d . axis)^2.
      organelle: radius of an organelle at this sample as a share of `radius`, or 0.
    """

    position: Float64[np.ndarray, "n 3"]
    radius: Float64[np.ndarray, " n"]
    parent: Int64[np.ndarray, " n"]
    neurite: Int64[np.ndarray, " n"]
    axis: Float64[np.ndarray, "n 3"]
    flatness: Float64[np.ndarray, " n"]
    organelle: Float64[np.ndarray, " n"]

    @property
    def volume_nm3(self) -> Float64[np.ndarray, " n"]:
        return np.pi * self.radius**2 * STEP_NM / np.sqrt(1 + self.flatness)

    def take(self, rows: Bool[np.ndarray, " n"]) -> "Samples":
        """Some of the samples; their `parent` still counts all."""
        return dataclasses.replace(
            self, **{name: value[rows] for name, value in _columns(self).items()}
        )


def _columns(samples: Samples) -> dict[str, np.ndarray]:
    return {f.name: getattr(samples, f.name) for f in dataclasses.fields(samples)}


def join(batches: list[Samples]) -> Samples:
    """Batches one after another; rows and neurites are counted on."""
    rows = neurites = 0
    shifted = []
    for batch in batches:
        parent = np.where(batch.parent < 0, -1, batch.parent + rows)
        shifted.append(
            dataclasses.replace(batch, parent=parent, neurite=batch.neurite + neurites)
        )
        rows += len(batch.radius)
        neurites += int(batch.neurite.max(initial=-1)) + 1
    columns = [_columns(batch) for batch in shifted]
    return Samples(**{n: np.concatenate([c[n] for c in columns]) for n in columns[0]})


@dataclasses.dataclass
class _Walks:
    """Walks that advance together; one row each."""

    position: np.ndarray
    direction: np.ndarray
    radius: np.ndarray
    length: np.ndarray  # nm still to go
    parent: np.ndarray
    neurite: np.ndarray
    axis: np.ndarray
    flatness: np.ndarray

    def __len__(self) -> int:
        return len(self.radius)

    def take(self, rows: np.ndarray) -> "_Walks":
        return _Walks(**{name: value[rows] for name, value in vars(self).items()})


def grow(
    rng: np.random.Generator,
    count: int,
    low: Float64[np.ndarray, "3"],
    high: Float64[np.ndarray, "3"],
    morphology: Morphology,
) -> Samples:
    """`count` neurites that start anywhere between `low` and `high` and end there.

    Args:
      rng: all randomness; two generators in the same state give the same neurites.
      count: of neurites.
      low, high: corners of the block of tissue, nm.
      morphology: of the neurites.

    Returns:
      Their samples, 36 nm apart.
    """
    walks = _first_walks(rng, count, low, high, morphology)
    splitting = STEP_NM / morphology.branch_every
    thinnest = morphology.radius_range[0]
    batches: list[Samples] = []
    rows = 0
    for _ in range(_GENERATIONS):
        samples = _advance(rng, walks, low, high, rows, morphology)
        batches.append(samples)
        splits = rng.random(len(samples.radius)) < splitting
        walks = _branches(rng, samples, np.flatnonzero(splits), rows, thinnest)
        rows += len(samples.radius)
        if not len(walks):
            break
    columns = [_columns(batch) for batch in batches]
    return Samples(**{n: np.concatenate([c[n] for c in columns]) for n in columns[0]})


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)


def _first_walks(rng, count: int, low, high, morphology: Morphology) -> _Walks:
    """Two walks from each neurite's root, in opposite directions."""
    spread = morphology.radius_spread * rng.standard_normal(count)
    radius = morphology.median_radius * np.exp(spread)
    direction = _unit(rng.standard_normal((count, 3)))
    half = _Walks(
        low + (high - low) * rng.random((count, 3)),
        direction,
        np.clip(radius, *morphology.radius_range),
        np.full(count, np.inf),
        np.full(count, -1),
        np.arange(count),
        _unit(rng.standard_normal((count, 3))),
        morphology.flattening * rng.random(count),
    )
    both = half.take(np.tile(np.arange(count), 2))
    both.direction[count:] *= -1
    # The second walk begins one step behind the first one's root, which is row i.
    both.parent[count:] = np.arange(count)
    return both


def _branches(rng, samples: Samples, rows, first_row: int, thinnest: float) -> _Walks:
    """Short twigs and long branches, thinner than what they leave."""
    count = len(rows)
    radius = samples.radius[rows] * (0.45 + 0.45 * rng.random(count))
    length = samples.radius[rows] + 400 * np.exp(1.2 * rng.standard_normal(count))
    return _Walks(
        samples.position[rows],
        _unit(rng.standard_normal((count, 3))),
        np.maximum(radius, thinnest),
        length,
        rows + first_row,
        samples.neurite[rows],
        samples.axis[rows],
        samples.flatness[rows],
    )


def _advance(
    rng, walks: _Walks, low, high, first_row: int, morphology: Morphology
) -> Samples:
    """Steps every walk until it leaves the block or has its length."""
    live = walks.take(np.arange(len(walks)))
    modulation = morphology.radius_modulation
    wiggle = modulation * rng.standard_normal(len(live))
    organelle_at = np.zeros(len(live), int)
    organelle_length = np.zeros(len(live), int)
    turn = np.sqrt(2 * STEP_NM / morphology.persistence)
    rows = first_row
    steps: list[tuple[np.ndarray, ...]] = []
    first = True
    while len(live):
        # A root stands where it was drawn; every other sample is one step from its parent.
        moving = ~(first & (live.parent < 0))
        live.position = live.position + STEP_NM * moving[:, None] * live.direction
        stay = np.all((live.position >= low) & (live.position <= high), axis=1)
        stay &= live.length > 0
        live = live.take(stay)
        wiggle, organelle_at = wiggle[stay], organelle_at[stay]
        organelle_length = organelle_length[stay]
        count = len(live)

        wiggle = 0.93 * wiggle + 0.37 * modulation * rng.standard_normal(count)
        radius = np.clip(live.radius * np.exp(wiggle), *morphology.radius_range)
        inward = np.sum(live.axis * live.direction, axis=1, keepdims=True)
        live.axis = _unit(live.axis - inward * live.direction)
        begins = (organelle_at >= organelle_length) & (radius > 80)
        begins &= rng.random(count) < morphology.organelles / 10
        drawn = 5 + rng.integers(0, 12, count)
        organelle_length = np.where(begins, drawn, organelle_length)
        organelle_at = np.where(begins, 1, organelle_at + 1)
        phase = np.clip(organelle_at / (organelle_length + 1), 0, 1)
        organelle = 0.45 * np.sqrt(np.abs(np.sin(np.pi * phase)))
        organelle[phase == 1] = 0

        steps.append(
            (live.position, radius, live.parent, live.neurite, live.axis,
             live.flatness, organelle)
        )  # fmt: skip
        live.parent = np.arange(rows, rows + count)
        rows += count
        live.length = live.length - STEP_NM
        noise = rng.standard_normal((count, 3))
        live.direction = _unit(live.direction + turn * noise)
        first = False
    return Samples(*(np.concatenate(column) for column in zip(*steps, strict=True)))
