"""From affinities to neurons in two steps: mutex components, then contested growth.

Fragments are made by evidence for and against (`mutex_components`), which is nearly always
right and leaves much on background; those large enough to be trusted then grow into it,
except where two of them come equally near (`contested_growth`); what touches another may be
taken back (`shave`). Neither PyTC nor BANIS
goes beyond the connected components above a threshold.

The volume is in memory here; `streamed.chain` does the same box by box.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt

from nisbjax.decode import contested_growth, mutex_components, numbering, shave
from nisbjax.decode.agglomeration.composition import JoinParameters
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.segment_counts import without_small
from nisbjax.errors import InputError
from nisbjax.typing import Affinities, Labels, Triple

LEAST = 2  # voxels of a fragment


@dataclasses.dataclass(frozen=True)
class GrowthParameters(JoinParameters):
    """What decides what becomes of fragments; joins come before growth.

    Attributes:
      anchor: voxels of the smallest fragment that grows.
      low: a fragment grows along affinities above this.
      margin: by which no other fragment may come closer; else a voxel stays background.
      shave: voxels that segments lose where they touch, as `shave.shaved`.
    """

    anchor: int = 20
    low: float = 0.45
    margin: float = 0.03
    shave: int = 0

    def counting(self) -> dict[str, Any]:
        """The parameters that decide something, by their names."""
        own = {name: getattr(self, name) for name in ("anchor", "low", "margin")}
        return own | self.joining() | ({"shave": self.shave} if self.shave else {})


@dataclasses.dataclass(frozen=True)
class ChainParameters(GrowthParameters):
    """What decides which voxels are one neuron.

    Attributes:
      attract: logit above which edges to the next voxel attract.
      repel: logit below which long ones repel.
    """

    attract: float = 0.2
    repel: float = 0.8

    def counting(self) -> dict[str, Any]:
        return {"attract": self.attract, "repel": self.repel, **super().counting()}


def chain_affinities(
    affinities: Affinities,
    offsets: Sequence[Triple],
    parameters: ChainParameters,
    *,
    edges: MaskedEdges | None = None,
) -> Labels:
    """Segments of a volume in memory.

    Args:
      affinities: [c x y z], the edges to the next voxel along x, y and z first.
      offsets: of the channels, in voxels; those three positive.
      parameters: of both steps.
      edges: which of them count; all, stored at their source, where None.

    Returns:
      [x y z] labels 1..N in C order of first voxels, 0 = background.

    Raises:
      InputError: as `mutex_components` and `contested_growth`; or joins are asked for.
    """
    if parameters.ways:
        raise InputError(
            "a volume in memory is decoded without joins; use chain_volume"
        )
    edges = edges or MaskedEdges()
    labels = fragments(affinities, offsets, parameters, edges)
    without_small(labels, parameters.anchor)
    labels = grown(affinities[:3], labels, parameters, edges)
    labels = shave.shaved(labels, parameters.shave)
    table = np.zeros(int(labels.max(initial=0)) + 1, labels.dtype)
    numbering.renumber(labels.reshape(-1), table)
    return labels


def fragments(
    affinities: Affinities,
    offsets: Sequence[Triple],
    parameters: ChainParameters,
    edges: MaskedEdges,
) -> UInt[np.ndarray, "x y z"]:
    """Mutex components of two voxels or more, 1..N in C order of first voxels."""
    labels = mutex_components.mutex_components(
        affinities,
        offsets,
        attract=parameters.attract,
        repel=parameters.repel,
        edges=edges,
    )
    without_small(labels, LEAST)
    return labels


def grown(
    affinities: Affinities,
    labels: Labels,
    parameters: ChainParameters,
    edges: MaskedEdges,
) -> Labels:
    """Labels grown into background by their three shortest edges."""
    return contested_growth.contested_growth(
        affinities, labels, parameters.low, parameters.margin, edges=edges
    )


def check(dtype: np.dtype, parameters: ChainParameters) -> None:
    """Refuses parameters that mean nothing.

    Raises:
      InputError: naming one.
    """
    for name in ("attract", "repel"):
        value = getattr(parameters, name)
        if not math.isfinite(value):
            raise InputError(f"decode.{name} is {value}; wanted a finite logit")
    if parameters.anchor < 1:
        raise InputError(
            f"decode.anchor is {parameters.anchor}; wanted 1 or more voxels"
        )
    contested_growth.check(dtype, parameters.low, parameters.margin)
    parameters.check_joins()
    shave.check(parameters.shave)


def check_channels(offsets: Sequence[Triple]) -> None:
    """Refuses affinities without an edge that could repel.

    Raises:
      InputError: naming a decoder that needs none.
    """
    if len(offsets) < 4:
        raise InputError(
            f"decode.method=chain got affinities of {len(offsets)} channels; wanted "
            "long-range ones too, --config.predict.channels=(0,1,2,3,4,5), or "
            "--config.decode.method=chain3, which takes three"
        )
