"""The methods of decoding: what each takes, and what it refuses before it begins.

PyTC names decoders in a registry of functions with keywords of their own; here all are
called alike, with parameters of the method's own type, whose fields are keys of `decode`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from nisbjax.decode.chain import ChainParameters, GrowthParameters
from nisbjax.decode.grow import GrowParameters
from nisbjax.decode.mutex import MutexParameters
from nisbjax.decode.segment_counts import SegmentCounts
from nisbjax.decode.streamed.chain import chain_volume, check_chain
from nisbjax.decode.streamed.labeling import check_affinities, label_volume
from nisbjax.decode.whole import check_grow, check_mutex, grow_volume, mutex_volume
from nisbjax.errors import InputError, require_choice
from nisbjax.parallel.cluster import check_cluster
from nisbjax.store.volume import Volume
from nisbjax.typing import Section


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to decode.

    Attributes:
      decode: takes affinities, output, `parameters`, and what all methods share by name.
      check: takes affinities, `parameters` and `memory_gb`; refuses what `decode` would
        refuse, before anything is written.
      takes: type of the parameters.
      named_by: those that the name of a segmentation's file holds; none = all.
      streamed: whether volumes may exceed memory, and boxes may go to a cluster.
      long_range: whether edges beyond the next voxel are read, whatever the parameters.
    """

    decode: Callable[..., SegmentCounts]
    check: Callable[..., None]
    takes: type
    named_by: tuple[str, ...] = ()
    streamed: bool = False
    long_range: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Their names, which are those of the keys of `decode`."""
        return tuple(field.name for field in dataclasses.fields(self.takes))

    def parameters_of(self, section: Section) -> Any:
        """The parameters, of type `takes`, that `decode` holds."""
        return self.takes(**{name: section[name] for name in self.parameters})

    def reads_all(self, section: Section) -> bool:
        """Whether all channels of a prediction are read, not the three shortest alone."""
        parameters = self.parameters_of(section)
        return self.long_range or bool(getattr(parameters, "ways", ()))

    def numbers_of(self, section: Section) -> tuple[float, ...]:
        """What the name of a segmentation's file holds of them."""
        return tuple(float(section[name]) for name in self.named_by or self.parameters)


@dataclasses.dataclass(frozen=True)
class PlainParameters:
    """The key of `decode` that connected components take.

    Attributes:
      threshold: above which affinities are edges.
    """

    threshold: float


def _label(
    affinities: Volume, output: Volume, *, parameters: PlainParameters, **shared: Any
) -> SegmentCounts:
    return label_volume(affinities, output, parameters.threshold, **shared)


def _check_label(
    affinities: Volume, *, parameters: PlainParameters, memory_gb: float
) -> None:
    check_affinities(affinities, parameters.threshold, memory_gb=memory_gb)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain3Parameters(GrowthParameters):
    """The keys of `decode` that the chain takes where there are three channels.

    Attributes:
      threshold: fragments are the components of affinities above it.
    """

    threshold: float

    def counting(self) -> dict[str, Any]:
        return {"threshold": self.threshold, **super().counting()}

    @property
    def of_growth(self) -> ChainParameters:
        """Those of the steps after the first, which has none but the threshold."""
        names = [field.name for field in dataclasses.fields(GrowthParameters)]
        return ChainParameters(**{name: getattr(self, name) for name in names})


def _chain3(
    affinities: Volume, output: Volume, *, parameters: Chain3Parameters, **shared: Any
) -> SegmentCounts:
    growth, threshold = parameters.of_growth, parameters.threshold
    return chain_volume(
        affinities, output, parameters=growth, threshold=threshold, **shared
    )


def _check_chain3(
    affinities: Volume, *, parameters: Chain3Parameters, memory_gb: float
) -> None:
    growth, threshold = parameters.of_growth, parameters.threshold
    check_chain(affinities, growth, threshold=threshold, memory_gb=memory_gb)


METHODS = {
    "affinity_cc": Method(_label, _check_label, PlainParameters, streamed=True),
    "grow": Method(grow_volume, check_grow, GrowParameters),
    "mutex": Method(mutex_volume, check_mutex, MutexParameters, long_range=True),
    "chain": Method(
        chain_volume,
        check_chain,
        ChainParameters,
        ("attract", "repel"),
        streamed=True,
        long_range=True,
    ),
    "chain3": Method(
        _chain3, _check_chain3, Chain3Parameters, ("threshold",), streamed=True
    ),
}


def counting(parameters: Any) -> dict[str, Any]:
    """Parameters of any method by their names, without those that decide nothing."""
    if isinstance(parameters, GrowthParameters):
        return parameters.counting()
    return dataclasses.asdict(parameters)


def method_of(section: Section) -> Method:
    """The method of `decode`.

    Raises:
      InputError: there is none of that name.
    """
    require_choice("decode.method", section.method, METHODS)
    return METHODS[section.method]


def check_keys(section: Section, cluster: Section) -> None:
    """Refuses keys that mean nothing, before there is a prediction to decode.

    Args:
      section: `decode`.
      cluster: `cluster`, for a method that is streamed.

    Raises:
      InputError: naming the key.
    """
    method = method_of(section)
    for name in method.parameters:
        value = section[name]
        if name.endswith("threshold") and not 0 <= value <= 1:  # NaN too
            raise InputError(f"decode.{name} is {value}; wanted a number in [0, 1]")
    if section.min_size < 0:
        raise InputError(
            f"decode.min_size is {section.min_size}; wanted 0 or more voxels"
        )
    if method.streamed:
        check_cluster(cluster.kind, cluster.address)
