"""Which channel of a file is which edge: by its `offsets`, not by its place.

Files of LSD and funlib hold their channels in the order z y x, others store edges at their
destination or name them by negative offsets, and a prediction may hold long-range channels
alone. PyTC takes the first three channels for x, y and z whatever they are; here every
decoder and the sweep of tuning get a view whose channels are selected by what the file says,
and a file that lacks an edge they need is refused.
"""

from collections.abc import Iterator

import numpy as np
import tensorstore as ts
from absl import logging

from nisbjax.errors import InputError
from nisbjax.offsets import OFFSETS_6, SHORT_RANGE, parse_offsets
from nisbjax.store import verified
from nisbjax.store.chunk_headers import ChunkHeaders
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple


def short_range(affinities: Volume, edge_offset: int = 0) -> tuple[Volume, int]:
    """The edges to the next voxel along x, y and z, as channels 0, 1 and 2.

    The edge of offset (-1, 0, 0) that is stored at v joins v - 1 and v: it is the edge
    along +x stored at its destination. Where some of the three are stored at their source
    and others at their destination, the latter are moved to their source, and the edge
    that leaves the volume is 0.

    Args:
      affinities: [c x y z]. Without the attribute `offsets` its channels 0-2 are taken for
        +x, +y and +z, and it is returned as it is.
      edge_offset: 0 where the file stores edges at their source, 1 at the destination.

    Returns:
      A lazy view [3 x y z] (the volume itself where its channels 0-2 are these), and its
      own edge offset.

    Raises:
      InputError: fewer than three channels, `offsets` that mean nothing, or an edge that
        is not there.
    """
    offsets = offsets_of(affinities)
    if offsets is None:
        require_channels(affinities, 3)
        return affinities, edge_offset
    chosen = _neighbours(affinities, offsets)
    if tuple(offsets[c] for c in chosen) == SHORT_RANGE and chosen == [0, 1, 2]:
        return affinities, edge_offset
    backward = [offsets[c] not in SHORT_RANGE for c in chosen]
    at_destination = [bool(edge_offset) ^ turned for turned in backward]
    mixed = len(set(at_destination)) > 1
    if mixed:
        alone = [affinities.store[channel] for channel in chosen]
        for axis in np.flatnonzero(at_destination):
            alone[axis] = _moved_to_source(alone[axis], int(axis))
        store = ts.stack(alone)
    else:
        store = _select(affinities, chosen)
    found = 0 if mixed else int(at_destination[0])
    view = _view(affinities, store, SHORT_RANGE, found)
    if mixed and affinities.guard is not None:
        view.guard = _MovedGuard(affinities.guard, affinities.store, chosen)
    return view, found


def with_long_range(
    affinities: Volume, edge_offset: int = 0
) -> tuple[Volume, tuple[Triple, ...]]:
    """All edges, those to the next voxel along x, y and z first, and their offsets.

    Args:
      affinities: [c x y z] with the attribute `offsets`.
      edge_offset: of the file; also of the view.

    Returns:
      A lazy view, and the offset of each of its channels, of either sign. An edge to the
      next voxel that the file holds twice is there once.

    Raises:
      InputError: as `short_range`, or no `offsets` are named.
    """
    offsets = offsets_of(affinities)
    if offsets is None:
        raise InputError(
            f"{affinities.source} does not name the offsets of its channels"
        )
    chosen = _neighbours(affinities, offsets)
    chosen += [
        channel
        for channel, offset in enumerate(offsets)
        if offset is not None and np.abs(offset).sum() > 1
    ]
    found = tuple(offset for c in chosen if (offset := offsets[c]) is not None)
    store = _select(affinities, chosen)
    return _view(affinities, store, found, edge_offset), found


def with_offsets(affinities: Volume) -> tuple[Volume, tuple[Triple, ...]]:
    """As `with_long_range`; by the offsets that BANIS trains where the file names none.

    Raises:
      InputError: as there, or fewer than three channels.
    """
    if offsets_of(affinities) is None:
        require_channels(affinities, 3)
        return affinities, OFFSETS_6[: affinities.shape[0]]
    return with_long_range(affinities)


