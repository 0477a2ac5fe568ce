"""What a file claims of its shape and chunks, checked by arithmetic before it is read.

A header of a hundred bytes can ask for a chunk of terabytes, for which a library aborts
the process, or for 2^60 voxels, over which a stage runs for ever. h5py, TensorStore and
tifffile (and so PyTC) believe such headers.
"""

import math
from typing import Any

import numpy as np
import psutil

from nisbjax.errors import InputError

MOST_VOXELS = 1 << 53  # nine petabytes of bytes
_MOST_AXES = 32
_NEGLIGIBLE = 1 << 24  # bytes; less than starting Python takes
_LARGEST = 1 << 63


def require_possible(source: Any, shape: Any, chunks: Any, itemsize: int) -> None:
    """Refuses a shape or chunks that no array on this machine can have.

    Args:
      source: path, for messages.
      shape: as the file has it, of whatever type.
      chunks: shape of what is read at once, of whatever type.
      itemsize: bytes of a voxel.

    Raises:
      InputError: no list of whole numbers, too many axes or voxels, or a chunk that does
        not fit the machine's memory in its two forms, as stored and as an array.
    """
    for name, values, least in (("shape", shape, 0), ("chunks", chunks, 1)):
        good = isinstance(values, list | tuple) and all(
            isinstance(v, int) and not isinstance(v, bool) and least <= v < _LARGEST
            for v in values
        )
        if not good:
            raise InputError(
                f"{source} claims {name} {_short(values)}; wanted whole numbers from "
                f"{least}; the file is damaged or was not written by a sound program"
            )
    if len(shape) > _MOST_AXES or len(shape) != len(chunks):
        raise InputError(
            f"{source} claims {len(shape)} axes in chunks of {len(chunks)}; wanted as many "
            f"of each, and at most {_MOST_AXES}"
        )
    if math.prod(shape) > MOST_VOXELS:
        raise InputError(
            f"{source} claims the shape {tuple(shape)}, {math.prod(shape):.2g} voxels; "
            f"wanted at most {MOST_VOXELS:.2g}; the file is damaged or was not written by "
            "a sound program"
        )
    size = math.prod(chunks) * itemsize
    memory = psutil.virtual_memory().total
    if 2 * size > memory:
        raise InputError(
            f"{source} claims chunks of {tuple(chunks)}, {size / 1e9:.3g} GB each, which "
            f"do not fit this machine's {memory / 1e9:.3g} GB of memory; write it again "
            "in smaller chunks"
        )


def require_numbers(source: Any, dtype: Any) -> np.dtype:
    """The type of an array's voxels as numpy has it.

    Raises:
      InputError: no type of numbers: text, records, complex numbers, or none known.
    """
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found is None or found.kind not in "biuf" or found.itemsize > 8:
        raise no_numbers(source, str(dtype))
    return found


def no_numbers(source: Any, held: str) -> InputError:
    """The error for voxels that are no numbers."""
    held = held.encode("ascii", "backslashreplace").decode()
    return InputError(f"{source} holds {held[:80]}; wanted numbers")


def require_bytes(source: Any, held: int, claimed: int) -> None:
    """Refuses a file that is shorter than what its header says.

    Raises:
      InputError: with both lengths.
    """
    if claimed > held:
        raise InputError(
            f"{source} was cut: its header claims data up to byte {claimed} and it has "
            f"{held}; copy or write it again"
        )


def require_chunks_fit(volume: Any, memory_gb: float) -> None:
    """Refuses a volume whose chunks alone exceed a stage's memory.

    Args:
      volume: a `Volume`.
      memory_gb: of the stage; a chunk is there twice while it is read, as the file has it
        and as an array.

    Raises:
      InputError: with the size of a chunk.
    """
    if not any(volume.store.chunk_layout.read_chunk.shape or ()):
        return  # an array in memory
    size = math.prod(volume.chunks) * volume.dtype.itemsize
    if 2 * size > max(memory_gb * 1e9, _NEGLIGIBLE):
        raise InputError(
            f"{volume.source} has chunks of {volume.chunks}, {size / 1e9:.3g} GB each; "
            f"reading one takes twice that and {memory_gb:g} GB were allowed; raise "
            "memory_gb or write the file again in smaller chunks"
        )


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
