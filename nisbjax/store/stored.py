"""What an array's chunk files hold as they lie on disk: their sizes and checksums.

A manifest says of every chunk file how many bytes it has and their CRC-32 (that of gzip and
PNG, by ISA-L), as zarr v2 itself knows neither: a file that is gone reads as the fill value,
and most codecs take flipped bits for voxels. PyTC and BANIS keep no checksums.
"""

import dataclasses
import errno
import itertools
import math
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorstore as ts
from isal import isal_zlib

from nisbjax.store.places import Address, Place

Fact = tuple[int, int] | None  # bytes and CRC-32 of a file; None where there is none
_NO_FILE_ERRORS = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
NO_FILE = (-1, 0)  # of a folder, a pipe or a link to itself in its place
_DRIVERS = ("zarr", "zarr3", "n5", "neuroglancer_precomputed")  # of what we write
Facts = Mapping[str, Fact]  # by the file's name, relative to its artifact


def of_bytes(content: bytes) -> Fact:
    """Size and CRC-32 of what a file holds."""
    return len(content), isal_zlib.crc32(content)


def of_file(path: str | os.PathLike) -> Fact:
    """Size and CRC-32 of a file; None where there is none, `NO_FILE` for another thing."""
    try:
        # Not to wait for the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return NO_FILE
            return of_bytes(opened.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in _NO_FILE_ERRORS:
            return NO_FILE
        raise


def size_of(path: str | os.PathLike) -> int | None:
    """Bytes of a file; None where there is none, those of `NO_FILE` for another thing."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in _NO_FILE_ERRORS:
            return NO_FILE[0]
        raise
    return found.st_size if stat.S_ISREG(found.st_mode) else NO_FILE[0]


def of_box(
    files: "ChunkFiles | None", part: ts.TensorStore, artifact: str | os.PathLike
) -> dict[str, Fact]:
    """The chunk files of a part of a zarr array, for the manifest; call it after writing.

    Args:
      files: of the array; None for one that is not a local zarr v2.
      part: `volume.at(box)`. Chunks that it holds only in part are left out: whoever
        writes the rest changes their bytes.
      artifact: the folder that the manifest is of: the array's, or one above it.

    Returns:
      Facts by name relative to `artifact`; none where there are no `files`. A chunk that
      was not written, since it equals the fill value, has None.
    """
    if files is None:
        return {}
    folder = files.folder
    assert isinstance(folder, pathlib.Path)
    prefix = folder.relative_to(pathlib.Path(artifact).resolve())
    return {
        (prefix / name).as_posix(): of_file(folder / name)
        for name in map(files.name, itertools.product(*files.within(part)))
    }


def specification(store: ts.TensorStore) -> dict[str, Any]:
    """TensorStore's own of an array, as JSON; empty of a view, which has none."""
    try:
        return store.spec().to_json()
    except NotImplementedError:
        return {}


@dataclasses.dataclass(frozen=True)
class ChunkFiles:
    """How the chunks of an array are cut and named.

    Attributes:
      folder: of the array.
      shape: of the array.
      chunks: of one chunk.
      separator: between the numbers of a chunk's name.
      first: what stands before them, in v3.
      origin: the first voxel of precomputed, whose chunks are named by their voxels: `0-64`.
    """

    folder: Place
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    separator: str
    first: str = ""
    origin: tuple[int, ...] | None = None

    @classmethod
    def of_any(cls, store: ts.TensorStore) -> "ChunkFiles | None":
        """Those behind a local store: zarr v2 or v3, N5, precomputed; else None."""
        return cls._local(store, _DRIVERS)

    @classmethod
    def of(cls, store: ts.TensorStore) -> "ChunkFiles | None":
        """Those behind a store or a view of one; None where it is no local zarr v2.

        Each call costs 3.5 kB for ever: `Spec.to_json` of TensorStore 0.1.86 does not free
        what it returns. So it is called once for an array, not for each of its boxes.
        """
        return cls._local(store, ("zarr",))

    @classmethod
    def of_v3(cls, store: ts.TensorStore) -> "ChunkFiles | None":
        """Those behind a store or a view of one; None where it is no local zarr v3."""
        return cls._local(store, ("zarr3",))

    @classmethod
    def at(cls, store: ts.TensorStore, place: Address) -> "ChunkFiles | None":
        """Those of an array, or a precomputed volume, at an address; None where nobody
        knows their names."""
        return cls._of(specification(store), place)

    @classmethod
    def _local(
        cls, store: ts.TensorStore, drivers: tuple[str, ...]
    ) -> "ChunkFiles | None":
        spec = specification(store)
        kvstore = spec.get("kvstore")
        if spec.get("driver") not in drivers or not isinstance(kvstore, dict):
            return None
        if kvstore.get("driver") != "file":
            return None
        return cls._of(spec, pathlib.Path(kvstore["path"]).resolve())

    @classmethod
    def _of(cls, spec: dict[str, Any], folder: Place) -> "ChunkFiles | None":
        driver, metadata = spec.get("driver"), spec.get("metadata", {})
        if driver == "zarr":
            shape, chunks = metadata["shape"], metadata["chunks"]
            separator = metadata.get("dimension_separator", ".")
            return cls(folder, tuple(shape), tuple(chunks), separator)
        if driver == "zarr3":
            encoding = metadata["chunk_key_encoding"]
            is_default = encoding["name"] == "default"
            separator = encoding.get("configuration", {}).get(
                "separator", "/" if is_default else "."
            )
            chunks = metadata["chunk_grid"]["configuration"]["chunk_shape"]
            first = f"c{separator}" if is_default else ""
            return cls(
                folder, tuple(metadata["shape"]), tuple(chunks), separator, first
            )
        if driver == "n5":
            shape, chunks = metadata["dimensions"], metadata["blockSize"]
            return cls(folder, tuple(shape), tuple(chunks), "/")
        if driver != "neuroglancer_precomputed":
            return None
        scale, count = (
            spec["scale_metadata"],
            spec["multiscale_metadata"]["num_channels"],
        )
        if scale.get("sharding") is not None:
            return None
        return cls(
            folder / scale["key"],
            (*scale["size"], count),
            (*scale["chunk_size"], count),
            "_",
            origin=(*scale["voxel_offset"], 0),
        )

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-s // c) for s, c in zip(self.shape, self.chunks, strict=True))

    def name(self, index: tuple[int, ...]) -> str:
        if self.origin is not None:
            spans = [
                (o + i * c, o + min(i * c + c, s))
                for o, i, c, s in zip(
                    self.origin, index, self.chunks, self.shape, strict=True
                )
            ]
            return self.separator.join(f"{a}-{b}" for a, b in spans[:3])
        return self.first + self.separator.join(map(str, index))

    def index(self, name: str) -> int:
        """Number of a chunk in C order, by its name; -1 where it is no name of a chunk."""
        if self.origin is not None:
            return self._index_by_voxels(name, self.origin)
        if not name.startswith(self.first):
            return -1
        numbers = name.removeprefix(self.first).split(self.separator)
        if self.origin is not None:
            return self._index_of_voxels(numbers)
        if len(numbers) != len(self.grid) or not all(n.isdecimal() for n in numbers):
            return -1
        position = [int(n) for n in numbers]
        if any(p >= g for p, g in zip(position, self.grid, strict=True)):
            return -1
        return int(np.ravel_multi_index(position, self.grid))

    def _index_of_voxels(self, spans: list[str]) -> int:
        """The same by `0-64`, `64-128`, ... of x, y and z; all channels lie in one chunk."""
        firsts = [span.partition("-")[0] for span in spans]
        if len(firsts) != 3 or not all(n.lstrip("-").isdecimal() for n in firsts):
            return -1
        position = [
            (int(n) - o) // c
            for n, o, c in zip(firsts, self.origin or (), self.chunks, strict=False)
        ]
        if any(not 0 <= p < g for p, g in zip(position, self.grid, strict=False)):
            return -1
        return int(np.ravel_multi_index([*position, 0], self.grid))

    def _index_by_voxels(self, name: str, origin: tuple[int, ...]) -> int:
        starts = re.findall(r"(?:^|_)(-?\d+)-", name)
        if len(starts) != 3:
            return -1
        index = [
            (int(start) - first) // chunk
            for start, first, chunk in zip(starts, origin, self.chunks, strict=False)
        ]
        position = (*index, 0)
        inside = all(0 <= p < g for p, g in zip(position, self.grid, strict=True))
        if not inside or self.name(position) != name:
            return -1
        return int(np.ravel_multi_index(position, self.grid))

    def touched(self, part: ts.TensorStore) -> list[np.ndarray]:
        """Along each axis, the chunks from which a part takes voxels, ascending."""
        found = []
        origin = self.origin or (0,) * len(self.shape)
        for voxels, chunk, first in zip(
            _voxels(part), self.chunks, origin, strict=True
        ):
            if isinstance(voxels, range) and len(voxels):
                low, high = sorted((voxels[0] - first, voxels[-1] - first))
                found.append(np.arange(low // chunk, high // chunk + 1))
            else:
                at = np.asarray(voxels, np.int64) - first
                found.append(np.unique(at // chunk))
        return found

    def within(self, part: ts.TensorStore) -> list[range]:
        """Along each axis, the chunks that lie in a part as a whole; it is a box."""
        found = []
        origin = self.origin or (0,) * len(self.shape)
        for voxels, chunk, size, first in zip(
            _voxels(part), self.chunks, self.shape, origin, strict=True
        ):
            assert isinstance(voxels, range) and voxels.step == 1
            start, stop = voxels.start - first, voxels.stop - first
            last = math.ceil(size / chunk) if stop == size else stop // chunk
            found.append(range(-(-start // chunk), last))
        return found


def _voxels(part: ts.TensorStore) -> Iterator[range | np.ndarray]:
    """Along each axis of the stored array, the voxels that a part shows."""
    transform: Any = part.spec().transform
    for axis in transform.output:
        if axis.method == ts.OutputIndexMethod.constant:
            yield range(axis.offset, axis.offset + 1)
        elif axis.method == ts.OutputIndexMethod.single_input_dimension:
            along = transform.domain[axis.input_dimension]
            first = axis.offset + axis.stride * along.inclusive_min
            step = axis.stride if axis.stride else 1
            yield range(first, first + step * along.size, step)
        else:
            yield axis.offset + axis.stride * np.asarray(axis.index_array).ravel()
