"""A volume: any array file as one `tensorstore.TensorStore` with its attributes.

Files are opened by `formats` (zarr, N5 and precomputed natively, HDF5, npy, TIFF and slices
as views), so that a volume pickles as a specification and reopens in a worker. Axis order is settled
here and nowhere else: a file whose attributes name another order is transposed lazily,
where PyTC guesses the channel axis from its length.
"""

import functools
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import axes as axes_lib
from nisbjax.store import (
    chunk_headers,
    formats,
    sent_chunks,
    stored,
    turned,
    verified,
    zarr_output,
)
from nisbjax.store.places import Address
from nisbjax.store.reading import Guard, Reading
from nisbjax.typing import Triple

_MOST_CHANNELS = (
    32  # of affinities; more are planes of an array whose channels come last
)

Index = Box | tuple[Any, ...] | Any


class Volume:
    """An array with named axes, wherever it is stored.

    Attributes:
      store: the array, read and written asynchronously.
      attributes: what the file says of itself (axes, voxel size, offsets, ...).
      source: path of the file, for messages and provenance.
      axes: one letter for each dimension: x y z, x y z c, or c x y z.
      stored_axes: those that the file itself names, in the order in which it is stored;
        "" where it names none. Vectors among its attributes may follow that order.
      guard: compares its chunk files before they are believed; None where nobody knows
        what they should hold. Reads go through it (`read`, `read_channel`, `start_read`).
    """

    def __init__(
        self,
        store: ts.TensorStore,
        axes: str,
        attributes: Mapping[str, Any] | None = None,
        source: str = "memory",
        stored_axes: str = "",
        guard: Guard | None = None,
    ):
        if len(axes) != store.rank:
            raise InputError(
                f"{source} has shape {tuple(store.shape)}; wanted the axes "
                f"{' '.join(axes)}"
            )
        self.store = store
        self.axes = axes
        self.attributes = dict(attributes or {})
        self.source = source
        self.stored_axes = stored_axes
        self.guard = guard

    def __repr__(self) -> str:
        return f"Volume({self.source!r}, {self.axes}, {self.shape}, {self.dtype})"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.store.shape)

    @property
    def rank(self) -> int:
        return self.store.rank

    @property
    def dtype(self) -> np.dtype:
        return self.store.dtype.numpy_dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of what is read at once from disk; whole axes where unchunked."""
        layout = self.store.chunk_layout.read_chunk.shape or (None,) * self.rank
        return tuple(
            c if c else s for c, s in zip(layout, self.store.shape, strict=True)
        )

    @property
    def spatial_shape(self) -> Triple:
        x, y, z = (self.shape[self.axes.index(a)] for a in "xyz")
        return x, y, z

    @property
    def spatial_chunks(self) -> Triple:
        x, y, z = (self.chunks[self.axes.index(a)] for a in "xyz")
        return x, y, z

    def at(self, index: Index) -> ts.TensorStore:
        """The part that an index names; a `Box` selects the spatial axes."""
        if isinstance(index, Box):
            by_axis = dict(zip("xyz", index.slices, strict=True))
            index = tuple(by_axis.get(a, slice(None)) for a in self.axes)
        return self.store[index]

    @functools.cached_property
    def chunk_files(self) -> stored.ChunkFiles | None:
        """How its chunks lie on disk; None where it is no local zarr v2."""
        return stored.ChunkFiles.of(self.store)

    def chunk_facts(
        self, index: Index, artifact: str | os.PathLike
    ) -> dict[str, stored.Fact]:
        """Sizes and checksums of a part's chunk files; see `stored.of_box`."""
        return stored.of_box(self.chunk_files, self.at(index), artifact)

    def view(self, store: ts.TensorStore, axes: str = "", source: str = "") -> "Volume":
        """A volume over a view of this one's store: a part, or with other axes."""
        return Volume(
            store,
            axes or self.axes,
            self.attributes,
            source or self.source,
            self.stored_axes,
            self.guard,
        )

    def read(self, index: Index = ...) -> np.ndarray:
        return self.start_read(index).result()

    def start_read(self, index: Index = ...) -> Reading:
        """Begins to read; several may be under way at a time."""
        return Reading(self.source, self.at(index), self.guard)

    def read_channel(self, box: Box, channel: int) -> np.ndarray:
        """One channel of a box, [x y z]; other channels are read only where their chunks
        hold it too."""
        part = self.at(box)
        part = part[ts.d[self.axes.index("c")][channel]]
        return Reading(self.source, part, self.guard).result()

    def write(self, index: Index, array: np.ndarray) -> None:
        """Writes and returns once the data are durable."""
        self.at(index).write(array).result()


def from_array(
    array: np.ndarray,
    axes: str,
    attributes: Mapping[str, Any] | None = None,
    source: str = "memory",
) -> Volume:
    """A volume over an array in memory; written values appear in the array."""
    return Volume(ts.array(array), axes, attributes, source)


def open_volume(
    path: str | os.PathLike,
    *,
    axes: str | None = None,
    dataset: str | None = None,
    writable: bool = False,
) -> Volume:
    """Opens a zarr array, an HDF5 dataset, a npy file, a TIFF stack or a folder of slices.

    Args:
      path: of a zarr array's folder, or of a file; a dataset inside an HDF5 file may
        follow it (`raw.h5/main`), the order of the axes of a file that has no word for it
        (`raw.h5/main#zyx`), and one of its channels or time points (`em.zarr#c=1#t=0`). Planes of a TIFF stack, and slices, are z unless that says
        otherwise.
      axes: wanted. A file that names them in another order (`zyx`; see `axes.named_axes`
        for the words that are understood) is transposed, lazily. None takes the file's
        own, or `xyz` and `cxyz` by rank.
      dataset: inside an HDF5 file; `main`, or the only one, where None.
      writable: only zarr.

    Raises:
      InputError: nothing there, not a local path, not an array, empty, or of other axes.
    """
    return _opened(path, lambda named, _: axes or named, dataset, writable)


