"""Full-volume affinities: windows through the network, blended, written box by box.

Window order, weights and `sigmoid(0.2 x)` follow BANIS `inference.py`; PyTC's lazy path
keeps both accumulators for the whole volume in memory (162 GB for a LICONN cube), where
here a y-z tile sweeps along x and holds one window plus one slab of planes. Reading the
next windows and writing the last slab overlap the device's work; a finished slab is
recorded in the manifest, so a killed run goes on and writes the same bytes.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float32, Shaped
from tqdm import tqdm

from nisbjax.data.intensity import intensity_range, normalized
from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid, fit_box
from nisbjax.infer.blend import Sweep, window_weights
from nisbjax.infer.tta import mean_over_flips
from nisbjax.infer.windows import Grid, Windows, read_ahead
from nisbjax.parallel.devices import DATA, replicated, split_batch
from nisbjax.store import stored
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple

Apply = Callable[[Any, Any], Any]  # (params, images [b x y z c]) -> logits [b x y z o]
Observer = Callable[[Box, np.ndarray], dict[str, Any]]


def predict_volume(
    apply: Apply,
    params: Any,
    image: Volume,
    output: Volume,
    grid: Grid,
    *,
    batch_per_device: int = 8,
    memory_gb: float = 8.0,
    channels: tuple[int, ...] = (0, 1, 2),
    activation: str = "scale_sigmoid",
    scale: float = 0.2,
    normalize: str = "divide_255",
    percentiles: Sequence[float | int] = (0.0, 100.0),
    blend: str = "distance",
    flips: tuple[Triple, ...] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    manifest: Manifest | None = None,
    region: Box | None = None,
    observe: Observer | None = None,
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
      channels: of the logits that are kept, in this order.
      activation: `scale_sigmoid` is sigmoid(scale x logit), which does not saturate in
        half precision; `sigmoid`; `none`.
      scale: of `scale_sigmoid`.
      normalize, percentiles: as in training, see `intensity_range`; `none` takes values as
        they are, NaN and Inf as 0.
      blend: weights of overlapping windows, see `window_weights`.
      flips: offsets of the kept channels, to average over all flips of each window (see
        `tta`); None for one prediction of it.
      mesh: devices; a batch is split over its axis `data`.
      manifest: which slabs are done; they are skipped, new ones recorded.
      region: the part of the image that `output` covers; all of it where None. Values are
        those of the whole volume's prediction.
      observe: called with each finished slab's box (in output voxels) and values before
        they are recorded; what it returns is kept in the manifest with the slab.

    Raises:
      InputError: shapes, channels or names that do not fit, or a budget that does not
        hold one tile.
    """
    region = region or Box.whole(grid.shape)
    _check(image, output, grid, channels, region)
    scaled = normalize != "none"
    program = _program(
        apply, tuple(channels), activation, float(scale), mesh, flips, scaled
    )
    span = intensity_range(image, normalize, percentiles) if scaled else (0.0, 1.0)
    batch = batch_per_device * (mesh.shape[DATA] if mesh is not None else 1)
    weights = window_weights(grid.window, blend)
    everywhere = replicated(mesh) if mesh is not None else None
    params, span = jax.device_put((params, np.array(span, np.float32)), everywhere)
    forward = functools.partial(program, params, span)

    slab, tile = tile_shape(
        image, output, grid, batch=batch, memory_bytes=int(memory_gb * 1e9)
    )
    done = _done_chunks(manifest, output)
    runs = [
        run
        for column in box_grid(region.shape, (region.shape[0], *tile))
        for run in _undone_runs(column, slab, done, output.spatial_chunks)
    ]
    total = sum(len(grid.touching(run.shift(region.start))) for run in runs)
    with (
        tqdm(total=total, desc="predict", unit="window", disable=None) as progress,
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
    ):
        for run in runs:
            box = run.shift(region.start)
            groups = read_ahead(reader, image, grid, box)
            answers = _answers(forward, groups, batch, mesh)
            sweep = Sweep(
                box,
                channels=len(channels),
                planes=min(grid.window[0] + slab, box.shape[0]),
                weights=weights,
            )
            try:
                done = _Slabs(sweep, run, slab, output, manifest, observe, writer)
                for start, predicted in answers:
                    done.before(start[0] - region.start[0])
                    sweep.add(start, predicted)
                    progress.update()
                done.before(run.stop[0])
                done.wait()
            finally:
                sweep.close()


