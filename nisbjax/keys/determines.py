"""One table: which keys determine the content of which artifact.

What continues, compares or summarizes an artifact asks here: manifests, studies, tables of
scores, the processes of one training, trainings that differ in their seed. They keep keys
and values themselves, so that a refusal names what differs. What is not in the table's line
(memory, workers, paths, names of files) changes no byte; the content of files that keys name
is compared by fingerprint. PyTC takes an existing output for what was asked for.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from nisbjax.config import flatten
from nisbjax.errors import InputError
from nisbjax.keys.checks import shown
from nisbjax.typing import Config

# weights      of a training
# checkpoints  which of its states are kept, and the scores by which they are
# prediction   affinities and their attributes
# statistics   of a prediction's planes, gathered for QC
# report       of QC, and the mask that is built from it
# segmentation
# study        scores of a tuning's trials
# best         which of them is chosen
# scores       of an evaluation
# cubes        of made data
# skeletons    of dense labels
ARTIFACTS = ("weights", "checkpoints", "prediction", "statistics", "report")
ARTIFACTS += ("segmentation", "study", "best", "scores", "cubes", "skeletons")

_SECTIONS = {  # every key of a section that the lines below do not name
    "augment": "weights",
    "loss": "weights",
    "optimizer": "weights",
    "schedule": "weights",
    "validate": "",
    "remote": "",
    "cluster": "",
    "convert": "",  # `convert.plan` says what they come to, for one input
    "mask": "",
}
_KEYS = {
    "name": "scores",  # the published figures of its setting stand in the report
    "seed": "weights checkpoints best cubes",
    "data.kind": "weights",
    "data.root": "",
    "data.train.image": "weights",
    "data.train.label": "weights",
    "data.train.axes": "weights",
    "data.train.box": "weights",
    "data.train.sources": "weights",
    "data.train.label_offset": "weights",
    "data.train.mask": "weights",
    "data.val.image": "checkpoints",
    "data.val.label": "checkpoints",
    "data.val.axes": "checkpoints",
    "data.val.box": "checkpoints",
    "data.val.label_offset": "checkpoints",
    "data.val.mask": "checkpoints",
    "data.val.skeleton": "",
    "data.test.image": "",
    "data.test.label": "",
    "data.test.axes": "",
    "data.test.box": "",  # as predict.roi it is the prediction's
    "data.test.skeleton": "",
    "data.cache_gb": "",
    "data.voxel_size_nm": "prediction study scores cubes skeletons",
    "data.normalize": "weights prediction",
    "data.normalize_per": "weights prediction",
    "data.percentiles": "weights prediction",
    "data.grey_range": "weights prediction",
    "data.clahe_tile": "weights prediction",
    "data.clahe_clip": "weights prediction",
    "data.invert": "weights prediction",
    "data.patch": "weights",
    "data.sampling": "weights",
    "data.offsets": "weights prediction",
    "data.edge_stored_at": "weights prediction",
    "data.unlabeled": "weights scores skeletons",
    "data.relabel": "weights",
    "data.erosion": "weights",
    "data.long_erosion": "weights",
    "data.erosion_axes": "weights",
    "model.size": "weights prediction",
    "model.kernel_size": "weights prediction",
    "model.in_channels": "weights prediction",
    "model.out_channels": "weights prediction",
    "model.channels": "weights prediction",
    "model.deep_supervision": "weights prediction",
    "model.remat": "",
    "model.kernels": "checkpoints",  # other last bits, on a GPU
    "model.upkern": "weights",
    "train.steps": "weights",
    "train.batch_per_device": "weights",
    "train.global_batch": "weights",
    "train.accumulate": "weights",
    "train.precision": "weights",
    "train.val_every": "checkpoints",
    "train.val_crops": "checkpoints",
    "train.log_every": "checkpoints",
    "train.ckpt_every": "checkpoints",
    "train.ckpt_best": "checkpoints",
    "train.ckpt_last_minutes": "checkpoints",
    "train.mesh": "checkpoints",  # sums over devices differ in their last bits
    "train.cpu_hours": "",
    "train.loader_threads": "",
    "train.prefetch": "",
    "ema.decay": "weights",
    "ema.warmup_steps": "weights",
    "ema.validate": "checkpoints",
    "predict.input": "",
    "predict.axes": "",
    "predict.output": "",
    "predict.format": "",  # the same values in either
    "predict.weights": "prediction",
    "predict.window": "prediction",
    "predict.overlap": "prediction",
    "predict.edge_windows": "prediction",
    "predict.blend": "prediction",
    "predict.channels": "prediction",
    "predict.activation": "prediction",
    "predict.scale": "prediction",
    "predict.dtype": "prediction",
    "predict.precision": "prediction",  # the word that `auto` becomes
    "predict.tta": "prediction",
    "predict.batch_per_device": "prediction",  # another program, other last bits
    "predict.memory_gb": "",
    "predict.roi": "prediction",
    "predict.cpu_hours": "",
    "qc.input": "",
    "qc.image": "",
    "qc.report": "",
    "qc.z_stride": "report",
    "qc.k_edge": "report",
    "qc.refine_window": "report",
    "qc.drift_thresh": "report",
    "qc.auto_extend": "report",
    "qc.border_width": "statistics report",
    "qc.bg_thresh": "statistics report",
    "qc.n_z_border": "statistics report",
    "decode.input": "",
    "decode.axes": "",
    "decode.output": "",
    "decode.method": "segmentation study",
    "decode.threshold": "segmentation",
    "decode.threshold_from": "",  # the threshold itself counts
    "decode.affinity_mask": "",
    "decode.mask_edges": "segmentation study",
    "decode.min_size": "segmentation study",
    "decode.low_threshold": "segmentation study",
    "decode.min_seed": "segmentation study",
    "decode.grow_margin": "segmentation study",
    "decode.attract": "segmentation study",
    "decode.repel": "segmentation study",
    "decode.anchor": "segmentation study",
    "decode.low": "segmentation study",
    "decode.margin": "segmentation study",
    "decode.joins": "segmentation study",
    "decode.faces": "segmentation study",
    "decode.short": "segmentation study",
    "decode.long": "segmentation study",
    "decode.absorb_below": "segmentation study",
    "decode.absorb_least": "segmentation study",
    "decode.quantile": "segmentation study",
    "decode.quantile_threshold": "segmentation study",
    "decode.shave": "segmentation study",
    "decode.memory_gb": "",
    "evaluate.segmentation": "",
    "evaluate.skeleton": "",
    "evaluate.label": "",
    "evaluate.metrics": "scores",
    "evaluate.ceiling": "scores",
    "tune.study": "",
    "tune.storage": "",
    "tune.objective": "best",  # a study names it itself
    "tune.sampler": "best",
    "tune.thresholds": "best",
    "tune.grid": "best",
    "tune.trials": "best",
    "tune.space": "best",
    "tune.allow_test_data": "",
    "skeletonize.label": "",
    "skeletonize.output": "",
    "skeletonize.also": "",
    "skeletonize.roi": "",  # the region itself counts
    "skeletonize.scale": "skeletons",
    "skeletonize.const_nm": "skeletons",
    "skeletonize.dust_voxels": "skeletons",
    "skeletonize.tick_nm": "skeletons",
    "skeletonize.box_shape": "skeletons",
    "skeletonize.memory_gb": "",
    "synth.kind": "cubes",
    "synth.root": "",
    "synth.shape": "cubes",
    "synth.volumes": "cubes",
}
# A key that counts only under some values of another, or of one of its words: what `affinity_cc` does not read of
# `grow` changes nothing.
_ONLY: dict[str, tuple[str, tuple[Any, ...]]] = {
    "data.invert": ("data.invert", (True,)),  # what is older than the key goes on
    "data.normalize_per": ("data.normalize", ("min_max", "percentile", "zscore")),
    "data.percentiles": ("data.normalize", ("percentile", "clahe")),
    "data.grey_range": ("data.normalize", ("range",)),
    "data.clahe_tile": ("data.normalize", ("clahe",)),
    "data.clahe_clip": ("data.normalize", ("clahe",)),
    "predict.scale": ("predict.activation", ("scale_sigmoid",)),
    "decode.threshold": ("decode.method", ("affinity_cc", "grow", "mutex", "chain3")),
    "decode.low_threshold": ("decode.method", ("grow", "mutex")),
    "decode.min_seed": ("decode.method", ("grow",)),
    "decode.grow_margin": ("decode.method", ("grow",)),
    "decode.attract": ("decode.method", ("chain",)),
    "decode.repel": ("decode.method", ("chain",)),
    "decode.anchor": ("decode.method", ("chain", "chain3")),
    "decode.low": ("decode.method", ("chain", "chain3")),
    "decode.margin": ("decode.method", ("chain", "chain3")),
    "decode.joins": ("decode.method", ("chain", "chain3")),
    "decode.shave": ("decode.method", ("chain", "chain3")),
    "decode.faces": ("decode.joins", ("average", "absorb", "quantile")),
    "decode.short": ("decode.joins", ("average", "absorb")),
    "decode.long": ("decode.joins", ("average", "absorb")),
    "decode.absorb_below": ("decode.joins", ("absorb",)),
    "decode.absorb_least": ("decode.joins", ("absorb",)),
    "decode.quantile": ("decode.joins", ("quantile",)),
    "decode.quantile_threshold": ("decode.joins", ("quantile",)),
    "loss.max_pos_weight": ("loss.kind", ("per_channel_bce",)),
    "loss.balance_group": ("loss.kind", ("per_channel_bce",)),
    "tune.trials": ("tune.sampler", ("tpe", "random", "qmc")),
}


def artifacts_of(key: str) -> tuple[str, ...]:
    """What a key determines; nothing where it is a resource, a path or a name.

    Keys that there are none of (an older program's, in a file) determine nothing.
    """
    return tuple(_KEYS.get(key, _SECTIONS.get(key.split(".")[0], "")).split())


def facts(config: Config | Mapping, *artifacts: str) -> dict[str, Any]:
    """The keys that determine some artifacts, with their values as JSON has them.

    Args:
      config: a whole configuration, or one that was flattened.
      artifacts: words of `ARTIFACTS`.

    Returns:
      By dotted key, without those that another key's value makes idle.
    """
    flat = flatten(config)
    chosen = {}
    for key, value in flat.items():
        if not set(artifacts_of(key)) & set(artifacts):
            continue
        if _counts(key, flat):
            chosen[key] = _without_empty(value)
    return chosen


def _counts(key: str, flat: Mapping[str, Any]) -> bool:
    """Whether no other key's value makes this one idle."""
    if key not in _ONLY:
        return True
    other, values = _ONLY[key]
    found = flat.get(other)
    words = found if isinstance(found, list) else [found]
    here = any(word in values for word in words)
    return here and (other == key or _counts(other, flat))


def _without_empty(value: Any) -> Any:
    """A value, where it is several words without the empty ones, which say nothing."""
    if isinstance(value, list):
        return [word for word in value if word != ""]
    return value


def digest(found: Mapping[str, Any]) -> str:
    """sha256 of facts, for an attribute or to compare over the network."""
    text = json.dumps(dict(found), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def require_equal(
    found: Mapping[str, Any], wanted: Mapping[str, Any], what: str, advice: str
) -> None:
    """Refuses an artifact that other facts made.

    Args:
      found: the facts that it was made with.
      wanted: those that are asked for now, as JSON has them.
      what: the artifact, for the message.
      advice: what to do.

    Raises:
      InputError: naming the first fact that differs, with both values.
    """
    differing = [k for k in {**wanted, **found} if found.get(k) != wanted.get(k)]
    if not differing:
        return
    # A key that one of them does not have follows from another's value.
    key, *others = sorted(differing, key=lambda k: k not in found or k not in wanted)
    more = f" (and other {', '.join(others)})" if others else ""
    raise InputError(
        f"{what} was made with {key} {shown(found.get(key))}, now it is "
        f"{shown(wanted.get(key))}{more}; {advice}"
    )
