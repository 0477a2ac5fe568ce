"""Quality of the decoders, the chain among them; tuned alike, scored on other tissue.

    python tests/benchmarks/bench_decoders.py --config configs/demo.py --run RUN
    python tests/benchmarks/bench_decoders.py --config configs/fib25.py --run RUN \
        --data-root DIR --halves y

RUN is a trained run (`make demo` leaves one); its newest checkpoint predicts all six
channels of the validation and the test volume again, into RUN/decoders. Every decoder gets
the same number of trials of the same sampler on the same skeletons, for each of some seeds
of the sampler. With --halves the validation volume is cut in two: tuned on one half, scored
on the other, and the reverse, so no score is of what was tuned on. Tuned by the mean over
skeletons; NERL_5 forgives mergers of up to five nodes. A line before those of a volume says
what its own labels score, cut into their components there.
"""

import argparse
import dataclasses
import pathlib
import runpy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nisbjax.artifacts import Run, VolumeDir
from nisbjax.decode import label_components
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.grow import grow_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.mutex import mutex_affinities
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.evaluate import nerl
from nisbjax.geometry import Box
from nisbjax.keys.checks import optional
from nisbjax.mask import mask_of_box, open_mask
from nisbjax.modes import workflow
from nisbjax.modes.evaluation import own_truth
from nisbjax.modes.prediction import predict
from nisbjax.modes.quality import affinity_mask
from nisbjax.modes.volumes import split_of
from nisbjax.skeletons import Skeletons
from nisbjax.store.volume import from_array, open_affinities, open_labels
from nisbjax.tune import space, study
from nisbjax.tune.database import MADE_FROM

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A method as it is tuned: its ranges and its first trial."""

    decode: Callable[..., np.ndarray]
    ranges: dict[str, study.Range]
    first: dict[str, float]


def plain(affinities, mask, *, threshold):
    return label_affinities(affinities, threshold, mask=mask)


def grown(affinities, mask, *, threshold, low_threshold, min_seed):
    return grow_affinities(
        affinities,
        threshold,
        low_threshold,
        min_seed=min_seed,
        edges=MaskedEdges(mask=mask),
    )


def mutex(affinities, mask, *, threshold, low_threshold):
    edges = MaskedEdges(mask=mask)
    return mutex_affinities(affinities, threshold, low_threshold, edges=edges)


def chained(affinities, mask, *, threshold=None, **chosen):
    """Streamed: a volume of one box is decoded as in memory."""
    labels = np.zeros(affinities.shape[1:], np.uint32)
    chain_volume(
        from_array(affinities, "cxyz"),
        from_array(labels, "xyz"),
        parameters=ChainParameters(**chosen),
        threshold=threshold,
        memory_gb=8.0,
        edges=MaskedEdges(mask=mask),
    )
    return labels


DECODERS = {
    "affinity_cc": Decoder(plain, {"threshold": (0.4, 0.85)}, {"threshold": 0.7}),
    "grow": Decoder(
        grown,
        {
            "threshold": (0.45, 0.85),
            "low_threshold": (0.3, 0.8),
            "min_seed": (10, 10_000),
        },
        {"threshold": 0.7, "low_threshold": 0.6, "min_seed": 100},
    ),
    "mutex": Decoder(
        mutex,
        {"threshold": (0.4, 0.85), "low_threshold": (0.02, 0.6)},
        {"threshold": 0.7, "low_threshold": 0.3},
    ),
    "chain3": Decoder(chained, {"threshold": (0.4, 0.85)}, {"threshold": 0.7}),
    "chain": Decoder(
        chained,
        {"attract": (-0.2, 0.6), "repel": (0.0, 1.2)},
        {"attract": 0.2, "repel": 0.8},
    ),
}


@dataclasses.dataclass(frozen=True)
class Tissue:
    """Affinities with their mask and skeletons, in memory."""

    affinities: np.ndarray
    mask: np.ndarray | None
    truth: Skeletons

    def part(self, axis: int, start: int, stop: int) -> "Tissue":
        """What lies between two planes; skeletons that this cuts become several."""
        at = self.truth.index_position[:, axis]
        inside = (at >= start) & (at < stop)
        new = np.cumsum(inside) - 1
        edges = self.truth.edges[inside[self.truth.edges].all(1)]
        count = int(inside.sum())
        rows = new[edges]
        graph = coo_array((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), (count,) * 2)
        _, component = connected_components(graph, directed=False)
        shift = np.zeros(3, np.int64)
        shift[axis] = start
        truth = Skeletons(
            component.astype(np.int64) + 1,
            self.truth.index_position[inside] - shift,
            self.truth.position_nm[inside],
            rows.astype(np.int64),
        )
        cut = [slice(None)] * 3
        cut[axis] = slice(start, stop)
        mask = None if self.mask is None else self.mask[tuple(cut)]
        return Tissue(
            np.ascontiguousarray(self.affinities[(slice(None), *cut)]), mask, truth
        )

    def score(self, decode, parameters) -> dict[str, Any]:
        labels = decode(self.affinities, self.mask, **parameters)
        segments = labels[tuple(self.truth.index_position.T)]
        return nerl.score(self.truth, segments.astype(np.int64))


def read(settings, run: Run, split: str) -> Tissue:
    """Predicts a volume with all channels, unless that is done, and reads everything."""
    chosen = split_of(settings, split)
    found = workflow.find_checkpoint(settings, run, "")
    place = VolumeDir(run.path / "decoders" / chosen.name)
    settings.predict.channels = tuple(range(6))
    prediction = predict(settings, found, chosen.image, place)
    path = affinity_mask(settings, place, prediction, chosen.image)
    mask = None
    affinities = open_affinities(prediction).read()
    if path:
        mask = mask_of_box(*open_mask(path), Box.whole(affinities.shape[1:]))
    truth = own_truth(settings, chosen.skeleton).load_skeletons()
    if chosen.label:
        labels = open_labels(chosen.label)
        parts = label_components.at_nodes(
            labels, truth.index_position, memory_gb=4.0, unlabeled="default"
        )
        s = nerl.score(truth, parts)
        print(f"{split}: ceiling NERL {s['nerl']:.3f}, mean {s['nerl_mean']:.3f}")
    return Tissue(affinities, mask, truth)


def tune(name: str, tissue: Tissue, trials: int, seed: int) -> optuna.trial.FrozenTrial:
    decoder = DECODERS[name]
    opened = optuna.create_study(
        direction="maximize", sampler=study.sampler("tpe", seed)
    )
    opened.set_user_attr(MADE_FROM, {"metric": "nerl_mean"})
    study.run_sampled(
        opened,
        decoder.ranges,
        decoder.first,
        trials,
        lambda parameters: tissue.score(decoder.decode, parameters),
        space.AT_MOST.get(name),
    )
    return study.best(opened)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "configs/demo.py"))
    parser.add_argument("--run", type=pathlib.Path)
    parser.add_argument("--data-root", default="")
    parser.add_argument("--halves", choices=("x", "y", "z"))
    parser.add_argument("--trials", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(DECODERS))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = runpy.run_path(arguments.config)["get_config"]()
    runs = sorted((ROOT / "outputs" / settings.name).glob("*/checkpoints"))
    if arguments.run is None and not runs:
        print(f"no trained run of {settings.name} to decode; name one with --run")
        return
    run = Run(arguments.run or runs[-1].parent)
    settings.data.root = arguments.data_root or str(run.synthetic)
    settings.predict.format = "zarr"
    settings.decode.affinity_mask = optional(settings.decode.affinity_mask)

    if arguments.halves:
        axis = "xyz".index(arguments.halves)
        whole = read(settings, run, "val")
        size = whole.affinities.shape[1 + axis]
        halves = [
            whole.part(axis, 0, size // 2),
            whole.part(axis, size // 2, size),
        ]
        pairs = [("low half -> high", *halves), ("high half -> low", *halves[::-1])]
    else:
        pairs = [
            ("val -> test", read(settings, run, "val"), read(settings, run, "test"))
        ]
    print(
        f"{'':<17}{'method':<12} seed  tuned   NERL    sd NERL_5  mean   VOI split merge "
        "mergers splits on bg   s  parameters"
    )
    for label, tuning, testing in pairs:
        for name in arguments.methods:
            for seed in range(arguments.seeds):
                best = tune(name, tuning, arguments.trials, seed)
                began = time.process_time()
                s = testing.score(DECODERS[name].decode, best.params)
                seconds = time.process_time() - began
                numbers = " ".join(f"{k}={v:.4g}" for k, v in best.params.items())
                print(
                    f"{label:<17}{name:<12}{seed:>5}  {best.value:.3f}  {s['nerl']:.3f}"
                    f"  {s['nerl_sd']:.3f}  {s['nerl_5']:.3f} {s['nerl_mean']:.3f}"
                    f"  {s['voi_sum']:.2f}  {s['voi_split']:.2f}  {s['voi_merge']:.2f}"
                    f"{s['n_non0_mergers']:>7}{s['n_splits']:>8}{s['coverage']:>7.1%}"
                    f"{seconds:>6.1f}  {numbers}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
