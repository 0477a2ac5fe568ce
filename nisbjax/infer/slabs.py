"""Slabs of a prediction on their way: summed on a device, then written behind its back.

PyTC writes once all is predicted. Here a slab that no later window reaches is rounded, comes
down and is written while the next windows run, and is recorded once it is durable, so that a
killed run is resumed and writes the same bytes.
"""

import collections
import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Shaped

from nisbjax.geometry import Box
from nisbjax.infer.sums import Sums
from nisbjax.infer.tiles import slabs_of
from nisbjax.infer.windows import Grid
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple


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


WHOLE = Job()


class Slabs:
    """One run of slabs: sums its windows, and writes each slab behind the computation.

    Args:
      output: [c x y z].
      job: its region, manifest and observer.
      run: the slabs' voxels, in the output's coordinates.
      slab: planes of a slab.
      grid: of windows.
      weights: of a window, on the device that adds.
      writer: one thread; a slab is written while the next is computed.
    """

    def __init__(
        self,
        output: Volume,
        job: Job,
        run: Box,
        slab: int,
        grid: Grid,
        weights: Array,
        writer: ThreadPoolExecutor,
    ):
        self._output = output
        self._job = job
        self._origin = job.region.start if job.region is not None else (0, 0, 0)
        self._run = run
        self._waiting = collections.deque(slabs_of(run, slab))
        self._writer = writer
        self._being_written: Future[None] | None = None
        (self._device,) = weights.devices()
        self._sums = Sums(
            run.shift(self._origin), slab, grid, weights, channels=output.shape[0]
        )

    def add(self, starts: list[Triple], weighted: Float32[Array, "b c x y z"]) -> None:
        """Adds the next windows, each after slabs that it does not reach were taken.

        The batch before is waited for: the next one, which has begun, keeps the devices
        busy, and no third waits for memory.
        """
        self._sums.wait()
        shards = [s for s in weighted.addressable_shards if s.replica_id == 0]
        shards.sort(key=lambda s: s.index[0].start or 0)
        parts = [jax.device_put(s.data, self._device) for s in shards]
        each = len(parts[0])
        for i, start in enumerate(starts):
            self._write_before(start[0] - self._origin[0])
            self._sums.add(start, parts[i // each], i % each)

    def finish(self) -> None:
        """Writes the slabs that are left; all of them are durable when this returns."""
        self._write_before(self._run.stop[0])
        self._wait()

    def _write_before(self, x: int) -> None:
        """Writes every slab that ends at or before output plane x."""
        while self._waiting and self._waiting[0].stop[0] <= x:
            box = self._waiting.popleft()
            values = self._sums.take(box.shift(self._origin), self._output.dtype)
            values.copy_to_host_async()
            self._wait()
            self._being_written = self._writer.submit(self._write, box, values)

    def _wait(self) -> None:
        if self._being_written is not None:
            self._being_written.result()

    def _write(self, box: Box, on_device: Shaped[Array, "c x y z"]) -> None:
        values = np.asarray(on_device)
        self._output.write(box, values)
        observe, manifest = self._job.observe, self._job.manifest
        facts = observe(box, values) if observe is not None else {}
        if manifest is not None:
            known = self._output.chunk_facts(box, manifest.artifact)
            manifest.record(str(box), known, **facts)
