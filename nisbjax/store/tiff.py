"""TIFF stacks as TensorStores: planes of one open file, axes as its series says.

tifffile tells what the pages of ImageJ's hyperstacks, OME-TIFF and plain stacks mean;
planes without a name are z. Reading a page by `tifffile.imread(key=...)`, as PyTC does,
opens the file and walks its pages for every plane.
"""

import dataclasses
import functools
import math
import os
import pathlib
import threading
import weakref
from typing import Any, Literal

import numpy as np
import tensorstore as ts
import tifffile

from nisbjax.errors import InputError
from nisbjax.store import claims, tiff_sizes, voxel_size
from nisbjax.store.views import damage, view

_MOST_TAGS = 4096  # of a page, for tifffile too
_SLAB_BYTES = 1 << 22  # of an uncompressed plane, at once


@dataclasses.dataclass(frozen=True)
class _Stack:
    """An open file, its one series, and what is known of each plane."""

    file: tifffile.TiffFile
    series: tifffile.TiffPageSeries
    size: int  # of the file, in bytes
    # Parsing a page seeks in the file; tifffile does not guard it.
    lock: Any = dataclasses.field(default_factory=threading.Lock)

    @property
    def page(self) -> Any:
        return self.series.keyframe

    @property
    def dtype(self) -> np.dtype:
        """As it lies in the file."""
        return np.dtype(self.page.dtype).newbyteorder(self.file.byteorder)


