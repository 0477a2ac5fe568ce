"""One conversion that is not begun: what is read, and how it will be written.

Everything that can be refused is refused here, by names and shapes alone.
"""

import dataclasses
import math
import os
import pathlib
from typing import Any, Literal

import numpy as np
import tensorstore as ts

from nisbjax.convert import attributes, sending
from nisbjax.convert.formats import Format, format_of, require_type
from nisbjax.convert.pyramid import Level, levels
from nisbjax.errors import InputError, require_choice
from nisbjax.store import axes as axes_lib
from nisbjax.store import extras, places, software, voxel_size
from nisbjax.store.address import is_address, local_path
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.places import Address, Place
from nisbjax.store.volume import (
    Volume,
    open_affinities,
    open_image,
    open_labels,
    open_volume,
)
from nisbjax.typing import Section, Triple

KINDS = ("auto", "image", "labels", "affinities")
_LABEL_TYPES = ("uint32", "uint64", "int32", "int64")  # of no image that we know of
_CHUNK = (64, 64, 64)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was checked.

    Attributes:
      source: the input, x y z, x y z c or c x y z.
      path: of the output, or where it lies while it is made.
      sent_to: the address that it is sent to; None for an output of this machine.
      format: of the output.
      order: of its axes, as they are stored.
      kind: `image`, `labels` or `affinities`.
      dtype: of the output.
      chunks: x y z; of the files where there are shards.
      inner: chunks inside shards; None without.
      compression: one of the format's.
      levels: the finest, and those of the pyramid.
      voxel_size_nm: of the finest, x y z; None where nobody says.
      attributes: of the finest.
      made_from: what determines the output's content.
      memory_bytes: that one box and its reduction may take.
    """

    source: Volume
    path: pathlib.Path
    sent_to: Address | None
    format: Format
    order: str
    kind: str
    dtype: np.dtype
    chunks: Triple
    inner: Triple | None
    compression: str
    levels: list[Level]
    voxel_size_nm: list[float] | None
    attributes: dict[str, Any]
    made_from: dict[str, Any]
    memory_bytes: float

    @property
    def output(self) -> Place:
        """Where it is in the end."""
        return self.sent_to or self.path

    @property
    def channels(self) -> int:
        """Of the output; 1 where it has no such axis."""
        return (
            self.source.shape[self.source.axes.index("c")]
            if "c" in self.source.axes
            else 1
        )

    @property
    def reduction(self) -> Literal["mode", "mean"]:
        """How voxels become one: TensorStore's word."""
        whole = self.kind == "labels" or self.dtype.kind == "b"
        return "mode" if whole else "mean"

    def in_order(self, spatial: Triple, channels: int) -> tuple[int, ...]:
        """Numbers along the output's axes, of those along x, y and z and of channels."""
        by_axis = {**dict(zip("xyz", spatial, strict=True)), "c": channels}
        return tuple(by_axis[a] for a in self.order)

    def chunk_channels(self) -> int:
        """Channels in a chunk: each alone where they come first."""
        return 1 if self.order.startswith("c") else self.channels

    def size_of(self, level: Level) -> list[float] | None:
        """Voxels of a scale x y z [nm]."""
        if self.voxel_size_nm is None:
            return None
        return [s * f for s, f in zip(self.voxel_size_nm, level.factors, strict=True)]

    def attributes_of(self, level: Level) -> dict[str, Any]:
        """What the array of a scale says of itself."""
        size = self.size_of(level)
        return {
            "axes": list(self.order),
            **attributes.of_scale(self.attributes, level),
            **({voxel_size.KEY: size} if size else {}),
            "software": software.NAME,
        }


