"""Axis legend and array types, written once.

Notation:
    x y z  spatial axes, in the order in which NISB stores them on disk
    c      image channels, or affinity channels (one per offset)
    b      samples of a batch
    n      skeleton nodes        e  skeleton edges        t  thresholds

Host volumes are `[x y z]`, images `[x y z c]`, affinities `[c x y z]`, device batches
`[b x y z c]`. Affinity channel i at voxel v is the edge from v to v + offset_i
(source-stored, as BANIS); any other order or convention becomes a view in one reader or
one writer. Voxel sizes and skeleton positions are in nm.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from jaxtyping import Bool, Float32, Integer, Shaped, UInt64
from ml_collections import ConfigDict
from numpy import ndarray

Triple = tuple[int, int, int]
FloatTriple = tuple[float, float, float]

# The whole configuration is called `config` everywhere, a part of it `section`.
if TYPE_CHECKING:  # to pyright a key is of any of the types that values have
    Config: TypeAlias = Any
    Section: TypeAlias = Any
else:
    Config = Section = ConfigDict

# Names of keys of `decode`, and values that count instead of the configuration's.
DecodeValues = Mapping[str, float | int | Sequence[str]]

Image = Shaped[ndarray, "x y z c"]
Labels = Integer[ndarray, "x y z"]
Mask = Bool[ndarray, "x y z"]
Affinities = Shaped[ndarray, "c x y z"]  # float16, float32, or uint8 = value / 255

NodeSegmentsByThreshold = UInt64[ndarray, "t n"]

Weights = Float32[ndarray, "x y z"]  # of a window, for blending
