"""Array files as TensorStores: zarr natively, HDF5, npy and TIFF as views.

Each reader of a view is a module-level function under `ts.virtual_chunked`, called once for
each chunk in TensorStore's threads, so that a view pickles as (path, dataset) and reopens
in a worker. HDF5 chunks compressed with gzip are read raw and inflated by ISA-L outside
h5py's lock; h5py (and so PyTC) inflates them one at a time.
"""

import functools
import json
import math
import os
import pathlib
from typing import Any

import h5py
import numpy as np
import tensorstore as ts
import tifffile
from isal import isal_zlib
from isal.igzip_lib import IsalError

from nisbjax.errors import InputError

HDF5 = (".h5", ".hdf5", ".hdf")
# Pipelines of HDF5 filters that are undone here; h5py undoes all others.
_SHUFFLE, _DEFLATE = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE
_DIRECT = ((), (_SHUFFLE,), (_DEFLATE,), (_SHUFFLE, _DEFLATE))


def open_array(
    path: pathlib.Path, dataset: str | None, writable: bool
) -> tuple[ts.TensorStore, dict[str, Any]]:
    """The array in a file or folder, and what it says of itself.

    Args:
      path: of a zarr array's folder, or of an HDF5, npy or TIFF file.
      dataset: inside an HDF5 file; `main`, or the only one, where None.
      writable: only zarr.

    Raises:
      InputError: nothing that can be read, or be written in place.
    """
    if path.is_dir():
        return _open_zarr(path, writable)
    if writable:
        raise InputError(f"{path} cannot be written in place; wanted a zarr array")
    if path.suffix in HDF5:
        return open_hdf5(path, dataset)
    if path.suffix == ".npy":
        return open_npy(path)
    if path.suffix in (".tif", ".tiff"):
        return open_tiff(path)
    raise InputError(f"{path} is not a zarr array, HDF5, npy or TIFF file")


def zarr_spec(path: pathlib.Path, driver: str) -> dict[str, Any]:
    """TensorStore's specification of a local array, `zarr` (v2) or `zarr3`."""
    return {
        "driver": driver,
        "kvstore": {"driver": "file", "path": str(path.resolve()) + "/"},
    }


def _open_zarr(
    path: pathlib.Path, writable: bool
) -> tuple[ts.TensorStore, dict[str, Any]]:
    if (path / ".zarray").is_file():
        driver, attributes = "zarr", _json(path / ".zattrs")
    elif (path / "zarr.json").is_file():
        metadata = _json(path / "zarr.json")
        driver, attributes = "zarr3", metadata.get("attributes", {})
        if metadata.get("node_type") == "group":
            raise InputError(f"{path} is a zarr group; name an array inside it")
    else:
        arrays = sorted(p.parent.name for p in path.glob("*/.zarray"))
        inside = f"; it holds {', '.join(arrays)}" if arrays else ""
        raise InputError(f"{path} is a folder without a zarr array{inside}")
    try:
        spec = zarr_spec(path, driver)
        return ts.open(spec, read=True, write=writable).result(), attributes
    except ValueError as error:
        raise InputError(f"{path} cannot be read as a zarr array: {error}") from None


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None


def _virtual(
    path: pathlib.Path,
    reader: Any,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
) -> ts.TensorStore:
    layout = ts.ChunkLayout(chunk_shape=chunks, inner_order=range(len(shape)))
    if np.dtype(dtype).kind not in "biuf":
        raise InputError(f"{path} holds {dtype}; wanted numbers")
    return ts.virtual_chunked(
        reader, dtype=ts.dtype(dtype), shape=shape, chunk_layout=layout
    )


def open_hdf5(
    path: pathlib.Path, dataset: str | None
) -> tuple[ts.TensorStore, dict[str, Any]]:
    try:
        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(
                lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) else None
            )
            if dataset is None:
                dataset = "main" if "main" in names or len(names) != 1 else names[0]
            if dataset not in names:
                raise InputError(
                    f"{path} has no dataset {dataset!r}; it holds "
                    f"{', '.join(names) or 'none'}"
                )
            found: Any = file[dataset]
            attributes = {k: _attribute(v) for k, v in found.attrs.items()}
            shape, dtype = found.shape, found.dtype
            chunks = found.chunks or shape
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5: {error}") from None
    if math.prod(shape) == 0:
        raise InputError(f"{path} is empty: its shape is {shape}; write it again")
    # The modification time is in the specification, so that a file written anew under the
    # same name is not read through a stale handle.
    stamp = os.stat(path).st_mtime_ns
    reader = functools.partial(_read_hdf5, str(path.absolute()), dataset, stamp)
    return _virtual(path, reader, shape, dtype, chunks), attributes


