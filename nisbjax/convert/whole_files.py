"""Outputs that are one file: HDF5 as PyTC reads it, TIFF stacks, NIfTI and Blosc2.

They are written beside and renamed when they are complete, so one that is there is whole; a
conversion that was killed writes them from the beginning. Each says what it was made from: HDF5
in its attributes, TIFF in its description, NIfTI in a comment, Blosc2 in its metadata.
"""

import functools
import pathlib
from typing import Any

from nisbjax.convert import blosc2_output, copying, nifti_output, tiff_output
from nisbjax.convert.plan import Plan, in_order
from nisbjax.errors import InputError
from nisbjax.store import exported, files, manifest
from nisbjax.store.volume import Volume

_ADVICE = "remove it or name another output"
_MADE_FROM = "made_from"
_WRITERS: dict[str, Any] = {
    "tiff": tiff_output,
    "nifti": nifti_output,
    "nifti-gz": nifti_output,
    "blosc2": blosc2_output,
}


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
    found = _WRITERS[plan.format.name].words(plan.path).get(_MADE_FROM)
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
    said = {**source.attributes, _MADE_FROM: plan.made_from}
    with files.replacing(plan.path) as temporary:
        _WRITERS[plan.format.name].write(plan, source, said, pathlib.Path(temporary))
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
