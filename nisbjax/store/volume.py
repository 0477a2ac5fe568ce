"""A volume: any array file as one `tensorstore.TensorStore` with its attributes.

Files are opened by `formats` (zarr v2 and v3 natively, HDF5, npy and TIFF as views), so
that a volume pickles as a specification and reopens in a worker. Axis order is settled
here and nowhere else: a file whose attributes name another order is transposed lazily,
where PyTC guesses the channel axis from its length.
"""

import functools
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import axes as axes_lib
from nisbjax.store import (
    chunk_headers,
    files,
    finished,
    formats,
    remains,
    stored,
    verified,
)
from nisbjax.store.views import unreadable
from nisbjax.typing import Triple

Index = Box | tuple[Any, ...] | Any

_COMPRESSOR = {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1}
_SAMPLED_PIECES = 64  # of a fingerprint
_PIECE_BYTES = 1 << 20


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
        guard: verified.Guard | chunk_headers.ChunkHeaders | None = None,
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

    def start_read(self, index: Index = ...) -> "Reading":
        """Begins to read; several may be under way at a time."""
        return Reading(self, self.at(index))

    def read_channel(self, box: Box, channel: int) -> np.ndarray:
        """One channel of a box, [x y z]; other channels are read only where their chunks
        hold it too."""
        part = self.at(box)
        return Reading(self, part[ts.d[self.axes.index("c")][channel]]).result()

    def write(self, index: Index, array: np.ndarray) -> None:
        """Writes and returns once the data are durable."""
        self.at(index).write(array).result()


class Reading:
    """Values that are on their way from a volume."""

    def __init__(self, volume: Volume, part: ts.TensorStore):
        self._volume = volume
        self._part = part
        if volume.guard is not None:
            volume.guard.before(part)
        self._future = part.read()

    def result(self) -> np.ndarray:
        """The values, once they are here and their chunk files are known to be right.

        Raises:
          InputError: a chunk is missing or damaged.
        """
        guard = self._volume.guard
        try:
            values = np.asarray(self._future.result())
        except (OSError, RuntimeError, ValueError, NotImplementedError) as error:
            if guard is not None:  # it knows which chunk, and what to do
                guard.check(self._part)
            raise unreadable(error, self._volume.source) from None
        if guard is not None:
            guard.check(self._part)
        return values


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
    """Opens a zarr array, an HDF5 dataset, a npy file or a TIFF stack.

    Args:
      path: of a zarr array's folder, or of a file; a dataset inside an HDF5 file may
        follow it (`raw.h5/main`).
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
    path, inner = _split(str(path))
    store, attributes, facts = formats.open_array(path, dataset or inner, writable)
    source, shape = str(path), tuple(store.shape)
    # Whoever writes changes what the manifest knows.
    guard = None if writable else verified.guard(path, store, attributes)
    if guard is None and not writable and path.is_dir():
        guard = chunk_headers.guard(store)
    if math.prod(shape) == 0:
        raise InputError(f"{path} is empty: its shape is {shape}; write it again")
    named = axes_lib.named_axes(source, shape, attributes, facts)
    axes = wanted(named, len(shape)) or {3: "xyz", 4: "cxyz"}.get(len(shape))
    if axes is None:
        raise InputError(f"{path} has shape {shape}; wanted 3 or 4 axes")
    if axes == named and set(axes) - {"c"} != set("xyz"):
        # Nothing else was asked for: without time, and with all axes of space.
        axes = "".join(a for a in named if a != "t")
        axes = axes if set("xyz") <= set(axes) else "xyz"
    if named and named != axes:
        order = axes_lib.order(source, shape, named, axes)
        surplus = tuple(i for i in range(len(shape)) if i not in order)
        if surplus:
            store = store[ts.d[surplus][(0,) * len(surplus)]]
            kept = sorted(order)
            order = [kept.index(i) for i in order]
        store = store[ts.d[tuple(order)].transpose[:]]
        # A copy of this array's attributes must not contradict itself.
        attributes = {k: v for k, v in attributes.items() if not axes_lib.is_word(k)}
        attributes["axes"] = list(axes)
    return Volume(store, axes, attributes, source, named, guard)


def open_labels(path: str | os.PathLike) -> Volume:
    """Labels [x y z] of an integer type.

    Raises:
      InputError: as `open_volume`, or another rank or type.
    """
    volume = open_volume(path, axes="xyz")
    if volume.dtype.kind not in "iu":
        raise InputError(
            f"{path} holds {volume.dtype}; wanted labels of an integer type"
        )
    return volume


def open_affinities(path: str | os.PathLike) -> Volume:
    """Affinities [c x y z], source-stored.

    Raises:
      InputError: as `open_volume`, or not float16, float32 or uint8.
    """
    volume = open_volume(path, axes="cxyz")
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
    path = _local(str(path))
    if overwrite and path.exists():
        shutil.rmtree(path)
    metadata = _new_metadata(shape, dtype, chunks, fill_value, compressor)
    spec = formats.zarr_spec(path, "zarr") | {"metadata": metadata}
    _require_own_metadata(path)
    try:
        store = ts.open(spec, open=True, create=True, read=True, write=True).result()
    except ValueError:
        _require_fitting(path, metadata)
        raise  # a full disk, no right; the error says which
    attributes = {"axes": list(axes), **(attributes or {})}
    if not _has_attributes(path):  # else they are those of whoever finished it
        write_attributes(path, attributes)
    return Volume(store, axes, attributes, str(path))


def require_writable(
    path: str | os.PathLike,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
) -> None:
    """Refuses what `create_zarr` would, for it is in the way; writes nothing.

    Raises:
      InputError: an array of another shape, type or chunks, or stored in another way.
    """
    _require_own_metadata(_local(str(path)))
    _require_fitting(_local(str(path)), _new_metadata(shape, dtype, chunks))


def _new_metadata(
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
    fill_value: Any = 0,
    compressor: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    chunks = tuple(min(c, s) for c, s in zip(chunks, shape, strict=True))
    return {
        "shape": list(shape),
        "chunks": list(chunks),
        "dtype": np.dtype(dtype).str,
        "fill_value": fill_value,
        "compressor": dict(compressor or _COMPRESSOR),
        "dimension_separator": "/" if math.prod(shape) > 1 << 33 else ".",
        "order": "C",
        "filters": None,
    }


def _require_fitting(path: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    if _another_there(path, wanted):
        raise InputError(
            f"{path} exists with another shape, type or chunks than "
            f"{tuple(wanted['shape'])} {np.dtype(wanted['dtype'])} in "
            f"{tuple(wanted['chunks'])}, or stored in another way; remove it or name "
            "another output"
        )


def _another_there(path: pathlib.Path, wanted: Mapping[str, Any]) -> bool:
    """Whether an array of other metadata is in the way."""
    try:
        found = json.loads((path / ".zarray").read_bytes())
    except OSError:  # nothing there, or no right to look
        return False
    except ValueError:  # what was an array, and cannot be written to
        return True
    if not isinstance(found, dict):
        return True
    found = {"dimension_separator": ".", **found}
    # TensorStore writes more of a compressor than it was asked for.
    return any(
        found.get(key) != value
        if not isinstance(value, dict) or not isinstance(found.get(key), dict)
        else not value.items() <= found[key].items()
        for key, value in wanted.items()
    )


def _require_own_metadata(path: pathlib.Path) -> None:
    """Refuses what is no file where an array's metadata go: a pipe would be waited for."""
    for name in (".zarray", ".zattrs"):
        if os.path.lexists(path / name):
            files.require_regular(path / name)


