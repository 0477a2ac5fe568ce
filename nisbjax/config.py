"""Every key of a run, with the values of the tutorial's LICONN recipe.

One locked `ml_collections.ConfigDict`; the files in `configs/` edit it, flags override it
(`--config.decode.threshold=0.70`). Types never change: where a value may be "none" it is a
string, and "" means none. Where PyTC merges YAML sections for each mode, every key here
stands once and holds in every mode.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

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
    c.loss.balance_group = 2  # samples; the tutorial's per-GPU batch, 0 = whole batch
    c.loss.logit_clamp = 20.0
    c.loss.calibre_max = 1.0  # weight of true edges in the thinnest neurites; 1 = off
    # Voxels across the neighbourhood whose worst edge of its class counts; 1 = off.
    c.loss.scnp = 1
    c.train = ConfigDict()
    c.train.steps = 200_000
    c.train.batch_per_device = 2
    c.train.global_batch = 0  # 0: batch_per_device times the devices of the first start
    c.train.accumulate = 1
    c.train.precision = "fp16"
    c.train.val_every = 5_000
    c.train.val_crops = 200  # 100 batches of 2
    c.train.log_every = 50
    c.train.ckpt_every = 50_000
    c.train.ckpt_best = 3
    c.train.ckpt_last_minutes = 10
    # Devices: data shares out the batch, space the x axis of each crop; -1: all the others.
    c.train.mesh = (("data", -1), ("space", 1))
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
    c.evaluate.metrics = ("nerl", "voi")
    c.evaluate.ceiling = True  # beside NERL, what the volume's own labels score
    c.tune = _tune()
    c.validate = ConfigDict()
    c.validate.poll_seconds = 60.0
    c.validate.idle_minutes = 0.0  # 0: --watch waits for as long as training may take
    c.validate.keep = False  # predictions and segmentations, as large as the volume
    c.synth = _synth()
    c.cluster = ConfigDict({"kind": "threads", "address": ""})
    c.cluster.workers = 0
    return c.lock()


def _data() -> Section:
    d = ConfigDict()
    d.kind = "nisb"
    d.root = ""  # the folder that holds train/ val/ test/
    for split, seed in (("train", "seed*"), ("val", "seed5"), ("test", "seed6")):
        part = ConfigDict()
        part.image = f"{split}/{seed}/data.zarr/img"
        part.label = f"{split}/{seed}/data.zarr/seg"
        if split != "train":
            part.skeleton = f"{split}/{seed}/skeleton.pkl"
        if split != "test":
            part.box = ""  # x0:x1,y0:y1,z0:z1 of every volume; "" = all of it
        d[split] = part
    d.voxel_size_nm = (9.0, 9.0, 12.0)  # 27 um / 2250; PyTC's 18, 18, 25 is another's
    d.normalize = "divide_255"  # divide_255 | min_max | percentile
    d.percentiles = (0.0, 100.0)  # that become 0 and 1 where normalize is percentile
    d.patch = (128, 128, 128)
    d.sampling = "uniform"  # over volumes; volume: in proportion to their size
    d.offsets = OFFSETS_6
    d.edge_stored_at = "source"
    # Label values nobody vouches for: default (the ten largest of uint32 and uint64), or
    # numbers, "0,65535"; negative ones always.
    d.unlabeled = "default"
    d.relabel = False
    d.erosion = (0, 2, 2)  # array axes: what PyTC's scalar 2 does to x y z data
    d.long_erosion = ()  # of the labels of long-range channels; (): as erosion
    d.erosion_axes = "legacy"  # of both
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
    m.remat = True
    m.upkern = False  # import: grow the file's kernels to kernel_size
    return m


def _predict(data: Section) -> Section:
    p = ConfigDict()
    p.input = ""
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
    p.precision = "fp32"  # or fp16, with scale_sigmoid; see infer/compute_dtype.py
    p.tta = "none"
    p.batch_per_device = 8
    p.memory_gb = 8.0
    p.roi = ""
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
    d.output = ""
    d.method = "affinity_cc"  # affinity_cc | grow | mutex | chain | chain3
    d.threshold = 0.75
    d.threshold_from = "value"
    d.affinity_mask = "auto"
    d.mask_edges = "both"
    d.min_size = 0
    # grow: seeds at `threshold` grow down to it; mutex: long-range edges repel below it.
    d.low_threshold = 0.5
    d.min_seed = 100  # grow: voxels of a component at `threshold` that make it a seed
    # grow: voxels that two seeds reach about as well stay background; 0: none do.
    d.grow_margin = 0.0
    # chain: logits above which edges to the next voxel attract, below which long ones repel.
    d.attract = 0.2
    d.repel = 0.8
    # chain, chain3: fragments of at least `anchor` voxels grow along affinities above `low`;
    # what two of them reach by less than `margin` apart stays background.
    d.anchor = 20
    d.low = 0.45
    d.margin = 0.03
    # chain: "average" joins fragments before they grow, by the mean logit of their links:
    # common faces (`faces` at least) less `short`, long-range links less `long`; "" does not.
    d.joins = ""  # "" | average
    d.faces = 20
    d.short = 1.0
    d.long = 0.0
    d.memory_gb = 4.0
    return d


def _tune() -> Section:
    t = ConfigDict()
    t.study = "nisb_base_banis_cc_tuning"
    t.storage = ""
    t.objective = "nerl_mean"  # nerl_mean | nerl | voi
    t.sampler = "grid"
    t.thresholds = (0.40, 0.46, 0.52, 0.58, 0.64, 0.70, 0.76, 0.82, 0.88, 0.94)
    t.grid = ""  # banis | pytc: instead of the thresholds above
    t.trials = 25  # of a sampler that is not a grid
    t.space = ()  # (decode key, low, high[, how many]) ...; (): the method's own
    t.allow_test_data = False
    return t


def _synth() -> Section:
    s = ConfigDict()
    s.kind = "liconn"
    s.root = ""
    s.shape = (160, 160, 128)
    s.volumes = ("train/seed0", "train/seed1", "val/seed5", "test/seed6")
    return s


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
