"""Outputs that are one file: HDF5 as PyTC reads it, and TIFF stacks.

They are written beside and renamed when they are complete, so one that is there is whole; a
conversion that was killed writes them from the beginning. A TIFF says in its description what
it was made from, as HDF5 does in its attributes.
"""

import functools
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile

from nisbjax.convert import copying
from nisbjax.convert.plan import Plan, in_order
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import exported, files, manifest
from nisbjax.store.volume import Volume

_ADVICE = "remove it or name another output"
_MADE_FROM = "made_from"
_COMPRESSIONS = {"zlib": "zlib", "none": None}


def require_ours(plan: Plan) -> None:
    """Refuses to replace what somebody else wrote, or of another input; writes nothing.

    Raises:
      InputError: naming what is in the way.
    """
    if plan.format.name == "hdf5":
        exported.require_ours(plan.path, plan.made_from, _ADVICE, begun=False)
        return
    if not plan.path.exists():
        return
    files.require_regular(plan.path)
    found = _description(plan.path).get(_MADE_FROM)
    if not isinstance(found, dict):
        raise InputError(
            f"{plan.path} is in the way and says not that it is ours; remove it or name "
            "another"
        )
    manifest.require_equal(plan.path, found, plan.made_from)


def write(plan: Plan) -> bool:
    """Writes the file, unless it is there; says whether it did."""
    source = _as_stored(plan)
    if plan.format.name == "hdf5":
        if exported.is_whole(plan.path, plan.made_from):
            return False
        chunks = plan.in_order(plan.chunks, plan.chunk_channels())
        chunks = tuple(map(min, chunks, source.shape))
        boxes = copying.boxes_of(plan, plan.levels[0])
        exported.export_hdf5(
            source,
            plan.path,
            chunks=chunks,
            made_from=plan.made_from,
            dtype=plan.dtype,
            boxes=boxes,
            changed=functools.partial(copying.of_type, plan),
        )
        return True
    if plan.path.exists():
        return False
    _write_tiff(plan, source)
    return True


def _as_stored(plan: Plan) -> Volume:
    """The input in the order of the output, and in its own type."""
    source = plan.source
    store = in_order(source.store, source.axes, plan.order)
    return Volume(
        store,
        plan.order,
        plan.attributes_of(plan.levels[0]),
        source.source,
        source.stored_axes,
        source.guard,
    )


def _write_tiff(plan: Plan, source: Volume) -> None:
    """Planes of z one after another, channel by channel."""
    words = {**source.attributes, _MADE_FROM: plan.made_from}
    described = {
        "axes": plan.order.upper(),
        **{k: v for k, v in words.items() if k != "axes"},
    }
    size = plan.voxel_size_nm
    # Pixels along x and y in a centimetre, of 1e7 nm.
    density = (1e7 / size[0], 1e7 / size[1]) if size else None
    with files.replacing(plan.path) as temporary:
        tifffile.imwrite(
            temporary,
            _planes(plan, source),
            shape=source.shape,
            dtype=plan.dtype,
            bigtiff=True,
            photometric="minisblack",
            compression=_COMPRESSIONS[plan.compression],
            metadata=files.plain(described),
            resolution=density,
            resolutionunit="CENTIMETER" if density else None,
        )


def _planes(plan: Plan, source: Volume) -> Iterator[np.ndarray]:
    """Planes [y x], read in slabs that memory holds, the next while one is written."""
    leading = source.shape[:-2]
    itemsize = max(plan.dtype.itemsize, source.dtype.itemsize)
    plane = math.prod(source.shape[-2:]) * itemsize
    many = max(1, int(plan.memory_bytes / 4 / plane))
    chunk = max(source.spatial_chunks[2], 1)
    many = max(many // chunk * chunk, min(many, chunk))
    pending: Any = None
    for at in np.ndindex(*leading[:-1]):
        for start in range(0, leading[-1], many):
            stop = min(start + many, leading[-1])
            index = (*at, slice(start, stop), slice(None), slice(None))
            box = Box((0, 0, start), (source.shape[-1], source.shape[-2], stop))
            ahead = box, source.start_read(index)
            if pending is not None:
                yield from copying.of_type(plan, pending[0], pending[1].result())
            pending = ahead
    if pending is not None:
        yield from copying.of_type(plan, pending[0], pending[1].result())


def _description(path: pathlib.Path) -> dict[str, Any]:
    """The JSON of a TIFF's description; nothing of another program's."""
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            found = json.loads(file.pages.first.description)
    except Exception:  # noqa: BLE001 (tifffile has many for what is no TIFF)
        return {}
    return found if isinstance(found, dict) else {}
