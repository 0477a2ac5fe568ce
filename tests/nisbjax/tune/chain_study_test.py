"""A study of the chain from tables: no decode, the scores of one, and tables found again."""

import pickle

import networkx as nx
import numpy as np
import pytest

from nisbjax import artifacts
from nisbjax.config import base_config
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.evaluate import nerl
from nisbjax.evaluate.truth import Truth
from nisbjax.keys import determines
from nisbjax.skeletons import load
from nisbjax.store import volume
from nisbjax.tune import stage
from nisbjax.tune.chain_study import ChainStudy
from nisbjax.tune.chain_tables import TableMaker
from nisbjax.tune.inputs import Inputs

SHAPE = (24, 8, 6)


@pytest.fixture
def config():
    """Four points of `attract` and `repel`."""
    config = base_config()
    config.decode.method = "chain"
    config.tune.sampler = "grid"
    config.tune.space = (("attract", 0.0, 0.6, 2), ("repel", -1.0, 1.0, 2))
    return config


@pytest.fixture
def inputs(tmp_path):
    """Noise, and two skeletons along x."""
    rng = np.random.default_rng(3)
    affinities = (0.4 + 0.6 * rng.random((6, *SHAPE))).astype(np.float16)
    affinities[1, :, 3], affinities[4, :, :4] = 0.45, 0.3
    path = tmp_path / "raw.zarr"
    volume.create_zarr(
        path, shape=affinities.shape, dtype=np.float16, chunks=(6, 8, 8, 8), axes="cxyz"
    ).write(..., affinities)
    graph = nx.Graph()
    for neurite, y in ((3, 1), (5, 6)):
        for x in range(24):
            nm = (9.0 * x, 9.0 * y, 27.0)
            graph.add_node(
                (neurite, x), id=neurite, index_position=(x, y, 3), nm_position=nm
            )
            if x:
                graph.add_edge((neurite, x - 1), (neurite, x))
    (tmp_path / "skeleton.pkl").write_bytes(pickle.dumps(graph))
    return Inputs(
        str(path),
        Truth(str(tmp_path / "skeleton.pkl"), "", (9.0, 9.0, 9.0)),
        {},
        MaskedEdges(mask=rng.random(SHAPE) < 0.95),
    )


@pytest.fixture
def out(tmp_path):
    return artifacts.Run(tmp_path).tune(1)


def study_of(config, inputs, parent, ranges):
    affinities = volume.open_affinities(inputs.prediction)
    truth = load(inputs.truth.skeleton)
    return ChainStudy.of(inputs, affinities, truth, config.decode, ranges, parent)


def test_a_study_has_the_scores_of_decodes_and_makes_none(config, inputs, out):
    determined = determines.facts(config, "study")
    inputs = Inputs(inputs.prediction, inputs.truth, determined, inputs.edges)
    best = stage.run(config.tune, config.decode, out, inputs, seed=1)
    truth = load(inputs.truth.skeleton)
    affinities = volume.open_affinities(inputs.prediction)
    scores = []
    for attract, repel in ((0.0, -1.0), (0.0, 1.0), (0.6, -1.0), (0.6, 1.0)):
        labels = np.zeros(SHAPE, np.uint32)
        chain_volume(
            affinities,
            volume.from_array(labels, "xyz"),
            parameters=ChainParameters(attract=attract, repel=repel),
            memory_gb=1.0,
            edges=inputs.edges,
        )
        scores.append(nerl.score(truth, labels[tuple(truth.index_position.T)]))
    values = [score["nerl_mean"] for score in scores]
    assert len(set(values)) > 1
    assert best["best_value"] == pytest.approx(max(values))
    assert best["scores"]["n_segments"] == scores[best["best_trial"]]["n_segments"]
    assert [path.name for path in out.trials.parent.glob("trials*")] == []


def test_tables_are_found_again_and_made_anew_where_they_are_damaged(
    config, inputs, out, monkeypatch
):
    ranges = {"attract": (0.0, 0.6), "repel": (-1.0, 1.0)}
    point = {"attract": 0.3, "repel": 0.5}
    study = study_of(config, inputs, out.tables, ranges)
    assert study is not None
    expected = study.segments(point)
    makes, make = [], TableMaker.make

    def counted(self, *arguments):
        makes.append(self.ranges)
        make(self, *arguments)

    monkeypatch.setattr(TableMaker, "make", counted)
    again = study_of(config, inputs, out.tables, ranges)
    np.testing.assert_array_equal(again.segments(point), expected)
    assert makes == []
    table = study.folder / "0.npz"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    again = study_of(config, inputs, out.tables, ranges)
    np.testing.assert_array_equal(again.segments(point), expected)
    assert makes == [ranges]
    wider = study_of(config, inputs, out.tables, {"attract": (0.0, 0.7)})
    assert wider.folder != study.folder


def test_tables_that_were_stopped_half_way_are_not_there(
    config, inputs, out, monkeypatch
):
    ranges = {"repel": (-1.0, 1.0)}

    def stopped(self, folder, at_once):
        folder.mkdir(parents=True)
        (folder / "0.npz").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TableMaker, "make", stopped)
        with pytest.raises(KeyboardInterrupt):
            study_of(config, inputs, out.tables, ranges).segments({"repel": 0.0})
    assert not out.tables.exists()
    assert study_of(config, inputs, out.tables, ranges).segments({"repel": 0.0}).any()


@pytest.mark.parametrize(
    ("keys", "ranges"),
    [
        ({"method": "affinity_cc"}, {"threshold": (0.4, 0.9)}),
        ({"min_size": 5}, {"attract": (0.0, 0.4)}),
        ({}, {"min_size": (0, 9)}),
        ({"joins": ("average",)}, {"attract": (0.0, 0.4)}),
        ({"shave": 1}, {"attract": (0.0, 0.4)}),
        ({"memory_gb": 1e-6}, {"attract": (0.0, 0.4)}),
    ],
)
def test_other_studies_decode_for_each_trial(config, inputs, out, keys, ranges):
    config.decode.update(keys)
    assert study_of(config, inputs, out.tables, ranges) is None