def tile_shape(
    image: Volume, output: Any, grid: Grid, *, batch: int, memory_bytes: int
) -> tuple[int, tuple[int, int]]:
    """Planes of a slab and the y-z shape of a tile that fit a memory budget.

    Of the output only `shape`, `dtype` and `spatial_chunks` are looked at.

    A tile holds, for each of its y-z voxels, sums for one window and one slab of planes,
    rounded slabs on their way to disk (finished, being written, being compressed), and
    image planes of three x positions (in use, waiting, being read).

    Raises:
      InputError: the budget does not hold one tile.
    """
    c, *shape = output.shape
    chunk = output.spatial_chunks
    slab = min(chunk[0], shape[0])
    planes = min(grid.window[0] + slab, shape[0])
    per_voxel = 4 * (c + 1) * planes + 3 * c * output.dtype.itemsize * slab
    in_image = 3 * grid.window[0] * image.shape[-1] * image.dtype.itemsize
    window_bytes = math.prod(grid.window) * (
        4 * c + image.shape[-1] * image.dtype.itemsize
    )
    room = memory_bytes - 4 * batch * window_bytes

    def cost(y: int, z: int) -> int:
        halo = [
            min(size, s) + 2 * w
            for size, s, w in zip((y, z), shape[1:], grid.window[1:], strict=True)
        ]
        return y * z * per_voxel + math.prod(halo) * in_image

    for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0):
        _, y, z = fit_box(
            (1, shape[1], shape[2]), (1, *chunk[1:]), float(per_voxel), share * room
        )
        if cost(y, z) <= room:
            return slab, (y, z)
    wanted = (cost(y, z) + 4 * batch * window_bytes) / 1e9
    raise InputError(
        f"predict.memory_gb={memory_bytes / 1e9:g} does not hold one tile; wanted at "
        f"least {wanted:.2f}, or a smaller predict.batch_per_device or predict.window"
    )


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


ACTIVATIONS = {
    # A plain sigmoid saturates in half precision (BANIS `scale_sigmoid`).
    "scale_sigmoid": lambda logits, scale: jax.nn.sigmoid(scale * logits),
    "sigmoid": lambda logits, scale: jax.nn.sigmoid(logits),
    "none": lambda logits, scale: logits,
}


@functools.lru_cache(maxsize=4)
def _program(
    apply: Apply,
    channels: tuple[int, ...],
    activation: str,
    scale: float,
    mesh: jax.sharding.Mesh | None,
    flipped: tuple[Triple, ...] | None,
    clip: bool,
) -> Callable[[Any, Any, Any], Any]:
    """Compiled (params, range, images [b x y z c]) -> float32 predictions [b o x y z]."""
    if activation not in ACTIVATIONS:
        raise InputError(
            f"predict.activation={activation!r} is not one of {sorted(ACTIVATIONS)}"
        )

    def predict(
        params: Any, span: Float32[Array, "2"], images: Shaped[Array, "b x y z c"]
    ) -> Float32[Array, "b o x y z"]:
        ranges = jnp.broadcast_to(span[None], (images.shape[0], 2))
        answer = functools.partial(predict_once, params)
        if flipped is not None:
            answer = mean_over_flips(answer, flipped)
        return answer(normalized(images, ranges, clip=clip))

    def predict_once(
        params: Any, images: Float32[Array, "b x y z c"]
    ) -> Float32[Array, "b o x y z"]:
        logits = apply(params, images)
        if logits.shape[:4] != images.shape[:4]:
            raise InputError(
                f"the network answers windows of {images.shape[1:4]} with "
                f"{logits.shape[1:4]}; wanted the same shape"
            )
        if min(channels) < 0 or max(channels) >= logits.shape[-1]:
            raise InputError(
                f"predict.channels={channels} were asked of a network with "
                f"{logits.shape[-1]} output channels"
            )
        kept = logits[..., np.asarray(channels)].astype(jnp.float32)
        return ACTIVATIONS[activation](jnp.moveaxis(kept, -1, 1), jnp.float32(scale))

    if mesh is None:
        return jax.jit(predict)
    whole, rows = PartitionSpec(), PartitionSpec(DATA)
    # Each device runs the one-device program on its share: equal devices, equal bits.
    shared = jax.shard_map(
        predict,
        mesh=mesh,
        in_specs=(whole, whole, rows),
        out_specs=rows,
        check_vma=False,
    )
    return jax.jit(shared)