def _has_attributes(path: pathlib.Path) -> bool:
    try:
        return isinstance(json.loads((path / ".zattrs").read_bytes()), dict)
    except (FileNotFoundError, ValueError):
        return False


def write_attributes(path: str | os.PathLike, attributes: Mapping[str, Any]) -> None:
    """Replaces the attributes of a zarr v2 array (TensorStore's driver cannot)."""
    files.write_json(pathlib.Path(path) / ".zattrs", dict(attributes))


def fingerprint(path: str | os.PathLike) -> str:
    """sha256 of an array's metadata, its files' names and sizes, and of 64 seeded pieces.

    Cheap for volumes of any size, and independent of where the volume lies. A piece is a
    whole chunk file of a zarr array, or 1 MiB of a single file. Hidden files are not the
    volume's content (our manifest grows), but for zarr's own.

    Raises:
      InputError: nothing there, or a piece that its manifest knows otherwise.
    """
    path, inner = _split(str(path))
    digest = hashlib.sha256(repr(inner).encode())
    draw = random.Random(0)
    if path.is_dir():
        names = _content_names(path)
        for name in names:
            digest.update(f"{name} {(path / name).stat().st_size}\n".encode())
        metadata = (".zarray", ".zattrs", "zarr.json")
        pieces = [n for n in names if n.rpartition("/")[2] not in metadata]
        chosen = draw.sample(pieces, min(_SAMPLED_PIECES, len(pieces)))
        guard = open_volume(path).guard if finished.locate(path) else None
        for name in [n for n in names if n not in set(pieces)] + chosen:
            content = (path / name).read_bytes()
            if isinstance(guard, verified.Guard):
                guard.check_file(name, content)
            digest.update(content)
        return digest.hexdigest()
    size = path.stat().st_size
    digest.update(f"{size}\n".encode())
    with open(path, "rb") as file:
        pieces = range(0, max(size, 1), _PIECE_BYTES)
        for start in draw.sample(pieces, min(_SAMPLED_PIECES, len(pieces))):
            file.seek(start)
            digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()


def _content_names(folder: pathlib.Path) -> list[str]:
    """Files below a folder, relative to it, without hidden ones but zarr's own."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        hidden = [part for part in parts if part.startswith(".")]
        if all(part in remains.METADATA for part in hidden):
            found.append("/".join(parts))
    return found


def _local(text: str) -> pathlib.Path:
    if "://" in text or text.split("/")[0].endswith(":"):
        raise InputError(f"{text} is not a local path; copy the file here first")
    return pathlib.Path(text)


def _split(text: str) -> tuple[pathlib.Path, str | None]:
    """Separates a dataset's name from the HDF5 file that it follows."""
    path = _local(text)
    if formats.kind(path):
        formats.require_array_file(path)
        return path, None
    for parent in path.parents:
        if formats.is_hdf5(parent) and formats.kind(parent) == "file":
            return parent, path.relative_to(parent).as_posix()
    raise InputError(f"no volume at {text}; check the path")
