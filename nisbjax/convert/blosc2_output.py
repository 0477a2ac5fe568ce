"""Blosc2 arrays in a file, in chunks, box by box; our words are metadata of variable length."""

import pathlib
from typing import Any

from nisbjax.convert import copying
from nisbjax.convert.plan import Plan
from nisbjax.store import blosc2_file, extras, files
from nisbjax.store.volume import Volume


def words(path: pathlib.Path) -> dict[str, Any]:
    """What a file says of itself; nothing of what is no array."""
    blosc2 = extras.imported("blosc2", blosc2_file.EXTRA, path)
    try:
        return blosc2_file.attributes_of(blosc2.open(str(path), mode="r"))
    except Exception:  # noqa: BLE001 (RuntimeError, ValueError, KeyError, ..)
        return {}


def write(plan: Plan, source: Volume, said: dict[str, Any], path: pathlib.Path) -> None:
    """Writes an array to a file, in place.

    Args:
      plan: of the conversion.
      source: in the order of the output.
      said: what the file says of itself.
      path: of the file.
    """
    blosc2 = extras.imported("blosc2", blosc2_file.EXTRA, path)
    chunks = plan.in_order(plan.chunks, plan.chunk_channels())
    codec = blosc2.Codec.ZSTD if plan.compression == "zstd" else None
    packing = {"codec": codec, "clevel": 3} if codec is not None else {"clevel": 0}
    output = blosc2.empty(
        source.shape,
        plan.dtype,
        urlpath=str(path),
        mode="w",
        chunks=tuple(map(min, chunks, source.shape)),
        cparams=packing,
    )
    boxes = copying.boxes_of(plan, plan.levels[0])
    pending: Any = None
    for box in [*boxes, None]:
        ahead = None if box is None else (box, source.start_read(box))
        if pending is not None:
            box, reading = pending
            by_axis = dict(zip("xyz", box.slices, strict=True))
            index = tuple(by_axis.get(a, slice(None)) for a in source.axes)
            output[index] = copying.of_type(plan, box, reading.result())
        pending = ahead
    for name, value in files.plain(said).items():
        output.schunk.vlmeta[name] = value