def _answers(
    forward: Callable[[Any], Any],
    groups: Iterator[Windows],
    batch: int,
    mesh: jax.sharding.Mesh | None,
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


def _done_chunks(
    manifest: Manifest | None, output: Volume
) -> Bool[np.ndarray, "i j k"]:
    """Which output chunks are durable; earlier boxes may differ in size."""
    chunk, shape = output.spatial_chunks, output.spatial_shape
    done = np.zeros([-(-s // c) for s, c in zip(shape, chunk, strict=True)], bool)
    for key in manifest.keys if manifest is not None else ():
        done[_chunks_of(Box.parse(key), chunk)] = True
    return done


def _chunks_of(box: Box, chunk: Triple) -> tuple[slice, ...]:
    return tuple(
        slice(a // c, -(-b // c))
        for a, b, c in zip(box.start, box.stop, chunk, strict=True)
    )


def _undone_runs(
    column: Box, slab: int, done: Bool[np.ndarray, "i j k"], chunk: Triple
) -> list[Box]:
    """Stretches of a column, along x, of slabs with a chunk that is not durable yet."""
    runs: list[Box] = []
    for box in _slabs(column, slab):
        if done[_chunks_of(box, chunk)].all():
            continue
        if runs and runs[-1].stop[0] == box.start[0]:
            runs[-1] = Box(runs[-1].start, box.stop)
        else:
            runs.append(box)
    return runs


def _slabs(run: Box, slab: int) -> list[Box]:
    _, *yz = run.start
    shape = run.shape
    return [
        box.shift((run.start[0], yz[0], yz[1]))
        for box in box_grid(shape, (slab, shape[1], shape[2]))
    ]


@dataclasses.dataclass
class _Slabs:
    """Takes finished slabs from a sweep and writes them, one behind the computation."""

    sweep: Sweep
    run: Box
    slab: int
    output: Volume
    manifest: Manifest | None
    observe: Observer | None
    writer: ThreadPoolExecutor

    def __post_init__(self):
        self._waiting = collections.deque(_slabs(self.run, self.slab))
        self._writing: Future[None] | None = None
        self._shift = self.sweep.tile.start[0] - self.run.start[0]

    def before(self, x: int) -> None:
        """Writes every slab that ends at or before output plane x."""
        while self._waiting and self._waiting[0].stop[0] <= x:
            box = self._waiting.popleft()
            values = self.sweep.take(
                box.start[0] + self._shift, box.stop[0] + self._shift, self.output.dtype
            )
            self.wait()
            self._writing = self.writer.submit(self._write, box, values)

    def wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self, box: Box, values: np.ndarray) -> None:
        self.output.write(box, values)
        facts = self.observe(box, values) if self.observe is not None else {}
        if self.manifest is not None:
            known = stored.of_box(self.output.at(box), self.manifest.artifact)
            self.manifest.record(str(box), known, **facts)