def plan(section: Section, source: str, path: str, records: str = ".") -> Plan:
    """Looks at the input and at what is asked for; writes nothing.

    Args:
      section: `convert`.
      source: path of a volume.
      path: of the output.
      records: the folder for what lies here of an output at an address.

    Raises:
      InputError: an input that cannot be read, or a key without meaning for the format.
    """
    require_choice("convert.kind", section.kind, KINDS)
    sent_to = sending.address_of(path) if is_address(path) else None
    target = sending.folder_of(sent_to, records) if sent_to else local_path(path)
    _require_elsewhere(source, sent_to or target)
    form = format_of(sent_to or target, section.format, section.downsample)
    if sent_to and form.is_file:
        raise InputError(
            f"{sent_to} is to be {form.title}, a single file, and at an address only chunks "
            "are written; wanted zarr, N5 or precomputed, or a path of this machine"
        )
    if form.extra[0]:
        extras.imported(*form.extra, target)
    volume, kind = _opened(axes_lib.with_axes(source, section.axes), section.kind)
    require_chunks_fit(volume, section.memory_gb)
    if section.downsample:
        _require_scales(form, section.kind, volume)
    dtype = _dtype(section.dtype, volume, kind)
    require_type(form, volume.source, dtype)
    size = _voxel_size(section, volume, form)
    chunks, inner = _chunks(section, form)
    compression = _compression(section.compression, form, kind, dtype)
    order = _order(section.order, form, volume)
    made_from = {
        "input": fingerprint(axes_lib.with_axes(source, section.axes)),
        "convert.format": form.name,
        "convert.kind": kind,
        "convert.order": order,
        "convert.dtype": dtype.name,
        "convert.chunks": list(inner or chunks),
        "convert.shards": list(chunks) if inner else [],
        "convert.compression": compression,
        "convert.downsample": section.downsample,
        "convert.voxel_size_nm": size,
    }
    return Plan(
        volume,
        target,
        sent_to,
        form,
        order,
        kind,
        dtype,
        chunks,
        inner,
        compression,
        levels(volume.spatial_shape, size, section.downsample),
        size,
        attributes.of_input(volume, order, bool(len(section.voxel_size_nm))),
        made_from,
        section.memory_gb * 1e9,
    )


def _require_elsewhere(source: str, target: Place) -> None:
    """Refuses to write over the input, or into it."""
    if is_address(source) != isinstance(target, Address):
        return
    read, write = axes_lib.split_path(source)[0], str(target)
    if isinstance(target, Address):
        read = str(places.parse(read))
    else:
        read, write = os.path.realpath(read), os.path.realpath(write)
    if read == write or write.startswith(f"{read}/") or read.startswith(f"{write}/"):
        raise InputError(f"{target} is the input, {source}; name another output")


def _opened(path: str, kind: str) -> tuple[Volume, str]:
    """The input by what it holds; its axes are x y z, x y z c or c x y z."""
    if kind == "labels":
        return open_labels(path), kind
    if kind == "affinities":
        return open_affinities(path), kind
    if kind == "image":
        volume = open_image(path)
        return _without_channel(volume), kind
    found = open_volume(path)
    if "c" not in found.axes:
        volume = open_volume(path, axes="xyz")
        return volume, "labels" if volume.dtype.name in _LABEL_TYPES else "image"
    if found.axes.startswith("c") and (
        found.shape[0] > 1 or "offsets" in found.attributes
    ):
        volume = open_volume(path, axes="cxyz")
        is_image = volume.dtype.kind != "f"
        return volume, "image" if is_image else "affinities"
    volume = _without_channel(open_volume(path, axes="xyzc"))
    is_labels = volume.rank == 3 and volume.dtype.name in _LABEL_TYPES
    return volume, "labels" if is_labels else "image"


def _without_channel(volume: Volume) -> Volume:
    if volume.axes != "xyzc" or volume.shape[3] > 1:
        return volume
    return volume.view(volume.store[..., 0], "xyz")


def _require_scales(form: Format, kind: str, volume: Volume) -> None:
    if not form.has_scales:
        raise InputError(
            f"convert.downsample asks for a pyramid, which {form.title} has none of; wanted "
            "OME-Zarr, precomputed or N5, or convert.downsample 0"
        )
    small = volume.dtype.kind in "iu" and volume.dtype.itemsize <= 2
    if kind == "auto" and small:
        raise InputError(
            f"{volume.source} holds {volume.dtype}, which may be grey values or labels, and "
            "they are reduced in different ways; say --config.convert.kind=image or labels"
        )


