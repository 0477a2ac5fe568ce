"""The methods of decoding: what each takes, and what it refuses before it begins.

PyTC names decoders in a registry of functions with keywords of their own; here all are
called alike, and a method says which keys of `decode` it takes besides.
"""

import dataclasses
from collections.abc import Callable

from nisbjax.decode.segment_counts import SegmentCounts
from nisbjax.decode.streamed.labeling import check_affinities, label_volume
from nisbjax.decode.whole import check_grow, check_mutex, grow_volume, mutex_volume
from nisbjax.errors import InputError, require_choice
from nisbjax.parallel.cluster import check_cluster
from nisbjax.typing import Section


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to decode.

    Attributes:
      decode: takes affinities, output, threshold, and what all methods share by name.
      check: takes affinities, threshold, `memory_gb` and parameters; refuses what `decode`
        would refuse, before anything is written.
      parameters: keys of `decode` that both take besides, under the same names.
      streamed: whether volumes may exceed memory, and boxes may go to a cluster.
    """

    decode: Callable[..., SegmentCounts]
    check: Callable[..., None]
    parameters: tuple[str, ...] = ()
    streamed: bool = False


METHODS = {
    "affinity_cc": Method(label_volume, check_affinities, streamed=True),
    "grow": Method(
        grow_volume, check_grow, ("low_threshold", "min_seed", "grow_margin")
    ),
    "mutex": Method(mutex_volume, check_mutex, ("low_threshold",)),
}


def check_keys(section: Section, cluster: Section) -> None:
    """Refuses keys that mean nothing, before there is a prediction to decode.

    Args:
      section: `decode`.
      cluster: `cluster`, for a method that is streamed.

    Raises:
      InputError: naming the key.
    """
    require_choice("decode.method", section.method, METHODS)
    method = METHODS[section.method]
    for name in ("threshold", *method.parameters):
        value = section[name]
        if name.endswith("threshold") and not 0 <= value <= 1:  # NaN too
            raise InputError(f"decode.{name} is {value}; wanted a number in [0, 1]")
    if section.min_size < 0:
        raise InputError(
            f"decode.min_size is {section.min_size}; wanted 0 or more voxels"
        )
    if method.streamed:
        check_cluster(cluster.kind, cluster.address)
