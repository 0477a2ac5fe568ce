"""Every key of a run, with the values of the tutorial's LICONN recipe.

One locked `ml_collections.ConfigDict`; the files in `configs/` edit it, flags override it
(`--config.decode.threshold=0.70`). Types never change: where a value may be "none" it is a
string, and "" means none. Where PyTC merges YAML sections for each mode, every key here
stands once and holds in every mode. What a key means says `keys.meanings`, what it may hold
`keys.ranges`; comments here say why a value is what it is.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from nisbjax.offsets import OFFSETS_6
from nisbjax.store import files
from nisbjax.typing import Config, Section


def base_config() -> Config:
    """The locked configuration that every preset edits."""
    c = ConfigDict()
    c.name = "nisb_liconn_banis_v3_erosion2"
    c.seed = 42
    c.data = _data()
    c.augment = _augment()
    c.model = _model()
    c.loss = ConfigDict()
    c.loss.kind = "per_channel_bce"
    c.loss.max_pos_weight = 10.0
    c.loss.balance_group = 2  # the tutorial's per-GPU batch
    c.loss.logit_clamp = 20.0
    c.loss.calibre_max = 1.0
    c.loss.scnp = 1
    c.train = ConfigDict()
    c.train.steps = 200_000
    c.train.batch_per_device = 2
    c.train.global_batch = 0
    c.train.accumulate = 1
    c.train.precision = "fp16"
    c.train.val_every = 5_000
    c.train.val_crops = 200  # 100 batches of 2
    c.train.log_every = 50
    c.train.ckpt_every = 50_000
    c.train.ckpt_best = 3
    c.train.ckpt_last_minutes = 10
    c.train.mesh = (("data", -1), ("space", 1))
    c.train.cpu_hours = 24.0
    c.train.loader_threads = 4
    c.train.prefetch = 4
    c.optimizer = ConfigDict()
    c.optimizer.lr = 1e-3
    c.optimizer.weight_decay = 0.01
    c.optimizer.norm_weight_decay = 0.0
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.999
    c.optimizer.eps = 1e-8
    c.optimizer.clip = 1.0
    c.schedule = ConfigDict()
    c.schedule.kind = "cosine"
    c.schedule.steps = c.train.get_oneway_ref("steps")
    c.schedule.min_lr = 0.0
    # Then the cosine spans what is left; PyTC's spans all steps (docs/differences.md).
    c.schedule.warmup_steps = 0
    c.ema = ConfigDict()
    c.ema.decay = 0.999
    c.ema.warmup_steps = 500
    c.ema.validate = True
    c.predict = _predict(c.data)
    c.qc = _qc()
    c.mask = ConfigDict({"report": "", "output": ""})
    c.decode = _decode()
    c.evaluate = ConfigDict()
    c.evaluate.segmentation = ""
    c.evaluate.skeleton = ""
    c.evaluate.label = ""
    c.evaluate.metrics = ("auto",)
    c.evaluate.ceiling = True
    c.tune = _tune()
    c.skeletonize = _skeletonize()
    c.validate = ConfigDict()
    c.validate.poll_seconds = 60.0
    c.validate.idle_minutes = 0.0
    c.validate.keep = False
    c.synth = _synth()
    c.convert = _convert()
    c.remote = _remote()
    c.cluster = ConfigDict({"kind": "threads", "address": ""})
    c.cluster.workers = 0
    return c.lock()


def _remote() -> Section:
    r = ConfigDict()
    r.endpoint = ""
    r.region = ""
    r.anonymous = False
    r.profile = ""
    r.timeout_s = 30.0
    r.retries = 5
    return r


def _data() -> Section:
    d = ConfigDict()
    d.kind = "nisb"
    d.root = ""
    for split, seed in (("train", "seed*"), ("val", "seed5"), ("test", "seed6")):
        part = ConfigDict()
        part.image = f"{split}/{seed}/data.zarr/img"
        part.label = f"{split}/{seed}/data.zarr/seg"
        if split != "train":
            part.skeleton = f"{split}/{seed}/skeleton.pkl"
        part.axes = ""
        part.box = ""
        if split != "test":
            part.label_offset = ""
            part.mask = ""
        if split == "train":
            part.sources = ()  # see `source`
        d[split] = part
    d.cache_gb = 1.0
    d.voxel_size_nm = (9.0, 9.0, 12.0)  # 27 um / 2250; PyTC's 18, 18, 25 is another's
    d.normalize = "divide_255"
    d.normalize_per = "volume"
    d.percentiles = (0.0, 100.0)
    d.grey_range = (0.0, 255.0)
    d.clahe_tile = 128
    d.clahe_clip = 0.01  # scikit-image's
    d.invert = False
    d.patch = (128, 128, 128)
    d.sampling = "uniform"
    d.offsets = OFFSETS_6
    d.edge_stored_at = "source"
    d.unlabeled = "default"
    d.relabel = False
    d.erosion = (0, 2, 2)  # what PyTC's scalar 2 does to x y z data
    d.long_erosion = ()
    d.erosion_axes = "legacy"
    return d


def _augment() -> Section:
    a = ConfigDict()
    a.profile = "aug_banis"
    a.order = "pytc"
    a.permute = 1.0
    a.rotate90 = 1.0
    a.flip = 0.5
    a.drop = 0.5
    a.drop_slice = 0.05
    a.shift = 0.5
    a.shift_slice = 0.05
    a.shift_voxels = 10
    a.affine = 0.5
    a.rotation = math.pi
    a.scale = 0.2
    a.shear = "offdiag"
    a.shear_range = 0.5
    a.shear_coefficients = 3
    a.intensity = 0.5
    a.intensity_scale = 0.1
    a.intensity_shift = 0.1
    a.noise = 0.5
    a.noise_std = 0.5
    return a


def _model() -> Section:
    m = ConfigDict()
    m.size = "L"
    m.kernel_size = 3
    m.in_channels = 1
    m.out_channels = 6
    m.channels = 32
    m.deep_supervision = False
    # Of any type: in older configurations it is True or False (`models.recomputation`).
    m.remat = FieldReference("block", field_type=object)
    m.kernels = "auto"
    m.upkern = False
    return m


def _predict(data: Section) -> Section:
    p = ConfigDict()
    p.input = ""
    p.axes = ""
    p.output = ""
    p.format = "h5"
    p.weights = "ema"
    p.window = data.get_oneway_ref("patch")
    p.overlap = 0.5
    p.edge_windows = False
    p.blend = "distance"
    p.channels = (0, 1, 2)
    p.activation = "scale_sigmoid"
    p.scale = 0.2
    p.dtype = "float16"
    p.precision = "auto"
    p.tta = "none"
    p.batch_per_device = 8
    p.memory_gb = 8.0
    p.roi = ""
    p.cpu_hours = 24.0
    return p


def _qc() -> Section:
    q = ConfigDict()
    q.input = ""
    q.image = ""
    q.report = ""
    q.z_stride = 10
    q.k_edge = 20
    q.refine_window = 30
    q.drift_thresh = 0.05
    q.border_width = 32
    q.bg_thresh = 30.0
    q.n_z_border = 8
    q.auto_extend = True
    return q


def _decode() -> Section:
    d = ConfigDict()
    d.input = ""
    d.axes = ""
    d.output = ""
    d.method = "affinity_cc"
    d.threshold = 0.75
    d.threshold_from = "value"
    d.affinity_mask = "auto"
    d.mask_edges = "both"
    d.min_size = 0
    d.low_threshold = 0.5
    d.min_seed = 100
    d.grow_margin = 0.0
    d.attract = 0.2
    d.repel = 0.8
    d.anchor = 20
    d.low = 0.45
    d.margin = 0.03
    d.joins = ()
    d.faces = 20
    d.short = 1.0
    d.long = 0.0
    d.absorb_below = 500
    d.absorb_least = 0.0
    d.quantile = 50.0
    d.quantile_threshold = 0.4
    d.shave = 0
    d.memory_gb = 4.0
    return d


def _tune() -> Section:
    t = ConfigDict()
    t.study = "nisb_base_banis_cc_tuning"
    t.storage = ""
    t.objective = "auto"
    t.sampler = "grid"
    t.thresholds = (0.40, 0.46, 0.52, 0.58, 0.64, 0.70, 0.76, 0.82, 0.88, 0.94)
    t.grid = ""
    t.trials = 25
    t.space = ()
    t.allow_test_data = False
    return t


def _skeletonize() -> Section:
    s = ConfigDict()
    s.label = ""
    s.output = ""
    s.also = ()
    s.roi = ""
    s.scale = 1.5  # kimimaro's, as const_nm
    s.const_nm = 300.0
    s.dust_voxels = 1000
    s.tick_nm = 500.0
    s.box_shape = (256, 256, 256)
    s.memory_gb = 4.0
    return s


def _synth() -> Section:
    s = ConfigDict()
    s.kind = "liconn"
    s.root = ""
    s.shape = (160, 160, 128)
    s.volumes = ("train/seed0", "train/seed1", "val/seed5", "test/seed6")
    return s


def _convert() -> Section:
    v = ConfigDict()
    v.format = "auto"
    v.kind = "auto"
    v.axes = ""
    v.order = ""
    v.dtype = ""
    v.voxel_size_nm = ()
    v.downsample = 0
    v.chunks = ()
    v.shards = ()
    v.compression = "auto"
    v.memory_gb = 1.0
    return v


def source(name: str, **keys: Any) -> tuple:
    """One of `data.train.sources`, in a configuration.

        c.data.train.sources = (
            source("liconn", image="liconn/*/img", label="liconn/*/seg", weight=2.0),
            source("cremi", image="cremi_*.h5/volumes/raw", label="...", erosion=(1, 1, 0)),
        )

    A tuple, as other keys of several parts are: a flag can give it whole, and every key has
    one place. What a source does not say it has from `data.train` and `data`.

    Args:
      name: of the source, for the log.
      keys: `weight`, and keys of `data.train` and `data` that hold for it alone.
    """
    return (name, *keys.items())


def flatten(config: Config | Mapping, prefix: str = "") -> dict[str, Any]:
    """`{"decode.threshold": 0.75, ...}`, values as JSON has them."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def write(config: Config, path: str | os.PathLike) -> None:
    """config.json: every key, dotted, as it was resolved."""
    files.write_text(path, json.dumps(flatten(config), indent=1) + "\n")