def _dtype(named: str, volume: Volume, kind: str) -> np.dtype:
    """Of the output; labels may become a narrower type, and are looked at when copied."""
    if not named:
        return volume.dtype
    wanted = np.dtype(named)
    integers = volume.dtype.kind in "iu" and wanted.kind in "iu"
    if integers and kind == "labels":
        return wanted
    # numpy calls 64 bits to float64 safe, which holds whole numbers to 2^53 alone.
    rounded = volume.dtype.name in ("int64", "uint64") and wanted.kind == "f"
    if rounded or not np.can_cast(volume.dtype, wanted, "safe"):
        other = (
            "; of labels, any integer type (convert.kind=labels)" if integers else ""
        )
        raise InputError(
            f"convert.dtype is {named}, which does not hold every {volume.dtype} of "
            f"{volume.source}; wanted a type that does{other}"
        )
    return wanted


def _voxel_size(section: Section, volume: Volume, form: Format) -> list[float] | None:
    if len(section.voxel_size_nm):
        return [float(s) for s in section.voxel_size_nm]
    found = volume.attributes.get(voxel_size.KEY)
    if found is not None:
        return voxel_size.require_sizes(volume.source, voxel_size.KEY, found, 3)
    if form.name == "precomputed":
        raise InputError(
            f"{volume.source} does not say its voxel size, and precomputed needs one; give "
            "it, x y z in nm: --config.convert.voxel_size_nm=9,9,30"
        )
    return None


def _chunks(section: Section, form: Format) -> tuple[Triple, Triple | None]:
    """Chunks that are written at once, and those inside them where they are shards."""
    x, y, z = section.chunks or _CHUNK
    if not section.shards:
        return (x, y, z), None
    if not form.has_shards:
        raise InputError(
            f"convert.shards is {tuple(section.shards)}, and {form.title} has none; wanted "
            "zarr3 or ome-zarr-0.5, or no shards"
        )
    sx, sy, sz = section.shards
    if any(s % c for s, c in zip((sx, sy, sz), (x, y, z), strict=True)):
        raise InputError(
            f"convert.shards is {(sx, sy, sz)}; wanted multiples of convert.chunks, "
            f"{(x, y, z)}"
        )
    return (sx, sy, sz), (x, y, z)


def _compression(named: str, form: Format, kind: str, dtype: np.dtype) -> str:
    segments = dtype.name in ("uint32", "uint64")
    if named == "auto":
        fits = form.name == "precomputed" and kind == "labels" and segments
        return "compressed_segmentation" if fits else form.compressions[0]
    if named not in form.compressions:
        raise InputError(
            f"convert.compression is {named}, which {form.title} has not; wanted one of "
            f"auto, {', '.join(form.compressions)}"
        )
    if named == "compressed_segmentation" and not segments:
        raise InputError(
            f"convert.compression is {named}, for uint32 and uint64 alone, and the output is "
            f"{dtype.name}; set convert.dtype to uint32, or another compression"
        )
    return named


def _order(named: str, form: Format, volume: Volume) -> str:
    """Axes of the output as they are stored."""
    if not named:
        if form.order is None:
            return volume.axes
        return form.order[0 if "c" in volume.axes else 1]
    if form.order is not None:
        raise InputError(
            f"convert.order is {named}, and axes of {form.title} have an order of their "
            "own; leave it out"
        )
    if sorted(named) != sorted(volume.axes):
        raise InputError(
            f"convert.order is {named}, and {volume.source} has the axes "
            f"{' '.join(volume.axes)}; wanted each of them once"
        )
    return named


def in_order(store: ts.TensorStore, found: str, wanted: str) -> ts.TensorStore:
    """A view with its axes in another order."""
    return store[ts.d[tuple(found.index(a) for a in wanted)].transpose[:]]


def bytes_a_voxel(plan: Plan, level: Level) -> float:
    """That a box of a scale takes: what is read (twice, one ahead) and what is written."""
    one = plan.channels * max(plan.dtype.itemsize, plan.source.dtype.itemsize)
    return float(one * (2 * math.prod(level.step) + 2))
