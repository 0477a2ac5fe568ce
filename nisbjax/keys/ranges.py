"""One table: what every key of the configuration may hold.

`check` is asked once for every mode, before a folder, a manifest or `config.json` is
touched; what depends on data (channels of a network, the shape of an image) is asked by the
stages before their first write. PyTC checks values where they are used, which is often after
the first file is written; here a key without an entry does not pass either.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from nisbjax.config import flatten
from nisbjax.errors import InputError
from nisbjax.keys import shapes
from nisbjax.keys.checks import (
    LARGEST,
    LARGEST_LOGIT,
    axes,
    box,
    name,
    number_text,
    or_none,
    path,
    path_here,
    require,
    several,
    shown,
    switch,
    triple,
    whole,
)
from nisbjax.store.schema import Kind, either, number, one_of
from nisbjax.typing import Config

# How the names of outputs may end.
OUTPUT_ENDINGS = {
    "predict.output": (".zarr", ".h5"),
    "decode.output": (".zarr",),
    "skeletonize.output": (".pkl",),
}

_SHARE = number(0.0, 1.0)  # a probability, or a threshold of affinities
_LOGIT = number(-LARGEST_LOGIT, LARGEST_LOGIT)
_POSITIVE = number(0.0, above=True)
_NOT_NEGATIVE = number(0.0)
_MEMORY = number(0.0, 1e6, above=True)  # GB
_HOURS = number(0.0, 1e9)
_CHANNELS = whole(1, 4096)
_BATCH = whole(1, 65536)
_THREADS = whole(0, 1024)
_RADII = triple(whole(0, 1024))
_TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_TYPES += ("float16", "float32", "float64")
_VOXELS = triple(whole(1), LARGEST, "three whole numbers x y z, each 1 or more")


RANGES: dict[str, Kind] = {
    "name": name(),
    "seed": whole(0),
    "data.kind": one_of("nisb", "files"),
    "data.root": path(),
    "data.train.image": path(),
    "data.train.label": path(),
    "data.train.axes": axes(),
    "data.train.box": box(),
    "data.train.label_offset": shapes.label_offset(),
    "data.train.mask": path(),
    "data.val.image": path(),
    "data.val.label": path(),
    "data.val.skeleton": path(),
    "data.val.axes": axes(),
    "data.val.box": box(),
    "data.val.label_offset": shapes.label_offset(),
    "data.val.mask": path(),
    "data.test.image": path(),
    "data.test.label": path(),
    "data.test.axes": axes(),
    "data.test.box": box(),
    "data.test.skeleton": path(),
    "data.cache_gb": number(0.0, 1e6),
    "data.voxel_size_nm": triple(_POSITIVE),
    "data.normalize": one_of(
        "divide_255", "range", "min_max", "percentile", "zscore", "clahe"
    ),
    "data.normalize_per": one_of("volume", "slice"),
    "data.percentiles": shapes.percentiles(),
    "data.grey_range": shapes.grey_range(),
    "data.clahe_tile": whole(8, 65536),
    "data.clahe_clip": number(0.0, 1.0, above=True),
    "data.invert": switch(),
    "data.patch": _VOXELS,
    "data.sampling": one_of("uniform", "volume"),
    "data.offsets": shapes.offsets(),
    "data.edge_stored_at": one_of("source", "destination"),
    "data.unlabeled": shapes.unlabeled(),
    "data.relabel": switch(),
    "data.erosion": _RADII,
    "data.long_erosion": or_none(_RADII),
    "data.erosion_axes": one_of("legacy", "xy", "xyz"),
    "augment.profile": one_of("aug_banis", "none"),
    "augment.order": one_of("pytc", "banis"),
    "augment.permute": _SHARE,
    "augment.rotate90": _SHARE,
    "augment.flip": _SHARE,
    "augment.drop": _SHARE,
    "augment.drop_slice": _SHARE,
    "augment.shift": _SHARE,
    "augment.shift_slice": _SHARE,
    "augment.shift_voxels": whole(0),
    "augment.affine": _SHARE,
    "augment.rotation": _NOT_NEGATIVE,
    "augment.scale": number(0.0, 1.0, below=True),
    "augment.shear": one_of("offdiag", "composed"),
    "augment.shear_range": _NOT_NEGATIVE,
    "augment.shear_coefficients": one_of(3, 6),
    "augment.intensity": _SHARE,
    "augment.intensity_scale": _NOT_NEGATIVE,
    "augment.intensity_shift": _NOT_NEGATIVE,
    "augment.noise": _SHARE,
    "augment.noise_std": _NOT_NEGATIVE,
    "model.size": one_of("S", "B", "M", "L"),
    "model.kernel_size": one_of(3, 5, 7),
    "model.in_channels": _CHANNELS,
    "model.out_channels": _CHANNELS,
    "model.channels": _CHANNELS,
    "model.deep_supervision": switch(),
    "model.remat": shapes.recomputed(),
    "model.kernels": one_of("auto", "xla", "pallas"),
    "model.upkern": switch(),
    "loss.kind": one_of("per_channel_bce", "bce"),
    "loss.max_pos_weight": _POSITIVE,
    "loss.balance_group": whole(0),
    "loss.logit_clamp": _NOT_NEGATIVE,
    "loss.calibre_max": number(1.0),
    "loss.scnp": one_of(1, 3, 5, 7),
    "train.steps": whole(1),
    "train.batch_per_device": _BATCH,
    "train.global_batch": whole(0),
    "train.accumulate": _BATCH,
    "train.precision": one_of("fp16", "bf16", "fp32"),
    "train.val_every": whole(0),
    "train.val_crops": whole(1),
    "train.log_every": whole(0),
    "train.ckpt_every": whole(0),
    "train.ckpt_best": whole(0),
    "train.ckpt_last_minutes": whole(0),
    "train.mesh": shapes.mesh(),
    "train.cpu_hours": _HOURS,
    "train.loader_threads": _THREADS,
    "train.prefetch": _THREADS,
    "optimizer.lr": _NOT_NEGATIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.norm_weight_decay": _NOT_NEGATIVE,
    "optimizer.b1": number(0.0, 1.0, below=True),
    "optimizer.b2": number(0.0, 1.0, below=True),
    "optimizer.eps": _POSITIVE,
    "optimizer.clip": _NOT_NEGATIVE,
    "schedule.kind": one_of("cosine", "constant"),
    "schedule.steps": whole(1),
    "schedule.min_lr": _NOT_NEGATIVE,
    "schedule.warmup_steps": whole(0),
    "ema.decay": number(0.0, 1.0, below=True),
    "ema.warmup_steps": whole(0),
    "ema.validate": switch(),
    "predict.input": path(),
    "predict.axes": axes(),
    "predict.output": path_here(*OUTPUT_ENDINGS["predict.output"]),
    "predict.format": one_of("h5", "zarr"),
    "predict.weights": one_of("ema", "raw"),
    "predict.window": _VOXELS,
    "predict.overlap": number(0.0, 1.0, below=True),
    "predict.edge_windows": switch(),
    "predict.blend": one_of("distance", "bump", "constant"),
    "predict.channels": several(whole(0, 4095)),
    "predict.activation": one_of("scale_sigmoid", "sigmoid", "none"),
    "predict.scale": _POSITIVE,
    "predict.dtype": one_of("float16", "float32", "uint8"),
    "predict.precision": one_of("auto", "fp32", "fp16"),
    "predict.tta": one_of("none", "flips"),
    "predict.batch_per_device": _BATCH,
    "predict.memory_gb": _MEMORY,
    "predict.roi": box(),
    "predict.cpu_hours": _HOURS,
    "qc.input": path(),
    "qc.image": path(),
    "qc.report": path_here(".md"),
    "qc.z_stride": whole(1),
    "qc.k_edge": whole(0),
    "qc.refine_window": whole(1),
    "qc.drift_thresh": _NOT_NEGATIVE,
    "qc.border_width": whole(0),
    "qc.bg_thresh": number(),
    "qc.n_z_border": whole(1),
    "qc.auto_extend": switch(),
    "mask.report": path(),
    "mask.output": path_here(".h5", ".hdf5"),
    "decode.input": path(),
    "decode.axes": axes(),
    "decode.output": path_here(*OUTPUT_ENDINGS["decode.output"]),
    "decode.method": one_of("affinity_cc", "grow", "mutex", "chain", "chain3"),
    "decode.threshold": _SHARE,
    "decode.threshold_from": either(one_of("value", "study"), number_text(_SHARE)),
    "decode.affinity_mask": path(),
    "decode.mask_edges": one_of("both", "source"),
    "decode.min_size": whole(0, 2**62),
    "decode.low_threshold": _SHARE,
    "decode.min_seed": whole(0, 2**62),
    "decode.grow_margin": _SHARE,
    "decode.attract": _LOGIT,
    "decode.repel": _LOGIT,
    "decode.anchor": whole(1, 2**62),
    "decode.low": _SHARE,
    "decode.margin": _SHARE,
    "decode.joins": several(
        one_of("", "average", "absorb", "quantile"), least=0, distinct=False
    ),
    "decode.faces": whole(1, 2**62),
    "decode.short": _LOGIT,
    "decode.long": _LOGIT,
    "decode.absorb_below": whole(1, 2**62),
    "decode.absorb_least": _LOGIT,
    "decode.quantile": number(0.0, 100.0),
    "decode.quantile_threshold": _SHARE,
    "decode.shave": whole(0, 16),
    "decode.memory_gb": _MEMORY,
    "evaluate.segmentation": path(),
    "evaluate.skeleton": path(),
    "evaluate.label": path(),
    "evaluate.metrics": several(
        one_of("auto", "nerl", "voi", "adapted_rand", "instance_accuracy")
    ),
    "evaluate.ceiling": switch(),
    "tune.study": name(),
    "tune.storage": path(),
    "tune.objective": one_of("auto", "nerl_mean", "nerl", "voi", "adapted_rand"),
    "tune.sampler": one_of("grid", "tpe", "random", "qmc"),
    "tune.thresholds": several(number(0.0, 1.0, below=True), distinct=False),
    "tune.grid": one_of("", "null", "None", "none", "tutorial", "banis", "pytc"),
    "tune.trials": whole(1),
    "tune.space": shapes.space(),
    "tune.allow_test_data": switch(),
    "skeletonize.label": path(),
    "skeletonize.output": path_here(*OUTPUT_ENDINGS["skeletonize.output"]),
    "skeletonize.also": several(one_of("swc", "precomputed"), least=0),
    "skeletonize.roi": box(),
    "skeletonize.scale": _NOT_NEGATIVE,
    "skeletonize.const_nm": _NOT_NEGATIVE,
    "skeletonize.dust_voxels": whole(0, 2**62),
    "skeletonize.tick_nm": _NOT_NEGATIVE,
    "skeletonize.box_shape": triple(whole(8, 4096)),
    "skeletonize.memory_gb": _MEMORY,
    "validate.poll_seconds": number(0.0, 1e6, above=True),
    "validate.idle_minutes": number(0.0, 1e6),
    "validate.keep": switch(),
    "synth.kind": one_of("liconn"),
    "synth.root": path_here(),
    "synth.shape": _VOXELS,
    "synth.volumes": several(path()),
    "convert.format": one_of(
        "auto",
        "zarr2",
        "zarr3",
        "ome-zarr-0.4",
        "ome-zarr-0.5",
        "precomputed",
        "n5",
        "hdf5",
        "tiff",
        "nifti",
        "nifti-gz",
        "blosc2",
    ),
    "convert.kind": one_of("auto", "image", "labels", "affinities"),
    "convert.axes": axes(),
    "convert.order": axes(),
    "convert.dtype": one_of("", *_TYPES),
    "convert.voxel_size_nm": or_none(triple(_POSITIVE)),
    "convert.downsample": whole(0, 32),
    "convert.chunks": or_none(_VOXELS),
    "convert.shards": or_none(_VOXELS),
    "convert.compression": one_of(
        "auto", "none", "blosc", "gzip", "zstd", "zlib", "compressed_segmentation"
    ),
    "convert.memory_gb": _MEMORY,
    "remote.endpoint": path(),
    "remote.region": path(),
    "remote.anonymous": switch(),
    "remote.profile": path(),
    "remote.timeout_s": number(1.0, 1e6),
    "remote.retries": whole(0, 1000),
    "cluster.kind": one_of("threads", "local", "dask"),
    "cluster.address": path(),
    "cluster.workers": whole(0, 65536),
}


_OF_VOLUMES = ("axes", "box", "label_offset", "mask")
RANGES["data.train.sources"] = shapes.sources(
    {
        "image": path(),
        "label": path(),
        "weight": _POSITIVE,
        **{key: RANGES[f"data.train.{key}"] for key in _OF_VOLUMES},
        **{
            key: RANGES[f"data.{key}"]
            for key in (
                *("normalize", "normalize_per", "percentiles", "grey_range"),
                *("clahe_tile", "clahe_clip", "invert", "voxel_size_nm"),
                *("unlabeled", "erosion", "erosion_axes"),
            )
        },
    }
)

# Keys that take another's value unless they are set: whoever set that other one is told of it.
_FOLLOWERS = ("schedule.steps", "predict.window")


def _follows(item: tuple[str, Any]) -> bool:
    return item[0] in _FOLLOWERS


def check(config: Config | Mapping) -> None:
    """Refuses a configuration of which any key holds what it may not.

    Args:
      config: the whole of it.

    Raises:
      InputError: naming the key, its value and what was wanted; a key that there is none of,
        or one that is missing.
    """
    for _, said in problems(config):
        raise InputError(said)


def check_flat(flat: Mapping[str, Any]) -> None:
    """As `check`, of some keys by their dotted names.

    Raises:
      InputError: naming the key, its value and what was wanted.
    """
    for _, said in _problems_of(flat):
        raise InputError(said)


def problems(config: Config | Mapping) -> Iterator[tuple[str, str]]:
    """Every key that `check` has something against, and what it says.

    Args:
      config: the whole of it.
    """
    flat = flatten(config)
    for key in RANGES:
        if key not in flat:
            said = "begin with base_config() as the files in configs/ do"
            yield key, f"the configuration has no {key}; {said}"
    yield from _problems_of(flat)


def _problems_of(flat: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in sorted(flat.items(), key=_follows):
        if key not in RANGES:
            said = "is no key of the configuration; nisbjax/config.py has them all"
            yield key, f"{shown(key)} {said}"
            continue
        try:
            require(key, value, RANGES[key])
        except InputError as error:
            yield key, str(error)
