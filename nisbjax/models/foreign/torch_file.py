"""Files of weights, read without torch: its zip archives, safetensors and npz.

Source: the layout that `torch.save` writes (a pickle beside one file per storage).
`torch.load(weights_only=True)` refuses what Lightning keeps beside
the tensors (`defaultdict`, `Namespace`, paths); here no name in the pickle is imported
and nothing is called: tensors become descriptions that are read when asked for,
everything else an inert object.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
from safetensors import safe_open

from nisbjax.errors import InputError
from nisbjax.store import files, npy

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Of a safetensors file; it may have others, such as those of 8 bits.
SAFETENSORS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
LARGEST_RATIO = (
    10  # of an npz file's arrays to the file; deflate takes an eighth off floats
)
_MOST_AXES = 16
LARGEST_PICKLE = 1 << 28  # bytes; a pickle of names and shapes is a thousandth of it


class Tensor:
    """Where a tensor lies in the archive; `read` gives the array."""

    def __init__(self, load: Callable[[], np.ndarray]):
        self.read = load


class Entries(dict):
    """A dict of a pickle; entries under anything but text are dropped.

    Tuples that hold one another take forever to hash, or overflow the stack, and numbers
    can be chosen by the thousand to have the same hash.
    """

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, str):
            super().__setitem__(key, value)


class Inert(Entries):
    """Stands for any object of a pickle that is no tensor; does and imports nothing."""

    def __new__(cls, *args: Any, **kwargs: Any):
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return Inert()

    def __setstate__(self, state: Any) -> None:
        """A pickle's BUILD; the state is dropped."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def append(self, item: Any) -> None:
        """A pickle's APPEND; the item is dropped."""

    def extend(self, items: Any) -> None:
        """A pickle's APPENDS; the items are dropped."""

    def add(self, item: Any) -> None:
        """A pickle's ADDITEMS; the item is dropped."""


# The C unpickler sizes its memo by the largest index that a file names, so that a few
# bytes could ask for all memory; the Python one keeps a dict.
_PYTHONS: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class _Unpickler(_PYTHONS):
    def _push_entries(self) -> None:
        self.append(Entries())

    def _push_dict(self) -> None:
        items, found = self.pop_mark(), Entries()
        for key, value in zip(items[::2], items[1::2], strict=True):
            found[key] = value
        self.append(found)

    def _push_set(self) -> None:
        self.append(Inert())

    def _push_frozen_set(self) -> None:
        self.pop_mark()
        self.append(Inert())

    # By opcode; no dict or set hashes what it is given.
    dispatch: ClassVar[dict[int, Any]] = {
        **_PYTHONS.dispatch,
        pickle.EMPTY_DICT[0]: _push_entries,
        pickle.DICT[0]: _push_dict,
        pickle.EMPTY_SET[0]: _push_set,
        pickle.FROZENSET[0]: _push_frozen_set,
    }

    def __init__(self, data: bytes, storage: Callable[[str, Any], np.ndarray]):
        super().__init__(io.BytesIO(data))
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return type(name, (Inert,), {"dtype": np.dtype(STORAGES[name])})
        if module == "torch._utils" and name in (
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
        ):
            return lambda *arguments: _rebuild_tensor(*arguments)
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        return Inert

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            return Inert()
        _, kind, key, _, count = pid
        dtype = getattr(kind, "dtype", None)
        if dtype is None or not isinstance(count, int) or not isinstance(key, str):
            return Inert()
        return lambda: self._storage(key, dtype)[:count]


def _rebuild_tensor(storage, offset, size, stride, *_):
    def load() -> np.ndarray:
        values = storage()
        numbers = (offset, *size, *stride)
        if not len(size) == len(stride) <= _MOST_AXES or any(
            not isinstance(n, int) or not 0 <= n < 1 << 63 for n in numbers
        ):
            raise ValueError("a tensor of impossible shape")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride))
        if math.prod(size) == 0:
            return np.zeros(size, values.dtype)
        # A stride of 0 would let a small file ask for any amount of memory.
        if last >= values.size or math.prod(size) > values.size:
            raise ValueError("a tensor that is larger than its storage")
        strides = [step * values.itemsize for step in stride]
        view = np.lib.stride_tricks.as_strided(values[offset:], size, strides)
        return view.copy()

    return Tensor(load)


def read_torch(path: Path) -> Any:
    """The object that `torch.save` wrote: dicts, lists, numbers, `Tensor`s and `Inert`s.

    Raises:
      InputError: not such a file, truncated, compressed, or larger than it says.
    """
    try:
        archive = zipfile.ZipFile(path)
        entries = archive.infolist()
        # torch stores without compression, so what is in the file is its size at most.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed entries, which torch never writes")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("entries that are larger than the file")
        (record,) = [e for e in entries if e.filename.endswith("/data.pkl")]
        if record.file_size > LARGEST_PICKLE:
            raise ValueError(f"a pickle of {record.file_size} bytes")
        folder = record.filename.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("big-endian storages")

        def storage(key: str, dtype: np.dtype) -> np.ndarray:
            return np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)

        return _Unpickler(archive.read(record), storage).load()
    except Exception as error:  # a hostile pickle may raise anything at all
        raise _unreadable(path, "a torch checkpoint (zip archive)", error) from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a safetensors file.

    Raises:
      InputError: not such a file; the library looks at all of its header.
    """
    files.require_regular(path)
    try:
        file = safe_open(path, framework="np")
        return {name: Tensor(partial(_load, file, name)) for name in file.offset_keys()}
    except Exception as error:  # likewise
        raise _unreadable(path, "a safetensors file", error) from error


def _load(file: Any, name: str) -> np.ndarray:
    kind = file.get_slice(name).get_dtype()
    if kind not in SAFETENSORS:
        raise TypeError(f"it has values of type {kind}")
    return file.get_tensor(name)


def read_npz(path: Path) -> dict[str, Tensor]:
    """Names and arrays of an npz file, compressed or not; pickled arrays are refused."""
    try:
        with zipfile.ZipFile(path) as entries:
            size = sum(entry.file_size for entry in entries.infolist())
        if size > LARGEST_RATIO * path.stat().st_size:
            raise ValueError(
                f"entries that unpack to {size} bytes, as weights never do"
            )
        archive = npy.Archive(path)
        return {name: Tensor(lambda name=name: archive[name]) for name in archive.names}
    except Exception as error:  # likewise
        raise _unreadable(path, "an npz file of plain arrays", error) from error


def read_array(path: Path, name: str, tensor: Tensor) -> np.ndarray:
    """The values of one tensor, bfloat16 widened to float32."""
    try:
        values = tensor.read()
        if not isinstance(values, np.ndarray):  # a pickle may overwrite `read`
            raise TypeError("it is no tensor")
        if values.dtype.kind not in "biuf" and values.dtype != ml_dtypes.bfloat16:
            raise TypeError(f"it has values of type {values.dtype}")
    except Exception as error:  # truncated, or lies about its size
        raise _unreadable(path, f"a file that holds all of {name}", error) from error
    return values.astype(np.float32) if values.dtype == ml_dtypes.bfloat16 else values


def _unreadable(path: Path, wanted: str, error: Exception) -> InputError:
    reason = str(error) or type(error).__name__
    return InputError(f"{path} is not {wanted}: {reason}; copy or export it again")