def _attribute(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _read_hdf5(
    path: str, dataset: str, stamp: int, domain: Any, chunk: np.ndarray, _: Any
) -> None:
    source, chunks, filters = _hdf5_at(path, dataset, stamp)
    index = domain.index_exp
    if not chunks or filters not in _DIRECT:
        chunk[...] = source[index]
        return
    origin = tuple(i.start // c * c for i, c in zip(index, chunks, strict=True))
    inside = all(i.stop <= o + c for i, o, c in zip(index, origin, chunks, strict=True))
    if not inside:
        chunk[...] = source[index]
        return
    try:
        filter_mask, data = source.id.read_direct_chunk(origin)
    except (OSError, RuntimeError):  # never written: h5py knows the fill value
        chunk[...] = source[index]
        return
    # A bit of the mask says that a chunk went past that filter.
    if _DEFLATE in filters and not filter_mask >> filters.index(_DEFLATE) & 1:
        data, problem = _inflate(data)
        if problem:
            raise InputError(
                f"{path} is damaged: its chunk at {origin} cannot be inflated "
                f"({problem}); copy or write it again"
            )
    if _SHUFFLE in filters and not filter_mask & 1:
        planes = np.frombuffer(data, np.uint8).reshape(source.dtype.itemsize, -1)
        data = np.ascontiguousarray(planes.T)
    whole = np.frombuffer(data, source.dtype).reshape(chunks)
    cut = tuple(
        slice(i.start - o, i.stop - o) for i, o in zip(index, origin, strict=True)
    )
    chunk[...] = whole[cut]


def _inflate(data: bytes) -> tuple[bytes, str]:
    """The inflated bytes, or what hinders; ISA-L's error cannot travel by pickle."""
    try:
        return isal_zlib.decompress(data), ""
    except IsalError as error:  # pyright: ignore (the stub makes it no class)
        return b"", str(error)


def _filters(source: h5py.Dataset) -> tuple[int, ...]:
    """Codes of the filters behind a dataset, in the order in which they were applied."""
    pipeline = source.id.get_create_plist()
    return tuple(pipeline.get_filter(i)[0] for i in range(pipeline.get_nfilters()))


@functools.lru_cache(maxsize=8)
def _hdf5_at(
    path: str, dataset: str, stamp: int
) -> tuple[h5py.Dataset, tuple[int, ...] | None, tuple[int, ...]]:
    """A dataset with its chunks and filters, which h5py would look up for every chunk."""
    del stamp
    # The library's own chunk cache would only hold memory: chunks are inflated here.
    found: Any = h5py.File(path, "r", rdcc_nbytes=0)[dataset]
    # Counting walks the file's index, and a dataset without a chunk has none to ask.
    written = found.chunks and found.id.get_num_chunks()
    return found, found.chunks if written else None, _filters(found)


@functools.lru_cache(maxsize=8)
def _npy(path: str, stamp: int) -> np.ndarray:
    del stamp
    return np.load(path, mmap_mode="r", allow_pickle=False)


def open_npy(path: pathlib.Path) -> tuple[ts.TensorStore, dict[str, Any]]:
    stamp = os.stat(path).st_mtime_ns
    try:
        array = _npy(str(path.absolute()), stamp)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as npy: {error}") from None
    chunks = tuple(
        min(64, s) if i >= array.ndim - 3 else 1 for i, s in enumerate(array.shape)
    )
    reader = functools.partial(_read_npy, str(path.absolute()), stamp)
    chunks = tuple(max(c, 1) for c in chunks)
    return _virtual(path, reader, array.shape, array.dtype, chunks), {}


def _read_npy(path: str, stamp: int, domain: Any, chunk: np.ndarray, _: Any) -> None:
    chunk[...] = _npy(path, stamp)[domain.index_exp]


def open_tiff(path: pathlib.Path) -> tuple[ts.TensorStore, dict[str, Any]]:
    try:
        with tifffile.TiffFile(path) as file:
            planes, page = len(file.pages), file.pages[0]
            shape, dtype = page.shape, page.dtype
            wanted = math.prod(file.series[0].shape[: -len(shape)])
    except tifffile.TiffFileError as error:
        raise InputError(f"{path} cannot be read as TIFF: {error}") from None
    if len(shape) != 2 or dtype is None:
        raise InputError(f"{path} has planes of shape {shape}; wanted grey y x planes")
    if planes != wanted:  # ImageJ's stacks beyond 4 GB, or several series
        raise InputError(
            f"{path} holds {planes} TIFF pages for a stack of {wanted} planes; save it "
            "with one page for each plane"
        )
    reader = functools.partial(_read_tiff, str(path.absolute()))
    store = _virtual(path, reader, (planes, *shape), dtype, (1, *shape))
    return store[ts.d[0, 1, 2].transpose[2, 1, 0]], {}


def _read_tiff(path: str, domain: Any, chunk: np.ndarray, _: Any) -> None:
    planes, rows, columns = domain.index_exp
    for i, plane in enumerate(range(planes.start, planes.stop)):
        chunk[i] = tifffile.imread(path, key=plane)[rows, columns]
