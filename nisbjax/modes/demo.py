"""The main job on made data, and the bounds that a score lies between.

A NERL by itself says little, so the demo puts rows into one table: the trained model by the
plain decoder and by the chain, the same model untrained, and the image's own intensity
thresholded at its best. Neither PyTC nor BANIS ships a job that runs from nothing to a score.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from nisbjax.artifacts import Run
from nisbjax.decode.thresholds import sweep
from nisbjax.evaluate import nerl, score_table
from nisbjax.modes import train, workflow
from nisbjax.modes.prediction import predict_by
from nisbjax.modes.volumes import voxel_size_nm
from nisbjax.offsets import SHORT_RANGE
from nisbjax.skeletons import Skeletons, load
from nisbjax.store import files
from nisbjax.store.volume import from_array, open_affinities, open_image, open_labels
from nisbjax.synth import baselines
from nisbjax.synth import stage as synthetic
from nisbjax.typing import Affinities, Config

_SIGMAS = (0.0, 0.7, 1.4)  # voxels of smoothing that the intensity baseline may choose
_LEVELS = np.linspace(0.02, 0.98, 49)


def synth(config: Config, run_dir: Run, _: str) -> None:
    """Mode synth: writes the data set and prints how hard its test cube is."""
    _write_data(config, run_dir)
    rows = bounds(config)
    print(table(rows))
    print(f"wrote {config.data.root}")


def run(config: Config, run_dir: Run, _: str) -> dict[str, Any]:
    """Mode demo: synth, train, tune on val, test; then the baselines and the table.

    Returns:
      What `demo.json` holds: one row of scores each for `trained` (its plain components),
      `chain3`, `chain` where long-range channels are predicted, `untrained`, `intensity`
      and `truth`; and the paths of what was written, by the configured decoder.
    """
    from nisbjax.infer.network import untrained_network

    _write_data(config, run_dir)
    train.run(config, run_dir, "")
    found = str(workflow.find_checkpoint(config, run_dir, ""))
    rows, facts = {}, {}
    for method in _methods(config):
        facts = workflow.tune_test(_decoded_by(config, method), run_dir, found)
        name = "trained" if method == "affinity_cc" else method
        rows[name] = dict(facts["skeletons"])
        if facts["threshold"] is not None:
            rows[name]["threshold"] = facts["threshold"]
    network = untrained_network(config.predict, config.model.to_dict(), config.seed)
    rows["untrained"] = _untrained(config, run_dir, network)
    rows |= bounds(config)
    place = workflow.test_dir(config, run_dir, found)
    step = int(place.path.parent.name.split("=")[1])
    paths = {
        "slices": place.slices(pathlib.Path(facts["segmentation"])),
        "report": place.qc_report,
        "mask": place.mask,
        "segmentation": facts["segmentation"],
        "evaluation": place.evaluation(pathlib.Path(facts["segmentation"]), ".txt"),
        "tuning": run_dir.tune(step).figure,
        "scores": run_dir.path / "demo.json",
    }
    result = {"rows": rows, "paths": {k: str(v) for k, v in paths.items()}}
    files.write_json(run_dir.path / "demo.json", result)
    print(table(rows))
    for name, path in result["paths"].items():
        print(f"{name:>12}  {path}")
    return result


def _methods(config: Config) -> list[str]:
    """Decoders of the trained network; the configured one last, whose files stay."""
    found = ["affinity_cc", "chain3"]
    if len(config.predict.channels) > len(SHORT_RANGE):
        found.append("chain")
    own = config.decode.method
    return [*(method for method in found if method != own), own]


def _decoded_by(config: Config, method: str) -> Config:
    """The configuration with another decoder, tuned over its own space into its own files."""
    if method == config.decode.method:
        return config
    config = config.copy_and_resolve_references()
    config.decode.update({"method": method, "output": ""})
    if method == "affinity_cc":
        config.decode.affinity_mask = "auto"  # with QC and mask, as the tutorial has it
    config.tune.update({"study": f"{config.tune.study}_{method}", "space": ()})
    return config


def _write_data(config: Config, run_dir: Run) -> None:
    """The cubes, below `synth.root` or in the run; what comes next reads them there."""
    root = str(config.synth.root or run_dir.synthetic)
    synthetic.run(
        config.synth,
        pathlib.Path(root),
        seed=config.seed,
        voxel_size_nm=tuple(config.data.voxel_size_nm),
        workers=config.cluster.workers,
    )
    config.data.root = root


def bounds(config: Config) -> dict[str, dict[str, Any]]:
    """Scores of the test cube's intensity at its best threshold, and of its true affinities.

    The intensity baseline may choose polarity, smoothing and threshold on the test cube
    itself: it is the best that thresholding can do.
    """
    split = workflow.split_of(config, "test")
    truth = load(split.skeleton, voxel_size_nm=voxel_size_nm(config))
    image = open_image(split.image).read()
    best: dict[str, Any] = {"nerl": -1.0}
    for interior in baselines.INTERIORS:
        for sigma in _SIGMAS:
            affinities = baselines.intensity_affinities(
                image, interior=interior, sigma=sigma
            )
            rows = _scores(config, affinities, truth, _LEVELS)
            best = max([best, *rows], key=lambda row: row["nerl"])
    true = baselines.true_affinities(open_labels(split.label).read())
    (ceiling,) = _scores(config, true, truth, np.array([0.5]))
    return {"intensity": best, "truth": ceiling}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows' scores in columns."""
    return score_table.text("test cube", rows, score_table.OF_SKELETONS)


def _scores(
    config: Config,
    affinities: Affinities,
    truth: Skeletons,
    thresholds: np.ndarray,
) -> list[dict[str, Any]]:
    segments = sweep.nodes_by_threshold(
        from_array(affinities, "cxyz"),
        truth.index_position,
        tuple(float(t) for t in thresholds),
        memory_gb=config.decode.memory_gb,
    )
    return [
        {**nerl.score(truth, nodes), "threshold": float(level)}
        for level, nodes in zip(thresholds, segments, strict=True)
    ]


def _untrained(config: Config, run_dir: Run, network: Any) -> dict[str, Any]:
    """The test score of the initial weights, their threshold tuned on val likewise."""
    from nisbjax.tune.objective import settled

    chosen = run_dir.path / "untrained"
    best: dict[str, Any] = {"nerl": -1.0}
    level = 0.0
    for name in ("val", "test"):
        split = workflow.split_of(config, name)
        place = Run(chosen).test(0, split.name)
        prediction = predict_by(config, network, split.image, place)
        truth = load(split.skeleton, voxel_size_nm=voxel_size_nm(config))
        affinities = open_affinities(prediction).read(np.s_[: len(SHORT_RANGE)])
        # An untrained net answers close to 1/2: its own quantiles are the levels.
        levels = np.unique(np.quantile(affinities, np.linspace(0.02, 0.98, 49)))
        if name == "val":
            rows = _scores(config, affinities, truth, levels)
            tuned = settled(config.tune.objective, split.skeleton)
            level = _best(tuned, rows)["threshold"]
        else:
            (best,) = _scores(config, affinities, truth, np.array([level]))
    logging.info("untrained: threshold %.4f chosen on val", level)
    return best


def _best(objective: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best row of scores by skeletons: by the mean over them where labels are tuned by.

    Args:
      objective: of `objective.OBJECTIVES`.
      rows: of `_scores`.
    """
    from nisbjax.tune.objective import OBJECTIVES, value_of

    if OBJECTIVES[objective][0] not in rows[0]:
        objective = "nerl_mean"
    return max(rows, key=lambda row: value_of(objective, row))
