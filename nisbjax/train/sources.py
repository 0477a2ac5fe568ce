"""Where training crops come from: one or several sources, each with keys of its own.

A source is read by the section `data` with what it says itself in place of that: nothing
below knows whether there is one or several. PyTC mixes data sets by lists of paths, all of one
recipe; BANIS reads one.
"""

import itertools
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

from nisbjax.data import labels, nisb
from nisbjax.data.nisb import Pair
from nisbjax.data.normalization import Normalization
from nisbjax.errors import InputError
from nisbjax.keys.checks import optional
from nisbjax.typing import Config, Section, Triple

# Of one volume and its place, which `data.train` says where there are no sources.
_OF_TRAIN = ("image", "label", "axes", "box", "mask", "label_offset")


class Source(NamedTuple):
    """Volumes that are read by the same keys.

    Attributes:
      name: "" where `data.train` or `data.val` itself is meant.
      data: the section `data`, as it holds for them.
      weight: share of the samples, against those of the others.
    """

    name: str
    data: Section
    weight: float = 1.0


def sources_of(config: Config, split: str = "train") -> list[Source]:
    """The sources of a split; one without a name where `data.train.sources` is empty.

    Args:
      config: keys `data`, which were checked.
      split: `train` or `val`, of which there is one.
    """
    if split != "train" or not config.data.train.sources:
        return [Source("", config.data)]
    found = []
    for name, *said in config.data.train.sources:
        keys = dict(said)
        data = config.copy_and_resolve_references().data.unlock()
        weight = float(keys.pop("weight", 1.0))
        for key, value in keys.items():
            (data.train if key in _OF_TRAIN else data)[key] = value
        found.append(Source(name, data.lock(), weight))
    return found


def shares(
    sources: Sequence[Source], pairs: Sequence[Sequence[Pair]]
) -> list[list[float]]:
    """The probability of each volume to be drawn from, sources first.

    Args:
      sources: whose weights count, and `data.sampling` within each.
      pairs: their volumes.
    """
    whole = sum(source.weight for source in sources)
    found = []
    for source, own in zip(sources, pairs, strict=True):
        share = source.weight / whole
        voxels = [math.prod(pair.labels.spatial_shape) for pair in own]
        if source.data.sampling == "uniform":
            voxels = [1] * len(own)
        found.append([share * n / sum(voxels) for n in voxels])
    return found


def erosions(config: Config, split: str = "train") -> list[Triple]:
    """Radii by which labels are eroded, each once: those of `data` itself first.

    Raises:
      InputError: as `labels.erosion_triple`.
    """
    every = [config.data, *(source.data for source in sources_of(config, split))]
    return list(dict.fromkeys(map(_radii, every)))


def _radii(data: Section) -> Triple:
    return labels.erosion_triple(data.erosion, data.erosion_axes)


def open_source(
    source: Source, split: str, in_channels: int, *, box: bool = True
) -> list[Pair]:
    """The volumes of a source as they lie, to be looked at.

    Args:
      source: of `sources_of`.
      split: `train` or `val`.
      in_channels: of the network.
      box: False for all of each volume, whatever the box.

    Raises:
      InputError: data are missing, or do not fit one another or the model.
    """
    return _opened(source, split, in_channels, source.data[split].box if box else "")


def open_normalized(
    config: Config, split: str, kept: str | os.PathLike = ""
) -> tuple[list[Pair], list[float]]:
    """The volumes of all sources as a loader takes them, and their shares of the samples.

    Args:
      config: keys `data` and `model`.
      split: `train` or `val`.
      kept: folder of the statistics that images are scaled by; "" for memory alone.

    Returns:
      Pairs; their shares, () where `data.sampling` alone decides.

    Raises:
      InputError: as `open_source`, or an image does not suit its normalization.
    """
    every, radii = sources_of(config, split), erosions(config, split)
    found = []
    for source in every:
        box = source.data[split].box
        normalization = Normalization.of(source.data, kept)
        pairs = _opened(source, split, config.model.in_channels, box, normalization)
        number, codes = radii.index(_radii(source.data)), source.data.unlabeled
        found.append([p._replace(erosion=number, unlabeled=codes) for p in pairs])
    together = list(itertools.chain(*found))
    if len(every) == 1:
        return together, []
    return together, list(itertools.chain(*shares(every, found)))


def _opened(
    source: Source,
    split: str,
    in_channels: int,
    box: str,
    normalization: Normalization | None = None,
) -> list[Pair]:
    data = source.data[split]
    for key in ("image", "label"):
        if not optional(data[key]):
            without = ", or set --config.train.val_every=0" * (split == "val")
            raise InputError(
                f"data.{split}.{key} is empty; name the volumes with "
                f"--config.data.{split}.{key}=FILE{without}"
            )
    pairs = _pairs(data, source.data.root, box, normalization)
    for pair in pairs:
        if pair.image.shape[-1] != in_channels:
            raise InputError(
                f"{pair.image.source} has {pair.image.shape[-1]} channels, "
                f"model.in_channels is {in_channels}; wanted the same"
            )
    return pairs


def _pairs(
    section: Section, root: str, box: str, normalization: Normalization | None
) -> list[Pair]:
    """What the keys of a split name."""
    trained_on = "mask" in section  # the test volume has neither it nor the next
    return nisb.open_pairs(
        root,
        section.image,
        section.label,
        box,
        section.axes,
        normalization,
        optional(section.mask) if trained_on else "",
        optional(section.label_offset) if trained_on else "",
    )


def describe_sources(
    sources: Sequence[Source], pairs: Sequence[Sequence[Pair]]
) -> list[str]:
    """A line for each of several sources: what it has, and its share of the samples."""
    whole = sum(source.weight for source in sources)
    lines = []
    for source, own in zip(sources, pairs, strict=True):
        voxels = sum(math.prod(pair.labels.spatial_shape) for pair in own)
        data = source.data
        lines.append(
            f"source {source.name}: {source.weight / whole:.0%} of the samples, from "
            f"{len(own)} volume{'s' * (len(own) > 1)} of {voxels / 1e6:.3g} M voxels; "
            f"{data.normalize}{' by slice' * (data.normalize_per == 'slice')}"
            f"{', inverted' * data.invert}, erosion {','.join(map(str, data.erosion))}"
        )
    return lines
