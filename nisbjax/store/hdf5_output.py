"""An HDF5 file that is written whole, and a full disk that is an error and no crash.

Where a write fails, the HDF5 library tries once more as it closes the file, and then ends
the process by a segmentation fault. Here it writes through an object of ours, which keeps
the system's error for us and tells the library that all is well until the file is closed.
PyTC writes its volumes by h5py's default driver.
"""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py

from nisbjax.store import files


class Output(h5py.File):
    """An HDF5 file that is being written; see `creating`."""

    def __init__(self, below: "_Below"):
        super().__init__(below, "w")
        self._below = below

    def check(self) -> None:
        """Raises the error of an earlier write; call it now and then in long work."""
        if self._below.error is not None:
            raise self._below.error


@contextlib.contextmanager
def creating(path: str | os.PathLike) -> Iterator[Output]:
    """A new HDF5 file to write inside a `with`; it takes its name when it is complete.

    Args:
      path: of the file; an earlier one is replaced.

    Yields:
      The file.

    Raises:
      InputError: `path` is a folder or a device.
      OSError: the file system's, with the path in it; nothing is left of the new file.
    """
    with files.replacing(path) as temporary, _Below(temporary, path) as below:
        with Output(below) as file:
            yield file
        if below.error is not None:
            raise below.error


class _Below(io.RawIOBase):
    """The file under the library: never fails, and remembers that it should have."""

    def __init__(self, temporary: pathlib.Path, path: str | os.PathLike):
        self._path = str(path)
        self._descriptor = os.open(temporary, os.O_RDWR | os.O_TRUNC)
        self._at = 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}
        if whence == os.SEEK_END:
            starts[whence] = os.fstat(self._descriptor).st_size
        self._at = starts[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._at)
        self._at += count
        return count

    def write(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        size, at = len(left), self._at
        self._at += size
        try:
            while len(left) and self.error is None:
                count = os.pwrite(self._descriptor, left, at)
                at, left = at + count, left[count:]
        except OSError as error:
            self._remember(error)
        return size

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self._remember(error)
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _remember(self, error: OSError) -> None:
        self.error = self.error or OSError(error.errno, error.strerror, self._path)
