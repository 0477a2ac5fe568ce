"""The prediction stage: a checkpoint and an image become one file of affinities.

The work file is always zarr with a manifest; `predict.format = h5` adds the file that PyTC
writes (`raw_x1_ch0-1-2.h5`, dataset `main`), complete or absent. Unlike there, every file
says what made it: axes, voxel size, offsets, source, weights and software.
"""

import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

import nisbjax
from nisbjax import checkpoint
from nisbjax.artifacts import VolumeDir
from nisbjax.config import optional, require_choice
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer import tta
from nisbjax.infer.check import check
from nisbjax.infer.compute_dtype import compute_dtype
from nisbjax.infer.predict import predict_volume
from nisbjax.infer.windows import Grid
from nisbjax.keys import determines
from nisbjax.models import build
from nisbjax.parallel import devices
from nisbjax.qc import stage as qc
from nisbjax.qc.gathering import Gathering
from nisbjax.store import exported, lock
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.manifest import Manifest, noted, path_inside, require_same
from nisbjax.store.volume import (
    Volume,
    create_zarr,
    fingerprint,
    open_affinities,
    open_image,
)
from nisbjax.typing import Triple

_DTYPES = ("float16", "float32", "uint8")
_CHUNK = (64, 128, 128)  # thin in x, along which prediction sweeps


@dataclasses.dataclass(frozen=True)
class Network:
    """A function of parameters and images, and where its parameters come from.

    Attributes:
      apply: (params, images [b x y z c]) -> logits [b x y z o].
      params: pytree of arrays.
      facts: checkpoint step, `ema` or `raw`, sha256 of the parameters; for attributes.
    """

    apply: Callable[[Any, Any], Any]
    params: Any
    facts: dict[str, Any]


def load_network(config: Any, path: pathlib.Path) -> Network:
    """The network of a checkpoint, with the weights that `predict.weights` names.

    Args:
      config: keys `model`, `predict.weights`, and `predict.precision` with the activation
        that it goes with.
      path: of a checkpoint, or of the run that holds it (the newest is taken).

    Raises:
      InputError: no checkpoint there, it is of another model, or no such precision.
    """
    items = checkpoint.weight_items(config.predict.weights)
    found = checkpoint.find(path, items)
    arguments = config.model.to_dict()
    checkpoint.require_model(found, build.describe(arguments))
    like = build.abstract_params(arguments)
    params = checkpoint.weights(found, config.predict.weights, like)
    step = checkpoint.step_of(found)
    return _network(config, params, {"weights": config.predict.weights, "step": step})


def untrained_network(config: Any) -> Network:
    """The network as it is drawn from the seed, for comparison."""
    params = build.initial_params(config.model.to_dict(), config.seed)
    return _network(config, params, {"weights": "untrained", "step": 0})


def _network(config: Any, params: Any, facts: dict[str, Any]) -> Network:
    predict = config.predict
    dtype = compute_dtype(predict.precision, predict.activation, predict.scale)
    apply = build.make_apply(config.model.to_dict(), dtype, remat=False)
    if config.model.deep_supervision:
        apply = _finest(apply)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(params)):
        digest.update(np.ascontiguousarray(leaf).data)
    return Network(apply, params, facts | {"params_sha256": digest.hexdigest()})


