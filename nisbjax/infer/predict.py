"""Full-volume affinities: windows through the network, blended, written box by box.

Window order and weights follow BANIS `inference.py`; PyTC's lazy path keeps both
accumulators for the whole volume in memory (162 GB for a LICONN cube), where here a y-z
tile is computed along x, and its sums lie on the device for the slabs that one window
touches. Reading the next windows and writing the last slab overlap the device's work.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Float32

from nisbjax.console import quantities
from nisbjax.console.progress import Progress
from nisbjax.data.intensity import Scale
from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid
from nisbjax.infer.blend import window_weights
from nisbjax.infer.conversion import DEFAULT, Apply, Conversion, make_program
from nisbjax.infer.device_memory import device_bytes
from nisbjax.infer.slabs import WHOLE, Job, Slabs
from nisbjax.infer.tiles import finished_chunks, tile_shape, unfinished_runs
from nisbjax.infer.windows import Grid, Windows, read_ahead
from nisbjax.parallel import compilation_cache
from nisbjax.parallel.devices import DATA, replicated, split_batch
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple


def predict_volume(
    apply: Apply,
    params: Any,
    image: Volume,
    output: Volume,
    grid: Grid,
    *,
    batch_per_device: int = 8,
    memory_gb: float = 8.0,
    conversion: Conversion = DEFAULT,
    job: Job = WHOLE,
) -> None:
    """Predicts a volume and writes it slab by slab, in float32 until the last rounding.

    Values do not depend on `memory_gb`, on interruptions, or on the number of equal
    devices at a fixed `batch_per_device`: windows come in fixed-size batches (the last
    one padded) and every voxel adds its windows in C order of the grid.

    Args:
      apply: the network, `(params, images [b x y z c] float32) -> logits [b x y z o]`.
      params: its parameters, on the host or on devices.
      image: [x y z c], all of it; bytes travel to the device as they are.
      output: [c x y z], writable; its type is the one predictions are rounded to (uint8
        stands for value x 255).
      grid: of windows over the whole image.
      batch_per_device: windows that one device takes at a time.
      memory_gb: for read-ahead and writes on the host, and for sums where they are made in
        its memory; what the network itself needs comes on top.
      conversion: of grey values into inputs and of logits into affinities.
      job: which part, on which devices, and what is done already.

    Raises:
      InputError: shapes, channels or names that do not fit, or memory that does not hold
        one tile.
    """
    region = job.region or Box.whole(grid.shape)
    _check(image, output, grid, conversion.channels, region)
    image, scale = conversion.normalization.applied(image)
    forward = _forward(
        apply, params, image, scale, grid, conversion, job.mesh, batch_per_device
    )
    slab, tile = tile_shape(
        image,
        output,
        grid,
        batch=forward.batch.shape[0],
        memory_bytes=int(memory_gb * 1e9),
        device_bytes=forward.device_bytes,
    )
    keys = job.manifest.keys if job.manifest is not None else ()
    chunk = output.spatial_chunks
    done = finished_chunks(map(Box.parse, keys), output.spatial_shape, chunk)
    runs = [
        run
        for column in box_grid(region.shape, (region.shape[0], *tile))
        for run in unfinished_runs(column, slab, done, chunk)
    ]
    total = sum(len(grid.touching(run.shift(region.start))) for run in runs)
    logging.info(
        "predicting %d windows of %s, %d at a time",
        *(total, quantities.shape(grid.window), forward.batch.shape[0]),
    )
    with (
        Progress("predict", total, "windows") as progress,
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
    ):
        for run in runs:
            groups = read_ahead(reader, image, grid, run.shift(region.start))
            slabs = Slabs(output, job, run, slab, grid, forward.weights, writer)
            for starts, weighted in _answers(forward, groups):
                slabs.add(starts, weighted)
                progress.update(len(starts))
            slabs.finish()


class _Forward(NamedTuple):
    """The compiled program and what it takes.

    Attributes:
      run: images [b x y z c] -> predictions x weights [b c x y z].
      batch: shape, type and sharding of the images.
      weights: of a window, on the device on which windows are added.
      device_bytes: what is left there for sums; None where its memory is the host's.
    """

    run: Callable[[Any], Any]
    batch: jax.ShapeDtypeStruct
    weights: Float32[Array, "x y z"]
    device_bytes: int | None


def _forward(
    apply: Apply,
    params: Any,
    image: Volume,
    scale: Scale,
    grid: Grid,
    conversion: Conversion,
    mesh: Mesh | None,
    batch_per_device: int,
) -> _Forward:
    program = make_program(apply, conversion, mesh)
    weights = window_weights(grid.window, conversion.blend)
    ready = jax.device_put(
        (params, np.array(scale, np.float32), weights),
        replicated(mesh) if mesh is not None else None,
    )
    parts = mesh.shape[DATA] if mesh is not None else 1
    batch = jax.ShapeDtypeStruct(
        (batch_per_device * parts, *grid.window, image.shape[-1]),
        image.dtype,
        sharding=split_batch(mesh) if mesh is not None else None,
    )
    adding = ready[-1].addressable_shards[0]
    with compilation_cache.compiling("the network", "10 s"):
        left = device_bytes(program, (*ready, batch), adding.device, parts)
    return _Forward(functools.partial(program, *ready), batch, adding.data, left)


def _check(
    image: Volume,
    output: Volume,
    grid: Grid,
    channels: tuple[int, ...],
    region: Box,
) -> None:
    if image.axes != "xyzc" or image.spatial_shape != grid.shape:
        raise InputError(
            f"image {image.source} has axes {image.axes} and shape {image.shape}; wanted "
            f"x y z c over {grid.shape}"
        )
    if not Box.whole(grid.shape).contains(region) or region.empty:
        raise InputError(
            f"predict.roi {region} is not inside the image, {Box.whole(grid.shape)}"
        )
    wanted = (len(channels), *region.shape)
    if output.axes != "cxyz" or output.shape != wanted:
        raise InputError(
            f"output {output.source} has axes {output.axes} and shape {output.shape}; "
            f"wanted c x y z of {wanted}"
        )


def _answers(
    forward: _Forward, groups: Iterator[Windows]
) -> Iterator[tuple[list[Triple], Float32[Array, "b c x y z"]]]:
    """First voxels and weighted predictions of all windows in order, a batch at a time.

    The next batch is sent and begun before one is handed out. The last may be padded.
    """
    batch = forward.batch
    windows = itertools.chain.from_iterable(groups)
    before: tuple[list[Triple], Any] | None = None
    while taken := list(itertools.islice(windows, batch.shape[0])):
        starts = [start for start, _ in taken]
        images = np.zeros(batch.shape, batch.dtype)
        for i, (_, values) in enumerate(taken):
            images[i] = values
        begun = starts, forward.run(jax.device_put(images, batch.sharding))
        if before is not None:
            yield before
        before = begun
    if before is not None:
        yield before
