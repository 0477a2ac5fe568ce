"""Random crops as functions of (seed, step, sample), read ahead in threads, put on device.

A volume is drawn uniformly (PyTC's lazy reader) or in proportion to its size (BANIS), then
a start uniformly among all positions of the crop. Nothing depends on the number of threads, hosts or restarts: batch
n is always the same arrays, where PyTC and BANIS draw from unseeded workers. Validation is
a fixed list of crops, where both draw new ones each time.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer, Shaped

from nisbjax.data.labels import relabel_components
from nisbjax.data.nisb import Pair
from nisbjax.errors import InputError, require_choice
from nisbjax.geometry import Box
from nisbjax.store.unlabeled import parse_codes, to_int32
from nisbjax.typing import Triple

SAMPLINGS = ("uniform", "volume")
_ATTEMPTS = 32  # at a crop with a labeled object
_ENDLESS = 2**31 - 1


class Crop(NamedTuple):
    """Where a sample comes from."""

    pair: int
    box: Box  # may reach beyond a volume that is smaller than the crop


class Batch(NamedTuple):
    """Crops of one step, on the devices; every field is sharded over samples alike."""

    images: Shaped[Any, "b x y z c"]  # as stored, uint8 as a rule
    labels: Int32[Any, "b x y z"]
    scales: Float32[Any, "b 4"]  # `intensity.Scale` of each
    samples: Int32[Any, " b"]  # index in the global batch, for the sample's random key
    real: Bool[Any, " b"]  # False: only there to fill the last validation batch
    # Which of the rule's radii; None where all volumes have the first.
    erosion: Int32[Any, " b"] | None = None


class Loader:
    """Batches of crops of a list of volumes.

    Attributes:
      steps: number of batches of a fixed list; None where batches are drawn without end.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        crop: Triple,
        *,
        seed: int,
        global_batch: int,
        count: int | None = None,
        sampling: str = "uniform",
        shares: Sequence[float] = (),
        relabel: bool = False,
        sharding: jax.sharding.Sharding | None = None,
        threads: int = 4,
        prefetch: int = 4,
    ):
        """Sets up; reads nothing.

        Args:
          pairs: volumes. One that is smaller than the crop on some axis is extended
            there: the image by reflection, the labels by -1 (unlabeled). Beyond labels of
            a part the image is read on. A mask makes labels -1 where it is 0.
          crop: shape to read: the patch and its target context.
          seed: of the run.
          global_batch: samples of one batch on all hosts together.
          count: of a fixed list of validation crops; None draws new ones at each step.
          sampling: `uniform` over volumes, or `volume`: in proportion to their voxels.
          shares: probability of each volume instead; () for that of `sampling`.
          relabel: gives the pieces into which a crop cuts an object ids of their own.
          sharding: of every field's leading axis; None puts batches on the first device.
            A host reads only the samples of its own devices.
          threads: that read and relabel, one batch each; 0 for none of their own.
          prefetch: batches read ahead, and so held in memory: `threads` where that is
            more, since a thread without one would be idle; 0 for none.

        Raises:
          InputError: no volume, or another word for `sampling`, or for `unlabeled` of one.
        """
        if not pairs:
            raise InputError("no volume to draw crops from; check data.root")
        require_choice("data.sampling", sampling, SAMPLINGS)
        for pair in pairs:
            parse_codes(pair.unlabeled)
        self._pairs = list(pairs)
        self._crop = crop
        self._seed = seed
        self._global_batch = global_batch
        self._count = count
        self._relabel = relabel
        self._sharding = sharding
        self._threads = threads
        self._ahead = max(prefetch, threads) if prefetch and threads else 0
        self._shares: list[float] | None = list(shares) or None
        if not shares and sampling == "volume":
            voxels = [math.prod(pair.labels.spatial_shape) for pair in self._pairs]
            self._shares = [n / sum(voxels) for n in voxels]
        self._erosions = any(pair.erosion for pair in self._pairs)
        self._dtype = _common([pair.image.dtype for pair in self._pairs])
        self.steps = None if count is None else -(-count // global_batch)

    def batches(self, first: int = 0, last: int | None = None) -> Iterator[Batch]:
        """Batches `first`, `first + 1`, ..., up to but not including `last`."""
        last = (self.steps or _ENDLESS) if last is None else last
        options = grain.ReadOptions(
            num_threads=self._threads, prefetch_buffer_size=self._ahead
        )
        steps = grain.MapDataset.range(first, last).map(self.batch)
        return iter(steps.to_iter_dataset(options))

    def batch(self, step: int) -> Batch:
        """One batch, read now.

        Raises:
          InputError: a volume in which no crop with a labeled object was found.
        """
        return self._put(self._rows_of(int(step), self._local_samples()))

    def on_host(self, step: int, samples: Sequence[int] | None = None) -> Batch:
        """The batch of a step as numpy arrays, whatever the devices and hosts.

        Args:
          step: whose batch.
          samples: some of them; None for all.
        """
        wanted = range(self._global_batch) if samples is None else samples
        rows = self._rows_of(step, list(wanted))
        fields = zip(*rows.values(), strict=True)
        return Batch(*map(_stacked, Batch._fields, map(list, fields)))

    def _rows_of(self, step: int, samples: list[int]) -> dict[int, Batch]:
        # All reads are started before the first is waited for.
        started = {
            sample: (crop := self.draw(step, sample), self._read(crop))
            for sample in samples
        }
        rows = {}
        for sample, (crop, reads) in started.items():
            crop, image, labels = self._with_object(step, sample, crop, reads)
            if self._relabel:
                labels = relabel_components(labels)
            number = step * self._global_batch + sample
            pair = self._pairs[crop.pair]
            rows[sample] = Batch(
                image.astype(self._dtype, copy=False),
                labels,
                np.asarray(pair.scale, np.float32),
                np.asarray(sample, np.int32),
                np.asarray(self._count is None or number < self._count),
                np.asarray(pair.erosion, np.int32) if self._erosions else None,
            )
        return rows

    def draw(self, step: int, sample: int, attempt: int = 0) -> Crop:
        """The crop of a sample; another one for each attempt that found no object."""
        stream = (0, step, sample)
        if self._count is not None:  # a fixed list, whatever the batch
            stream = (1, (step * self._global_batch + sample) % self._count, 0)
        generator = np.random.default_rng((self._seed, *stream, attempt))
        if self._shares is None:
            pair = int(generator.integers(len(self._pairs)))
        else:
            pair = int(generator.choice(len(self._pairs), p=self._shares))
        start = []
        sizes = self._pairs[pair].labels.spatial_shape
        for size, crop in zip(sizes, self._crop, strict=True):
            free = size - crop
            start.append(int(generator.integers(free + 1)) if free >= 0 else free // 2)
        x, y, z = start
        return Crop(pair, Box.whole(self._crop).shift((x, y, z)))

    def describe(self, step: int, samples: Sequence[int] | None = None) -> list[str]:
        """Source and box of samples of a step, to reproduce what went wrong.

        Args:
          step, samples: as `on_host`.
        """
        lines = []
        for sample in range(self._global_batch) if samples is None else samples:
            crop = self.draw(step, sample)
            crop, _, _ = self._with_object(step, sample, crop, self._read(crop))
            pair = self._pairs[crop.pair]
            lines.append(f"{pair.image.source} {crop.box.shift(pair.offset)}")
        return lines

    def _with_object(
        self, step: int, sample: int, crop: Crop, reads: tuple[Any, ...]
    ) -> tuple[Crop, np.ndarray, np.ndarray]:
        """The crop if it holds a labeled object, or the next one drawn that does."""
        for attempt in range(1, _ATTEMPTS + 1):
            image, labels = self._finish(reads, crop)
            if labels.max() > 0:
                return crop, image, labels
            if attempt < _ATTEMPTS:
                crop = self.draw(step, sample, attempt)
                reads = self._read(crop)
        raise InputError(
            f"{self._pairs[crop.pair].labels.source}: {_ATTEMPTS} crops of shape "
            f"{self._crop} hold no labeled object (all background or unlabeled); check "
            "the labels"
        )

    def _read(self, crop: Crop) -> tuple[Any, ...]:
        """Starts reading image, labels and mask; futures, of the mask where there is one."""
        pair = self._pairs[crop.pair]
        box = crop.box.clip(pair.labels.spatial_shape)
        seen = crop.box.shift(pair.offset).clip(pair.image.spatial_shape)
        reads = pair.image.start_read(seen), pair.labels.start_read(box)
        return reads if pair.mask is None else (*reads, pair.mask.start_read(box))

    def _finish(
        self, reads: tuple[Any, ...], crop: Crop
    ) -> tuple[Shaped[np.ndarray, "x y z c"], Integer[np.ndarray, "x y z"]]:
        pair = self._pairs[crop.pair]
        image, labels = np.asarray(reads[0].result()), np.asarray(reads[1].result())
        labels = to_int32(labels, pair.unlabeled)
        if len(reads) > 2:
            labels = np.where(reads[2].result(), labels.astype(np.int32), np.int32(-1))
        beyond = _beyond(crop.box.shift(pair.offset), pair.image.spatial_shape)
        if beyond:
            image = np.pad(image, [*beyond, (0, 0)], mode="reflect")
        unknown = _beyond(crop.box, pair.labels.spatial_shape)
        if unknown:
            labels = np.pad(labels.astype(np.int32), unknown, constant_values=-1)
        return image, labels

    def _local_samples(self) -> list[int]:
        if self._sharding is None:
            return list(range(self._global_batch))
        shards = self._sharding.addressable_devices_indices_map((self._global_batch,))
        return sorted({i for index in shards.values() for i in self._samples_at(index)})

    def _samples_at(self, index: tuple[slice, ...] | None) -> range:
        """Samples of one device, from its index into an array of the whole batch."""
        return range(self._global_batch)[index[0] if index else slice(None)]

    def _put(self, rows: dict[int, Batch]) -> Batch:
        fields = []
        for name in Batch._fields:
            values = {sample: getattr(row, name) for sample, row in rows.items()}
            if next(iter(values.values())) is None:
                fields.append(None)
                continue
            if self._sharding is None:
                fields.append(jax.device_put(_stacked(name, list(values.values()))))
                continue

            def shard(index: Any, name=name, values: dict = values) -> np.ndarray:
                return _stacked(
                    name, [values[sample] for sample in self._samples_at(index)]
                )

            shape = (self._global_batch, *next(iter(values.values())).shape)
            fields.append(jax.make_array_from_callback(shape, self._sharding, shard))
        return Batch(*fields)


def _beyond(box: Box, shape: Triple) -> list[tuple[int, int]]:
    """Voxels of a box before and behind a volume on each axis; [] where there are none."""
    inside = box.clip(shape)
    if inside == box:
        return []
    lows = [low - want for want, low in zip(box.start, inside.start, strict=True)]
    highs = [stop - high for high, stop in zip(inside.stop, box.stop, strict=True)]
    return list(zip(lows, highs, strict=True))


def _common(dtypes: Sequence[np.dtype]) -> np.dtype:
    """A type that holds the grey values of all volumes, since they meet in batches."""
    found = np.result_type(*dtypes)
    if len(set(dtypes)) > 1 and (found.kind == "f" or found.itemsize > 4):
        return np.dtype(np.float32)
    return found


def _stacked(name: str, values: list[Any]) -> Any:
    """Samples side by side; labels become int32 in the same pass over memory."""
    if values[0] is None:
        return None
    dtype = np.int32 if name == "labels" else values[0].dtype
    out = np.empty((len(values), *values[0].shape), dtype)
    for place, value in enumerate(values):
        out[place] = value
    return out
