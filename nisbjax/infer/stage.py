"""The prediction stage: a checkpoint and an image become one file of affinities.

The work file is always zarr with a manifest; `predict.format = h5` adds the file that PyTC
writes (`raw_x1_ch0-1-2.h5`, dataset `main`), complete or absent. Unlike there, every file
says what made it: axes, voxel size, offsets, source, weights and software.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from absl import logging

from nisbjax.console import quantities
from nisbjax.data.normalization import Normalization
from nisbjax.errors import InputError, require_choice
from nisbjax.geometry import Box
from nisbjax.infer import tta
from nisbjax.infer.affinity_attributes import EdgeGeometry, attributes
from nisbjax.infer.check import check as refuse_unfit
from nisbjax.infer.conversion import Conversion
from nisbjax.infer.network import Network
from nisbjax.infer.predict import predict_volume
from nisbjax.infer.slabs import Job
from nisbjax.infer.windows import Grid
from nisbjax.keys.checks import optional
from nisbjax.parallel import devices
from nisbjax.store import absent_chunks, exported, lock, redo
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.description import file_lines
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.manifest import Manifest, require_same
from nisbjax.store.manifest_lines import noted, path_inside
from nisbjax.store.volume import Volume, create_zarr, open_affinities, open_image
from nisbjax.typing import Section

_MADE_OF = "network"  # what this stage alone makes things of
_ADVICE = redo.advice("predict")
_DTYPES = ("float16", "float32", "uint8")
# Of real affinities (FIB-25, float16) twice as many bytes a second as level 3 of zstd, and 6 %
# more of them on disk: compression is half of what prediction costs a host.
COMPRESSOR = {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1}
_CHUNK = (64, 128, 128)  # thin in x, along which prediction sweeps


@dataclasses.dataclass(frozen=True)
class PredictionFiles:
    """Where a prediction is written.

    Attributes:
      work: the zarr that is worked in.
      final: the file that is asked for: `work` itself, or an HDF5 file.
      redo: what this stage made there is replaced, whatever it was made with.
    """

    work: pathlib.Path
    final: pathlib.Path
    redo: bool = False

    def check(self, made_from: Mapping[str, Any]) -> None:
        """Refuses what lies there and is not to be gone on with, or not to be replaced."""
        if self.redo:
            redo.require_ours(self.work, _MADE_OF)
        else:
            require_same(self.work, made_from, _ADVICE)
        if self.final != self.work:
            begun = noted(self.work, self.final.name) is not None
            wanted = None if self.redo else made_from
            exported.require_ours(self.final, wanted, _ADVICE, begun=begun)

    def remove(self) -> None:
        """Both files, while the lock of `work` is held."""
        redo.remove(self.work, _MADE_OF)
        if self.final != self.work and self.final.exists():
            logging.info("replacing %s, as --redo asks", self.final)
            self.final.unlink()


@runtime_checkable
class Observer(Protocol):
    """Who looks at affinities as they are written, so that nobody reads them again."""

    def observe(self, box: Box, values: np.ndarray) -> dict[str, Any]:
        """Takes a slab's box and values [c x y z]; facts to be kept with it."""
        ...

    def finish(self, keys: Sequence[str]) -> None:
        """All slabs, their boxes as text, are there; the prediction is not sealed yet."""
        ...


MakeObserver = Callable[[Volume, Volume], Observer]  # of the image and the prediction


def run(
    section: Section,
    network: Network,
    image_path: str | pathlib.Path,
    target: PredictionFiles,
    *,
    normalization: Normalization,
    edges: EdgeGeometry,
    determined_by: Mapping[str, Any],
    make_observer: MakeObserver,
) -> pathlib.Path:
    """Predicts one image; an earlier attempt that was stopped is resumed.

    Args:
      section: `predict`; where image and output lie is said by the next two.
      network: from `load_network`.
      image_path: [x y z c] or [x y z].
      target: where the affinities go.
      normalization: of the image, as in training.
      edges: of the network's channels.
      determined_by: the keys that determine the affinities, with their values: an output
        that others made is refused.
      make_observer: who looks on, made once image and output are open.

    Returns:
      `target.final`, finished.

    Raises:
      InputError: a key without meaning, an image that does not suit the network, an output
        that another configuration or program began, or that another process writes.
    """
    plan = _planned(section, network, image_path, normalization, edges, determined_by)
    work, final, made_from = target.work, target.final, plan.made_from
    target.check(made_from)
    with lock.writing(work):
        if target.redo:
            target.remove()
        alone = final != work and not path_inside(work).exists()
        if alone and exported.is_whole(final, made_from):
            logging.info("%s is there already; %s is not needed", final, work)
        else:
            _write(plan, target, make_observer)
    return final