def offsets_of(affinities: Volume) -> tuple[Triple | None, ...] | None:
    """Offsets of the channels, x y z, None for one without; None where the file names none.

    Raises:
      InputError: the attribute `offsets` is no list of triples, one for each channel.
    """
    value = affinities.attributes.get("offsets")
    if value is None:
        return None
    order = "".join(a for a in affinities.stored_axes if a in "xyz") or "xyz"
    try:
        return parse_offsets(value, affinities.shape[0], order)
    except InputError as problem:
        raise InputError(f"{affinities.source}: {problem}") from None


def require_channels(affinities: Volume, count: int) -> None:
    """Refuses a file of fewer channels.

    Raises:
      InputError: naming the file and its channels.
    """
    if affinities.shape[0] < count:
        raise InputError(
            f"{affinities.source} has {affinities.shape[0]} channel(s); wanted at least "
            f"{count}, the edges on x, y and z"
        )


def _neighbours(affinities: Volume, offsets: tuple[Triple | None, ...]) -> list[int]:
    """The channels of the edges along x, y and z, +1 rather than -1."""
    chosen, missing = [], []
    for axis, unit in zip("xyz", SHORT_RANGE, strict=True):
        x, y, z = unit
        both = [
            c for o in (unit, (-x, -y, -z)) for c, p in enumerate(offsets) if p == o
        ]
        chosen += both[:1]
        missing += [axis] * (not both)
    if missing:
        held = ", ".join(str(o) for o in offsets if o is not None) or "no edges"
        raise InputError(
            f"{affinities.source} holds {held} by its attribute offsets; wanted the edge "
            f"to the next voxel along {' and '.join(missing)} too: predict it, "
            "--config.predict.channels=(0,1,2) or more, or mend the attribute"
        )
    if chosen != [0, 1, 2]:
        logging.info(
            "%s: channels %s are the edges along x, y and z", affinities.source, chosen
        )
    return chosen


def _select(affinities: Volume, channels: list[int]) -> ts.TensorStore:
    if channels == list(range(affinities.shape[0])):
        return affinities.store
    first = channels[0]
    if channels == list(range(first, first + len(channels))):
        # A slice, whose chunks are still known along the axis of channels.
        part = affinities.store[first : first + len(channels)]
        return part.translate_to[(0,) * affinities.rank]
    return affinities.store[ts.d[0][channels]]


def _moved_to_source(channel: ts.TensorStore, axis: int) -> ts.TensorStore:
    """Edges stored at their destination, one voxel before; the last ones leave: 0."""
    shape = list(channel.shape)
    last = shape[axis] - 1
    inside = ts.d[axis]
    shape[axis] = 1
    outside = ts.array(np.zeros(shape, channel.dtype.numpy_dtype))
    outside = outside[inside.translate_by[last]]
    if not last:
        return outside
    return ts.overlay([channel[inside[1:]][inside.translate_to[0]], outside])


class _MovedGuard(verified.Guard):
    """Compares the chunks of a view whose channels were moved by one voxel."""

    def __init__(
        self,
        guard: verified.Guard | ChunkHeaders,
        store: ts.TensorStore,
        channels: list[int],
    ):
        self._guard, self._store, self._channels = guard, store, channels

    def __reduce__(self):
        return _MovedGuard, (self._guard, self._store, self._channels)

    def before(self, part: ts.TensorStore) -> None:
        for read in self._read_for(part):
            self._guard.before(read)

    def check(self, part: ts.TensorStore) -> None:
        for read in self._read_for(part):
            self._guard.check(read)

    def _read_for(self, part: ts.TensorStore) -> Iterator[ts.TensorStore]:
        """What a part of the view is read from: at most one voxel further."""
        box = [
            slice(along.inclusive_min, min(along.exclusive_max + 1, size))
            for along, size in zip(part.domain[-3:], self._store.shape[1:], strict=True)
        ]
        for channel in self._channels:
            yield self._store[channel, *box]


def _view(
    affinities: Volume,
    store: ts.TensorStore,
    offsets: tuple[Triple, ...],
    edge_offset: int,
) -> Volume:
    attributes = {
        **affinities.attributes,
        "axes": list(affinities.axes),
        "offsets": [list(offset) for offset in offsets],
        "edge_stored_at": ("source", "destination")[edge_offset],
    }
    view = affinities.view(store)
    view.attributes, view.stored_axes = attributes, ""
    return view
