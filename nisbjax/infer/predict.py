"""Full-volume affinities: windows through the network, blended, written box by box.

Window order and weights follow BANIS `inference.py`; PyTC's lazy path keeps both
accumulators for the whole volume in memory (162 GB for a LICONN cube), where here a y-z
tile sweeps along x and holds one window plus one slab of planes. Reading the next windows
and writing the last slab overlap the device's work; a finished slab is recorded in the
manifest, so that a killed run is resumed and writes the same bytes.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32
from tqdm import tqdm

from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid
from nisbjax.infer.blend import Sweep, window_weights
from nisbjax.infer.conversion import DEFAULT, Apply, Conversion, make_program
from nisbjax.infer.tiles import finished_chunks, slabs_of, tile_shape, unfinished_runs
from nisbjax.infer.windows import Grid, Windows, read_ahead
from nisbjax.parallel.devices import DATA, replicated, split_batch
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple, Weights


@dataclasses.dataclass(frozen=True)
class Job:
    """Which part of a volume is predicted, on what, and who is told.

    Attributes:
      region: the part of the image that the output covers; all of it where None. Values
        are those of the whole volume's prediction.
      mesh: devices; a batch is split over its axis `data`. None for one device.
      manifest: which slabs are done; they are skipped, new ones recorded.
      observe: called with each finished slab's box (in output voxels) and values [c x y z]
        before they are recorded; what it returns is kept in the manifest with the slab.
    """

    region: Box | None = None
    mesh: Mesh | None = None
    manifest: Manifest | None = None
    observe: Callable[[Box, np.ndarray], dict[str, Any]] | None = None


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
    job: Job = Job(),
) -> None:
    """Predicts a volume and writes it slab by slab, in float32 until the last rounding.

    Values do not depend on `memory_gb`, on interruptions, or on the number of equal
    devices at a fixed `batch_per_device`: windows come in fixed-size batches (the last
    one padded) and every voxel adds its windows in C order of the grid.

    Args:
      apply: the network, `(params, images [b x y z c] float32) -> logits [b x y z o]`.
      params: its parameters, on the host or on devices.
      image: [x y z c]; bytes travel to the device as they are.
      output: [c x y z], writable; its type is the one predictions are rounded to (uint8
        stands for value x 255).
      grid: of windows over the whole image.
      batch_per_device: windows that one device takes at a time.
      memory_gb: for accumulators, read-ahead and writes on the host; what the network
        itself needs comes on top.
      conversion: of grey values into inputs and of logits into affinities.
      job: which part, on which devices, and what is done already.

    Raises:
      InputError: shapes, channels or names that do not fit, or a budget that does not
        hold one tile.
    """
    region = job.region or Box.whole(grid.shape)
    _check(image, output, grid, conversion.channels, region)
    program = make_program(apply, conversion, job.mesh)
    span = np.array(conversion.normalization.range_of(image), np.float32)
    weights = window_weights(grid.window, conversion.blend)
    everywhere = replicated(job.mesh) if job.mesh is not None else None
    params, span = jax.device_put((params, span), everywhere)
    forward = functools.partial(program, params, span)

    batch = batch_per_device * (job.mesh.shape[DATA] if job.mesh is not None else 1)
    slab, tile = tile_shape(
        image, output, grid, batch=batch, memory_bytes=int(memory_gb * 1e9)
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
    with (
        tqdm(total=total, desc="predict", unit="window", disable=None) as progress,
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
    ):
        for run in runs:
            groups = read_ahead(reader, image, grid, run.shift(region.start))
            answers = _answers(forward, groups, batch, job.mesh)
            slabs = _Slabs(output, job, run, slab, weights, writer)
            with contextlib.closing(slabs):
                for start, predicted in answers:
                    slabs.add(start, predicted)
                    progress.update()
                slabs.finish()


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
    forward: Callable[[Any], Any],
    groups: Iterator[Windows],
    batch: int,
    mesh: Mesh | None,
) -> Iterator[tuple[Triple, Float32[np.ndarray, "c x y z"]]]:
    """Predictions of all windows in order; two batches are on the device at a time."""
    sharding = split_batch(mesh) if mesh is not None else None
    windows = itertools.chain.from_iterable(groups)
    flying: collections.deque[tuple[list[Triple], Any]] = collections.deque()
    while taken := list(itertools.islice(windows, batch)):
        starts = [start for start, _ in taken]
        images = np.zeros((batch, *taken[0][1].shape), taken[0][1].dtype)
        for i, (_, values) in enumerate(taken):
            images[i] = values
        flying.append((starts, forward(jax.device_put(images, sharding))))
        if len(flying) == 2:
            yield from _fetch(*flying.popleft())
    while flying:
        yield from _fetch(*flying.popleft())


def _fetch(starts: list[Triple], predicted: Any) -> Iterator[tuple[Triple, Any]]:
    values = jax.device_get(predicted)
    yield from zip(starts, values, strict=False)  # padded windows are dropped


class _Slabs:
    """One run of slabs: sums its windows, and writes each slab behind the computation.

    Args:
      output: [c x y z].
      job: its region, manifest and observer.
      run: the slabs' voxels, in the output's coordinates.
      slab: planes of a slab.
      weights: of a window.
      writer: one thread; a slab is written while the next is computed.
    """

    def __init__(
        self,
        output: Volume,
        job: Job,
        run: Box,
        slab: int,
        weights: Weights,
        writer: ThreadPoolExecutor,
    ):
        self._output = output
        self._job = job
        self._origin = job.region.start if job.region is not None else (0, 0, 0)
        self._run = run
        self._waiting = collections.deque(slabs_of(run, slab))
        self._writer = writer
        self._being_written: Future[None] | None = None
        tile = run.shift(self._origin)
        self._sweep = Sweep(
            tile,
            channels=output.shape[0],
            planes=min(weights.shape[0] + slab, tile.shape[0]),
            weights=weights,
        )

    def add(self, start: Triple, predicted: Float32[np.ndarray, "c x y z"]) -> None:
        """Adds the next window, after the slabs that it does not reach were written."""
        self._write_before(start[0] - self._origin[0])
        self._sweep.add(start, predicted)

    def finish(self) -> None:
        """Writes the slabs that are left; all of them are durable when this returns."""
        self._write_before(self._run.stop[0])
        self._wait()

    def close(self) -> None:
        self._sweep.close()

    def _write_before(self, x: int) -> None:
        """Writes every slab that ends at or before output plane x."""
        while self._waiting and self._waiting[0].stop[0] <= x:
            box = self._waiting.popleft()
            first = box.start[0] + self._origin[0]
            values = self._sweep.take(first, first + box.shape[0], self._output.dtype)
            self._wait()
            self._being_written = self._writer.submit(self._write, box, values)

    def _wait(self) -> None:
        if self._being_written is not None:
            self._being_written.result()

    def _write(self, box: Box, values: np.ndarray) -> None:
        self._output.write(box, values)
        observe, manifest = self._job.observe, self._job.manifest
        facts = observe(box, values) if observe is not None else {}
        if manifest is not None:
            known = self._output.chunk_facts(box, manifest.artifact)
            manifest.record(str(box), known, **facts)