def open_image(path: str | os.PathLike) -> Volume:
    """An image [x y z c]; a 3-D array gets a trailing channel axis of 1.

    Raises:
      InputError: as `open_volume`, or another number of axes.
    """

    def wanted(named: str, rank: int) -> str:
        with_channel = "c" in named if named else rank != 3
        return "xyzc" if with_channel else "xyz"

    volume = _opened(path, wanted)
    if volume.rank == 4:
        return volume
    return volume.view(volume.store[..., ts.newaxis], "xyzc")


def _opened(
    path: str | os.PathLike,
    wanted: Callable[[str, int], str],
    dataset: str | None = None,
    writable: bool = False,
) -> Volume:
    """A volume with the axes that `wanted` chooses, given the file's own and its rank."""
    _, said = axes_lib.split_path(str(path))
    place, inner = formats.split_path(str(path))
    store, attributes, facts = formats.open_array(place, dataset or inner, writable)
    named_inside = dataset or inner  # datasets of one file are volumes of their own
    source = f"{place}/{named_inside}" if named_inside else str(place)
    shape = tuple(store.shape)
    # Whoever writes changes what the manifest knows.
    local = isinstance(place, pathlib.Path) and not writable
    guard = verified.guard(place, store, attributes) if local else None
    if isinstance(place, Address):
        guard = sent_chunks.guard(place, store, attributes)
    if guard is None and local and place.is_dir():
        guard = chunk_headers.guard(store)
    if math.prod(shape) == 0:
        raise InputError(f"{place} is empty: its shape is {shape}; write it again")
    letters = axes_lib.letters_of(said)
    if letters:
        facts = {k: v for k, v in facts.items() if k != "series"}  # a custom, no word
    named = axes_lib.named_axes(source, shape, attributes, facts)
    named = axes_lib.settled(source, shape, named, letters)
    choices = axes_lib.choices_of(said)
    store, named, attributes = turned.chosen(source, store, named, attributes, choices)
    source, shape = axes_lib.with_axes(source, said), tuple(store.shape)
    axes = wanted(named, len(shape)) or {3: "xyz", 4: "cxyz"}.get(len(shape))
    if axes is None:
        raise InputError(f"{place} has shape {shape}; wanted 3 or 4 axes")
    if axes == named and "series" in facts:  # planes of z lie so by custom alone
        axes = "".join(sorted(named, key="xyzct".index))
    if axes == named and set(axes) - {"c"} != set("xyz"):
        # Nothing else was asked for: without time, and with all axes of space.
        axes = "".join(a for a in named if a != "t")
        axes = axes if set("xyz") <= set(axes) else "xyz"
    if named and named != axes:
        store, attributes = turned.in_order(source, store, named, attributes, axes)
    return Volume(store, axes, attributes, source, named, guard)


def open_labels(path: str | os.PathLike) -> Volume:
    """Labels [x y z] of an integer type.

    Raises:
      InputError: as `open_volume`, another rank or type, or slices of JPEG.
    """
    volume = open_volume(path, axes="xyz")
    if volume.dtype.kind not in "iu":
        raise InputError(
            f"{path} holds {volume.dtype}; wanted labels of an integer type"
        )
    formats.require_exact(str(path))
    return volume


def open_affinities(path: str | os.PathLike) -> Volume:
    """Affinities [c x y z], source-stored.

    Raises:
      InputError: as `open_volume`, not float16, float32 or uint8, or more channels than a
        network has, of a file without a word for its axes.
    """
    volume = open_volume(path, axes="cxyz")
    if not volume.stored_axes and volume.shape[0] > _MOST_CHANNELS:
        raise InputError(
            f"{path} has shape {volume.shape} and no word for its axes: {volume.shape[0]} "
            "channels of affinities? say the order behind its path, as "
            f"{path}#xyzc or {path}#zyxc"
        )
    if volume.dtype not in (np.float16, np.float32, np.uint8):
        raise InputError(
            f"{path} holds {volume.dtype}; wanted affinities as float16, float32 or "
            "uint8 (value / 255)"
        )
    return volume


def create_zarr(
    path: str | os.PathLike,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
    axes: str,
    attributes: Mapping[str, Any] | None = None,
    fill_value: float = 0,
    compressor: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Volume:
    """A new zarr v2 array on disk (chunks that equal the fill value are never written).

    An array that exists with the same shape, type and chunks is opened again, with the
    attributes that it has, so that an interrupted writer goes on; its manifest says which
    boxes are done.

    Raises:
      InputError: an array of another shape or type stands there and `overwrite` is False.
      ValueError: TensorStore's, where the file system does not let one be made.
    """
    attributes = {"axes": list(axes), **(attributes or {})}
    wanted = zarr_output.metadata(shape, dtype, chunks, fill_value, compressor)
    store = zarr_output.create(path, wanted, attributes, overwrite=overwrite)
    return Volume(store, axes, attributes, str(pathlib.Path(path)))
