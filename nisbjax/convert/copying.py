"""Copies a volume box by box into an output of chunks, then each scale from the one before.

The next box is read while one is written, so memory stays at a few boxes. A box is recorded
in the manifest once it is durable, so a conversion that was killed goes on.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import tensorstore as ts

from nisbjax.console.progress import Progress
from nisbjax.convert import arrays
from nisbjax.convert.plan import Plan, bytes_a_voxel
from nisbjax.convert.pyramid import Level
from nisbjax.convert.sending import Sending
from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid, fit_box
from nisbjax.store import stored
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Reading, Volume
from nisbjax.typing import Triple


class UnfitLabelError(InputError):
    """A label that the type of the output does not hold."""


def copy(plan: Plan, manifest: Manifest, sent: Sending | None) -> None:
    """Writes what the manifest does not know of yet; all is durable when this returns.

    Args:
      plan: what is to be done.
      manifest: of the output.
      sent: what moves chunks to an address; None where they stay.
    """
    boxes = [boxes_of(plan, level) for level in plan.levels]
    count = sum(map(len, boxes))
    done = sum(
        manifest.done(key_of(level, box))
        for level, parts in zip(plan.levels, boxes, strict=True)
        for box in parts
    )
    with Progress("convert", count, "boxes", done=done) as progress:
        before = plan.source
        for level, parts in zip(plan.levels, boxes, strict=True):
            output = arrays.open_level(plan, level)
            files = stored.ChunkFiles.of_any(output.store)
            for box, values in _values(
                plan, level, before, _left(parts, level, manifest)
            ):
                output.write(box, of_type(plan, box, values))
                known = stored.of_box(files, output.at(box), manifest.artifact)
                if sent is not None:
                    sent.move(known)
                manifest.record(key_of(level, box), known)
                progress.update()
            before = arrays.open_sent(plan, level) if sent else output


def key_of(level: Level, box: Box) -> str:
    """What a manifest calls a box of a scale."""
    return f"scale {level.number} {box}"


def of_type(plan: Plan, box: Box, values: np.ndarray) -> np.ndarray:
    """Values of the input in the output's type.

    Raises:
      InputError: a label that it does not hold, with the box of the input where it lies.
    """
    if values.dtype.kind in "iu" and plan.dtype.kind in "iu":
        info = np.iinfo(plan.dtype)
        for label in (int(values.min()), int(values.max())):
            if not info.min <= label <= info.max:
                raise UnfitLabelError(
                    f"{plan.source.source} holds {label} in the box {box}, which "
                    f"{plan.dtype} does not hold; wanted a convert.dtype that does, or "
                    "labels without it"
                )
    return values.astype(plan.dtype, copy=False)


def boxes_of(plan: Plan, level: Level) -> list[Box]:
    """Boxes of whole chunks, of the input too where memory holds them."""
    chunks = tuple(map(min, plan.chunks, level.shape))
    need = bytes_a_voxel(plan, level)
    unit = chunks
    if not level.number:
        found = plan.source.spatial_chunks
        whole = tuple(
            min(math.ceil(f / c) * c, n)
            for f, c, n in zip(found, chunks, level.shape, strict=True)
        )
        if math.prod(whole) * need <= plan.memory_bytes:
            unit = whole
    x, y, z = unit
    return box_grid(
        level.shape, fit_box(level.shape, (x, y, z), need, plan.memory_bytes)
    )


def _left(parts: Iterable[Box], level: Level, manifest: Manifest) -> list[Box]:
    return [box for box in parts if not manifest.done(key_of(level, box))]


def _values(
    plan: Plan, level: Level, before: Volume, boxes: list[Box]
) -> Iterator[tuple[Box, np.ndarray]]:
    """Boxes and their voxels, in the axes of the input; the next box is on its way."""
    ahead: tuple[Box, Reading | ts.Future] | None = None
    for box in boxes:
        begun = box, _start(plan, level, before, box)
        if ahead is not None:
            yield ahead[0], np.asarray(ahead[1].result())
        ahead = begun
    if ahead is not None:
        yield ahead[0], np.asarray(ahead[1].result())


def _start(plan: Plan, level: Level, before: Volume, box: Box) -> Reading | ts.Future:
    if level.step == (1, 1, 1):
        return before.start_read(box)
    larger = Box(_times(box.start, level.step), _times(box.stop, level.step))
    part = before.at(larger.clip(before.spatial_shape))
    step = dict(zip("xyz", level.step, strict=True))
    factors = [step.get(a, 1) for a in before.axes]
    return ts.downsample(part, factors, method=plan.reduction).read()


def _times(a: Triple, b: Triple) -> Triple:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]
