"""Stages on files of other programs, killed or stopped at file operations chosen by number."""

import pickle
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
import small_chains
from kill_campaign import ENDS, ROOT, campaign, few_or_all, launch

from nisbjax.store.volume import create_zarr

pytestmark = pytest.mark.slow

SHAPE = (40, 24, 24)


@pytest.fixture
def files(tmp_path):
    """An image, affinities, their skeleton and a configuration's flags."""
    folder = tmp_path / "case"
    folder.mkdir()
    rng = np.random.default_rng(0)
    segments = 1 + (np.arange(SHAPE[0]) // 14)[:, None, None]
    affinities = np.where(rng.random((3, *SHAPE)) < 0.9, 0.9, 0.3).astype(np.float16)
    affinities[0, 13::14] = 0.05  # the planes between segments of 14 planes
    image = rng.integers(60, 200, (*SHAPE, 1), np.uint8)
    for name, values, axes in (
        ("raw.zarr", affinities, "cxyz"),
        ("img.zarr", image, "xyzc"),
    ):
        spatial = tuple(16 if a in "xyz" else n for a, n in zip(axes, values.shape))
        create_zarr(
            folder / name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=spatial,
            axes=axes,
        ).write(..., values)
    graph = nx.Graph()
    for x in range(SHAPE[0]):
        where = (x, 3, 3)
        nm = (9.0 * x, 27.0, 36.0)
        graph.add_node(
            x, id=int(segments[x, 0, 0]), index_position=where, nm_position=nm
        )
        if x and segments[x] == segments[x - 1]:
            graph.add_edge(x - 1, x)
    (folder / "skeleton.pkl").write_bytes(pickle.dumps(graph))
    return folder


QC = ("--config.qc.border_width=4", "--config.qc.z_stride=2", "--config.qc.k_edge=2")


def qc(folder):
    flags = (
        f"--config.qc.input={folder}/raw.zarr",
        f"--config.qc.image={folder}/img.zarr",
    )
    return launch("qc", *flags, *QC)


def mask(folder):
    report = folder / "raw_check_aff_report.md"
    if not report.exists():
        subprocess.run(qc(folder), cwd=ROOT, check=True, capture_output=True)
    output = f"--config.mask.output={folder}/affinity_mask.h5"
    return launch("mask", f"--config.mask.report={report}", output)


def decode(folder):
    """In boxes of one chunk, under a mask."""
    return launch(
        "decode",
        f"--config.decode.input={folder}/raw.zarr",
        f"--config.decode.output={folder}/seg.zarr",
        f"--config.qc.image={folder}/img.zarr",
        "--config.decode.method=affinity_cc",
        "--config.decode.threshold=0.5",
        "--config.decode.memory_gb=0.0005",
        *QC,
    )


def grow(folder):
    return launch(
        "decode",
        f"--config.decode.input={folder}/raw.zarr",
        f"--config.decode.output={folder}/seg.zarr",
        "--config.decode.affinity_mask=",
        "--config.decode.method=grow",
        "--config.decode.threshold=0.8",
        "--config.decode.low_threshold=0.2",
        "--config.decode.min_seed=10",
    )


CHAIN = """
import pathlib, sys
from small_chains import labels_at
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.store.lock import writing
from nisbjax.store.volume import open_affinities

folder, parameters = pathlib.Path(sys.argv[1]), eval(sys.argv[2])
affinities = open_affinities(folder / "six.zarr")
path = folder / "seg.zarr"
with writing(path):
    chain_volume(
        affinities,
        labels_at(path, affinities.spatial_shape, 16),
        parameters=ChainParameters(**parameters),
        memory_gb=0.1,
        schedule=Schedule(box_shape=(20, 12, 24)),
    )
"""


def chain(folder):
    """In 2 x 2 boxes that share chunks of the output."""
    return _chained(folder, small_chains.noise, anchor=5, low=0.3)


def chain_of_joins(folder):
    """Every step that the chain may have: halves of neurites join, and are shaved."""
    return _chained(
        folder,
        small_chains.broken_neurites,
        anchor=6,
        low=0.3,
        joins=("average", "absorb", "quantile"),
        faces=4,
        short=0.1,
        shave=1,
    )


def _chained(folder, values, **parameters):
    six = folder / "six.zarr"
    if not six.exists():
        small_chains.written(six, values(1, SHAPE), 16)
    return [sys.executable, "-c", CHAIN, str(folder), repr(parameters)]


def evaluate(folder):
    labels = folder / "labels.npy"
    if not labels.exists():
        planes = 1 + (np.arange(SHAPE[0]) // 14).astype(np.uint32)
        np.save(labels, np.broadcast_to(planes[:, None, None], SHAPE))
    return launch(
        "evaluate",
        f"--config.evaluate.segmentation={labels}",
        f"--config.evaluate.skeleton={folder}/skeleton.pkl",
    )


TUNE = """
import pathlib, sys
from nisbjax import artifacts, config
from nisbjax.evaluate.truth import Truth
from nisbjax.keys import determines
from nisbjax.tune import stage
from nisbjax.tune.inputs import Inputs

folder = pathlib.Path(sys.argv[1])
settings = config.base_config()
settings.tune.thresholds = (0.4, 0.6, 0.8)
settings.tune.storage = str(folder / sys.argv[2])
inputs = Inputs(
    str(folder / "raw.zarr"),
    Truth(str(folder / "skeleton.pkl"), "", (9.0, 9.0, 12.0)),
    determines.facts(settings, "study"),
)
out = artifacts.Run(folder).tune(1)
stage.run(settings.tune, settings.decode, out, inputs, seed=settings.seed)
"""


def tune(folder):
    return [sys.executable, "-c", TUNE, str(folder), "study.db"]


def tune_by_journal(folder):
    return [sys.executable, "-c", TUNE, str(folder), "study.journal"]


@pytest.mark.parametrize(
    ("stage", "kills"),
    few_or_all(
        (qc, 3, 8),
        (mask, 2, 8),
        (decode, 3, 8),
        (grow, 2, 8),
        (chain, 3, 8),
        (chain_of_joins, 1, 8),
        (evaluate, 2, 8),
        (tune, 3, 8),
        (tune_by_journal, 2, 8),
    ),
)
def test_killed_stages_end_as_the_undisturbed_one(files, library, stage, kills):
    """Stages that need no network, on files of other programs."""
    stage(files)  # what it needs is made before the copies
    campaign(library, files, stage, kills)


@pytest.mark.parametrize(
    ("stage", "count"),
    few_or_all(
        (qc, 1, 4), (mask, 0, 4), (decode, 2, 4), (grow, 1, 4), (evaluate, 1, 4)
    ),
)
def test_a_signal_ends_a_stage_in_order(files, library, stage, count):
    stage(files)
    campaign(library, files, stage, count, ENDS)
