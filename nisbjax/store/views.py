"""Views: TensorStores whose chunks a function reads from a file of another format.

The function is a module-level one under `ts.virtual_chunked`, called once for each chunk
in TensorStore's threads, so that a view pickles as (path, dataset) and reopens in a
worker. PyTC loads such files whole.
"""

import functools
import os
import re
from collections.abc import Callable
from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError

_EDGES = (256, 64, 64)  # of what is read at once, from the last axis: 1 to 8 MB


def view(
    reader: Callable[..., None],
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
    *,
    own_threads: bool = False,
) -> ts.TensorStore:
    """A TensorStore over `reader(domain, chunk, parameters)`, which fills `chunk`.

    Args:
      reader: a function of a module, called in TensorStore's threads.
      shape: of the array.
      dtype: of the array.
      chunks: of what is read at once.
      own_threads: for a reader that reads other TensorStores itself: in the threads that
        all share, it would wait for those who wait for it.
    """
    context = ts.Context({"data_copy_concurrency": {"limit": 2}} if own_threads else {})
    layout = ts.ChunkLayout(chunk_shape=chunks, inner_order=range(len(shape)))
    reader = functools.partial(_alone, reader)
    return ts.virtual_chunked(
        reader,
        dtype=ts.dtype(dtype),
        shape=shape,
        chunk_layout=layout,
        context=context if own_threads else None,
    )


def _alone(reader: Callable[..., None], *arguments: Any) -> None:
    """Lets the reader's errors out without those that they arose from.

    TensorStore pickles an error to carry it between its threads. Where `distributed` is
    loaded, tblib pickles `__context__` with it, in spite of `from None`, and some codecs'
    errors (imagecodecs' of LZW) cannot be pickled: TensorStore then has no words at all.
    """
    try:
        return reader(*arguments)
    except InputError as error:
        problem = InputError(str(error))
    raise problem


def chunk_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Cubes for a file that has no chunks: long along the last axis, one channel each."""
    edges = (*(1,) * len(shape), *_EDGES[::-1])[-len(shape) :] if shape else ()
    return tuple(max(min(e, s), 1) for e, s in zip(edges, shape, strict=True))


def unreadable(error: Exception, source: str) -> Exception:
    """What to raise for an error of a read: one line on the file, in most cases.

    Args:
      error: of TensorStore's, whose types say little (a damaged chunk is a `ValueError`),
        or of a view's reader.
      source: path of the volume.

    Returns:
      The error itself where it says enough already.
    """
    if isinstance(error, InputError):
        return error
    text = words(error)
    # Of a sharded array, `shard entry {1, 0, 0}/{2, 1, 1} in local file "..."`.
    found = re.match(r'Error reading .*?local file "(.*?)": (.*)', text, re.DOTALL)
    if found is None:
        return InputError(f"{source} cannot be read: {text}")
    chunk, problem = found.groups()
    where = f"its chunk {os.path.relpath(chunk, os.path.realpath(source))}"
    return damage(source, where, problem)


def words(error: BaseException) -> str:
    """TensorStore's own words, without its status and the specification that it appends."""
    text = re.split(r" \[(?:tensorstore_spec=|source locations=)", str(error))[0]
    return re.sub(r"^[A-Z_]+: ", "", text)


def damage(path: Any, part: str, problem: Any) -> InputError:
    """The error for a part of a file that cannot be read."""
    return InputError(
        f"{path} is damaged: {part} cannot be read ({problem}); copy or write it again"
    )