def check(
    section: Section,
    network: Network,
    image_path: str | pathlib.Path,
    target: PredictionFiles,
    *,
    normalization: Normalization,
    edges: EdgeGeometry,
    determined_by: Mapping[str, Any],
) -> None:
    """Refuses what `run` would, and writes nothing; arguments as of `run`.

    Raises:
      InputError: as `run`.
    """
    plan = _planned(section, network, image_path, normalization, edges, determined_by)
    target.check(plan.made_from)


@dataclasses.dataclass(frozen=True)
class _Prediction:
    """A prediction that was checked, and is not begun.

    Attributes:
      section: `predict`.
      network: with its parameters.
      image: [x y z c].
      grid: of windows over it.
      region: the part that is predicted.
      conversion: of grey values and logits.
      made_from: what the affinities are made from, for the manifest.
      attributes: of the file.
    """

    section: Section
    network: Network
    image: Volume
    grid: Grid
    region: Box
    conversion: Conversion
    made_from: dict[str, Any]
    attributes: dict[str, Any]


def _planned(
    section: Section,
    network: Network,
    image_path: str | pathlib.Path,
    normalization: Normalization,
    edges: EdgeGeometry,
    determined_by: Mapping[str, Any],
) -> _Prediction:
    require_choice("predict.format", section.format, ("h5", "zarr"))
    require_choice("predict.dtype", section.dtype, _DTYPES)
    require_choice("predict.tta", section.tta, tta.KINDS)
    image = open_image(image_path)
    require_chunks_fit(image, section.memory_gb)
    if image.shape[-1] != network.in_channels:
        raise InputError(
            f"{image.source} has {image.shape[-1]} channels, model.in_channels is "
            f"{network.in_channels}; wanted the same"
        )
    x, y, z = section.window
    grid = Grid(image.spatial_shape, (x, y, z), section.overlap, section.edge_windows)
    roi = optional(section.roi)
    region = Box.parse(roi) if roi else Box.whole(grid.shape)
    refuse_unfit(
        section,
        network,
        image,
        grid,
        region,
        chunk=_CHUNK,
        normalization=normalization,
        offsets=edges.offsets,
    )
    made_from = {
        **determined_by,
        "image": fingerprint(image_path),
        _MADE_OF: network.facts,
        "shape": list(region.shape),
    }
    conversion = Conversion(
        normalization,
        tuple(section.channels),
        section.activation,
        section.scale,
        section.blend,
        edges.of(section.channels) if section.tta == "flips" else None,
    )
    said = attributes(section, edges, image, region, determined_by, made_from)
    return _Prediction(
        section, network, image, grid, region, conversion, made_from, said
    )


def _write(
    plan: _Prediction, target: PredictionFiles, make_observer: MakeObserver
) -> None:
    """What is missing of the work file, and the file that is asked for."""
    work, final, made_from = target.work, target.final, plan.made_from
    absent_chunks.say(plan.image)
    started = time.monotonic()
    with Manifest(work, made_from) as manifest:
        manifest.verify()
        output = create_zarr(
            work,
            shape=(len(plan.conversion.channels), *plan.region.shape),
            dtype=plan.section.dtype,
            chunks=(1, *_CHUNK),
            axes="cxyz",
            attributes=plan.attributes,
            compressor=COMPRESSOR,
        )
        already = manifest.finished
        if not already:
            observer = make_observer(plan.image, output)
            _predict(plan, output, manifest, observer)
            observer.finish(manifest.keys)
            manifest.finish()
        whole = final == work or exported.is_whole(final, made_from)
        if already and whole:
            logging.info("%s is there already", final)
            return
        if not whole:
            manifest.note(final.name)  # a file there that cannot be read is ours, then
            exported.export_hdf5(open_affinities(work), final, made_from=made_from)
            manifest.require_present()
    seconds = time.monotonic() - started
    logging.info("predicted in %s; wrote %s", quantities.duration(seconds), final)


def _predict(
    plan: _Prediction, output: Volume, manifest: Manifest, observer: Observer
) -> None:
    # A process predicts on its own devices; several hosts take a volume or a region each.
    mesh = devices.make_mesh(((devices.DATA, -1),), jax.local_devices())
    batch = plan.section.batch_per_device
    said = file_lines(plan.image)
    logging.info("predicting %s\non %s", said, devices.describe())
    predict_volume(
        plan.network.apply_to(batch, plan.grid.window),
        plan.network.params,
        plan.image,
        output,
        plan.grid,
        batch_per_device=batch,
        memory_gb=plan.section.memory_gb,
        conversion=plan.conversion,
        job=Job(plan.region, mesh, manifest, observer.observe),
    )