def _finest(pyramid: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda params, images: pyramid(params, images)[0]


def run(
    config: Any, network: Network, image_path: str | pathlib.Path, target: VolumeDir
) -> pathlib.Path:
    """Predicts one image; goes on where an earlier attempt stopped.

    Args:
      config: keys `predict`, `data.voxel_size_nm`, `data.offsets`, `data.normalize`,
        `data.percentiles`.
      network: from `load_network`.
      image_path: [x y z c] or [x y z]; `predict.input` wins over it.
      target: where the affinities go, unless `predict.output` names a file.

    Returns:
      The finished file, in `predict.format`.

    Raises:
      InputError: a key without meaning, an image that does not suit the network, an output
        that another configuration or program began, or that another process writes.
    """
    settings = config.predict
    require_choice("predict.format", settings.format, ("h5", "zarr"))
    require_choice("predict.dtype", settings.dtype, _DTYPES)
    require_choice("predict.tta", settings.tta, tta.KINDS)
    source = optional(settings.input) or str(image_path)
    image = open_image(source)
    require_chunks_fit(image, settings.memory_gb)
    if image.shape[-1] != config.model.in_channels:
        raise InputError(
            f"{image.source} has {image.shape[-1]} channels, model.in_channels is "
            f"{config.model.in_channels}; wanted the same"
        )
    work, final = _paths(settings, target)
    grid = Grid(
        image.spatial_shape,
        _triple(settings.window),
        settings.overlap,
        settings.edge_windows,
    )
    roi = optional(settings.roi)
    region = Box.parse(roi) if roi else Box.whole(grid.shape)
    check(config, network.apply, network.params, image, grid, region, _CHUNK)
    made_from = {
        **determines.facts(config, "prediction"),
        "image": fingerprint(source),
        "network": network.facts,
        "shape": list(region.shape),
    }
    require_same(work, made_from)
    if final != work:
        begun = noted(work, final.name) is not None
        exported.require_ours(final, made_from, begun=begun)
    with lock.writing(work):
        alone = final != work and not path_inside(work).exists()
        if alone and exported.is_whole(final, made_from):
            logging.info("%s is there already; %s is not needed", final, work)
        else:
            _write(config, network, image, grid, region, made_from, target)
    return final


def _write(
    config: Any,
    network: Network,
    image: Volume,
    grid: Grid,
    region: Box,
    made_from: dict[str, Any],
    target: VolumeDir,
) -> None:
    """What is missing of the work file, and the file that is asked for."""
    settings = config.predict
    work, final = _paths(settings, target)
    started = time.monotonic()
    with Manifest(work, made_from) as manifest:
        manifest.verify()
        output = create_zarr(
            work,
            shape=(len(settings.channels), *region.shape),
            dtype=settings.dtype,
            chunks=(1, *_CHUNK),
            axes="cxyz",
            attributes=_attributes(config, image, made_from, region),
        )
        already = manifest.finished
        if not already:
            gathering = _gathering(config, image, output, target)
            _predict(config, network, image, output, grid, region, manifest, gathering)
            gathering.finish(manifest.keys, target.plane_statistics)
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
    logging.info(
        "predicted %s from %s: %d windows, %.1f s, %s",
        image.source,
        network.facts,
        grid.count,
        seconds,
        final,
    )


def _predict(
    config: Any,
    network: Network,
    image: Volume,
    output: Volume,
    grid: Grid,
    region: Box,
    manifest: Manifest,
    gathering: Gathering,
) -> None:
    settings = config.predict
    flips = None
    if settings.tta == "flips":
        flips = _offsets_of(config, settings.channels)
    # A process predicts on its own devices; several hosts take a volume or a region each.
    mesh = devices.make_mesh(((devices.DATA, -1),), jax.local_devices())
    predict_volume(
        network.apply,
        network.params,
        image,
        output,
        grid,
        batch_per_device=settings.batch_per_device,
        memory_gb=settings.memory_gb,
        channels=tuple(settings.channels),
        activation=settings.activation,
        scale=settings.scale,
        normalize=config.data.normalize,
        percentiles=config.data.percentiles,
        blend=settings.blend,
        flips=flips,
        mesh=mesh,
        manifest=manifest,
        region=region,
        observe=gathering.observe,
    )


def _offsets_of(config: Any, channels: Any) -> tuple[Triple, ...]:
    offsets = config.data.offsets
    unknown = [c for c in channels if c >= len(offsets)]
    if unknown:
        raise InputError(
            f"predict.tta=flips needs the offset of channel {unknown[0]}, and data.offsets "
            f"names {len(offsets)}; set --config.predict.tta=none"
        )
    return tuple(_triple(offsets[c]) for c in channels)


def _gathering(
    config: Any, image: Volume, output: Volume, target: VolumeDir
) -> Gathering:
    """Statistics for QC; its border rows need an image of the prediction's shape."""
    made_from = qc.identity(output.attributes, config.qc)
    border = None
    if image.spatial_shape == output.spatial_shape:
        border = qc.find_border(image, config.qc)
    folder = pathlib.Path(output.source) / ".planes"  # goes where the prediction goes
    return Gathering(folder, output.shape[0], output.spatial_shape, made_from, border)


def _paths(settings: Any, target: VolumeDir) -> tuple[pathlib.Path, pathlib.Path]:
    """The zarr that is worked in, and the file that is asked for."""
    output = optional(settings.output)
    if not output:
        work, final = (
            target.raw(format, settings.channels)
            for format in ("zarr", settings.format)
        )
        return work, final
    path = pathlib.Path(output)
    if path.suffix not in (".zarr", ".h5"):
        raise InputError(
            f"predict.output is {output!r}; wanted a name that ends in .zarr or .h5"
        )
    return path.with_suffix(".zarr"), path


def _attributes(
    config: Any, image: Volume, made_from: dict[str, Any], region: Box
) -> dict[str, Any]:
    settings = config.predict
    offsets = [list(o) for o in config.data.offsets]
    return {
        "kind": "affinities",
        "voxel_size_nm": list(config.data.voxel_size_nm),
        "offsets": [
            offsets[c] if c < len(offsets) else None for c in settings.channels
        ],
        "edge_stored_at": config.data.edge_stored_at,
        "activation": settings.activation,
        "scale": settings.scale,
        "window": list(settings.window),
        "overlap": settings.overlap,
        "edge_windows": settings.edge_windows,
        "blend": settings.blend,
        "tta": settings.tta,
        "box": str(region),
        "volume_shape": list(image.spatial_shape),
        "source": str(pathlib.Path(image.source).absolute()),
        "source_fingerprint": made_from["image"],
        "config_fingerprint": determines.digest(determines.facts(config, "prediction")),
        "network": made_from["network"],
        "software": f"nisbjax {nisbjax.__version__}",
    }


def _triple(values: Any) -> Triple:
    x, y, z = (int(v) for v in values)
    return x, y, z