def open_tiff(path: pathlib.Path) -> tuple[ts.TensorStore, str]:
    """The pages of a regular file as one array, and its axes: some of x y z c t, in order.

    Raises:
      InputError: no TIFF, several series of pages, axes that cannot be told apart, or a
        file that is shorter than it says.
    """
    stamp = os.stat(path).st_mtime_ns
    stack = _at(str(path.absolute()), stamp)
    page, series = stack.page, stack.series
    shape, page_shape = tuple(series.shape), tuple(page.shape)
    letters = _letters(path, series)
    if math.prod(shape) == 0:
        raise InputError(f"{path} is empty: its shape is {shape}; write it again")
    if page.dtype is None:
        raise InputError(f"{path} holds samples of no type of numpy; wanted numbers")
    dtype = claims.require_numbers(path, page.dtype)
    if shape[len(shape) - len(page_shape) :] != page_shape:
        raise InputError(
            f"{path} has pages of shape {page_shape} in a stack of shape {shape}; save it "
            "with one page for each plane"
        )
    leading = shape[: len(shape) - len(page_shape)]
    held = page_shape
    if series.dataoffset is not None:
        row = math.prod(page_shape[1:]) * dtype.itemsize
        rows = max(1, min(page_shape[0], _SLAB_BYTES // max(row, 1)))
        held = (rows, *page_shape[1:])
        last = series.dataoffset + math.prod(shape) * dtype.itemsize
        claims.require_bytes(path, stack.size, last)
    elif len(series.pages) != math.prod(leading):
        raise InputError(
            f"{path} holds {len(series.pages)} pages for a stack of {math.prod(leading)} "
            "planes; save it with one page for each plane"
        )
    chunks = (*(1,) * len(leading), *held)
    claims.require_possible(path, shape, chunks, dtype.itemsize)
    claims.require_possible(path, page_shape, page_shape, dtype.itemsize)
    reader = functools.partial(_read, str(path.absolute()), stamp)
    store = view(reader, shape, dtype.newbyteorder("="), chunks)
    if "z" not in letters:  # one plane
        store, letters = store[ts.newaxis, ...], "z" + letters
    return store, letters


def attributes_of(path: pathlib.Path) -> dict[str, Any]:
    """The voxel size of an open stack, as ImageJ, OME-TIFF or our own description says it.

    A plain TIFF has none along z, and so none that is believed.
    """
    file = _at(str(path.absolute()), os.stat(path).st_mtime_ns).file
    size = tiff_sizes.of_file(file)
    return {} if size is None else {voxel_size.KEY: size}


def _letters(path: pathlib.Path, series: Any) -> str:
    """The series' axes; the one that nobody named is z."""
    axes = series.axes.upper()
    unnamed = [a for a in axes if a in "QI"]
    if series.kind == "imagej" and axes == "CYX":
        unnamed = ["C"]  # how tifffile names the planes of any stack in ImageJ's format
    clear = set(axes) - set(unnamed) <= set("TZCYXS") and {"Y", "X"} <= set(axes)
    if len(unnamed) > 1 or (unnamed and "Z" in axes) or not clear:
        raise InputError(
            f"{path} has pages of axes {' '.join(axes)}, shape {series.shape}, which does "
            "not say what its planes are; save it with named axes (ImageJ's hyperstack or "
            "OME-TIFF: T Z C Y X), or as one stack for each channel"
        )
    return "".join("z" if a in unnamed else a for a in axes).lower().replace("s", "c")


@functools.lru_cache(maxsize=8)
def _at(path: str, stamp: int) -> _Stack:
    del stamp
    try:
        # Other files that OME's XML may name are not opened.
        file = tifffile.TiffFile(path, _multifile=False)
        weakref.finalize(file, file.filehandle.close)
        size = os.path.getsize(path)
        pages, ended = _whole_pages(file, size)
        several = [s for s in file.series if len(s.pages)] if ended else []
        file.filehandle.set_lock(True)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (tifffile has many for what is no TIFF)
        raise InputError(f"{path} cannot be read as TIFF: {error}") from None
    if not ended:
        raise InputError(
            f"{path} was cut: its list of pages breaks off after {pages} of them; copy or "
            "write it again"
        )
    if len(several) != 1:
        shapes = ", ".join(str(s.shape) for s in several[:4]) or "none"
        raise InputError(
            f"{path} holds {len(several)} series of pages, of shapes {shapes}; wanted one; "
            "save the stack as a file of its own"
        )
    return _Stack(file, several[0], size)


def _whole_pages(file: tifffile.TiffFile, size: int) -> tuple[int, bool]:
    """Pages whose lists of tags lie in the file, and whether the last one ends the chain.

    tifffile takes what it can read of a broken chain, and guesses the rest.
    """
    form, source, offsets = file.tiff, file.filehandle, set()
    source.seek(form.offsetsize if form.is_bigtiff else 4)
    at = int.from_bytes(source.read(form.offsetsize), _order(file))
    while at and at not in offsets:
        source.seek(at)
        count = int.from_bytes(source.read(form.tagnosize), _order(file))
        end = at + form.tagnosize + count * form.tagsize
        if not 0 < count <= _MOST_TAGS or end + form.offsetsize > size:
            return len(offsets), False
        offsets.add(at)
        source.seek(end)
        at = int.from_bytes(source.read(form.offsetsize), _order(file))
    return len(offsets), not at


def _order(file: tifffile.TiffFile) -> Literal["little", "big"]:
    return "little" if file.byteorder == "<" else "big"


def _read(path: str, stamp: int, domain: Any, chunk: np.ndarray, _: Any) -> None:
    index = domain.index_exp
    stack = _at(path, stamp)
    shape = stack.series.shape
    count = len(shape) - len(stack.page.shape)
    leading = index[:count]
    lengths = [i.stop - i.start for i in leading]
    for at in np.ndindex(*lengths):
        plane = [i.start + a for i, a in zip(leading, at, strict=True)]
        number = int(np.ravel_multi_index(plane, shape[:count])) if plane else 0
        try:
            chunk[at] = _plane(stack, number, index[count:])
        except InputError as error:
            raise damage(path, f"its plane {number}", error) from None
        except Exception as error:  # noqa: BLE001 (every codec has its own)
            raise damage(path, f"its plane {number}", error) from None


def _plane(stack: _Stack, number: int, index: tuple[slice, ...]) -> np.ndarray:
    """A part of one page."""
    shape, offset = stack.page.shape, stack.series.dataoffset
    if offset is not None:  # one page behind the other, as they are
        row = math.prod(shape[1:]) * stack.dtype.itemsize
        start = offset + number * shape[0] * row + index[0].start * row
        wanted = (index[0].stop - index[0].start) * row
        data = os.pread(stack.file.filehandle.fileno(), wanted, start)
        if len(data) != wanted:
            raise InputError(f"the file ends {wanted - len(data)} bytes early")
        return np.frombuffer(data, stack.dtype).reshape(-1, *shape[1:])[:, *index[1:]]
    with stack.lock:
        page: Any = stack.series.pages[number]
    if page is None:
        raise InputError("the file has no such page; another file may hold it")
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < math.prod(page.chunked) or not all(counts):
        raise InputError("parts of it were never written")
    if any(o + c > stack.size for o, c in zip(offsets, counts, strict=True)):
        raise InputError("the file was cut")
    whole = page.asarray(maxworkers=1)
    if whole.shape != tuple(shape):
        raise InputError(f"it has shape {whole.shape}, and the others {tuple(shape)}")
    return whole[index]
