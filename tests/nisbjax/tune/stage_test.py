"""Tuning a tiny volume: the study, its files, reruns, the mask, and the error lines."""

import pickle

import networkx as nx
import numpy as np
import optuna
import pytest
import yaml

from nisbjax import artifacts, config, manifest, volume
from nisbjax.decode.connected_components import label_affinities
from nisbjax.errors import InputError
from nisbjax.evaluate import nerl, nodes
from nisbjax.masking import MaskSpec
from nisbjax.skeletons import load
from nisbjax.tune import stage, study

SHAPE = (16, 4, 6)


def made_affinities() -> np.ndarray:
    """Two neurites along x, y < 2 and y >= 2, of strength 0.85, thin (0.65) at x 7-8.

    They touch by edges of 0.55 and, in the lowest plane z = 0, of 0.95: the best
    threshold lies between 0.55 and 0.65, if the mask takes the lowest plane away.
    """
    affinities = np.full((3, *SHAPE), 0.85, np.float16)
    affinities[0, 7:9] = 0.65
    affinities[1, :, 1] = 0.55
    affinities[1, :, 1, 0] = 0.95
    return affinities


@pytest.fixture
def inputs(tmp_path):
    """Prediction and skeletons of the made volume, z = 3, nodes at every x."""
    prediction = tmp_path / "predictions" / "raw_x1_ch0-1-2.zarr"
    prediction.parent.mkdir()
    volume.create_zarr(
        prediction,
        shape=(3, *SHAPE),
        dtype=np.float16,
        chunks=(3, 8, 4, 6),
        axes="cxyz",
    ).write(..., made_affinities())
    graph = nx.Graph()
    for neurite, y in ((3, 0), (5, 3)):
        for x in range(16):
            graph.add_node(
                (neurite, x),
                id=neurite,
                index_position=(x, y, 3),
                nm_position=(9.0 * x, 9.0 * y, 36.0),
            )
            if x:
                graph.add_edge((neurite, x - 1), (neurite, x))
    skeleton = tmp_path / "skeleton.pkl"
    skeleton.write_bytes(pickle.dumps(graph))
    return {"prediction": prediction, "skeleton": skeleton}


@pytest.fixture
def settings():
    return config.base_config()


@pytest.fixture
def out(tmp_path):
    return artifacts.Run(tmp_path).tune(200000)


WITHOUT_PLANE_0 = MaskSpec(
    shape=SHAPE, low_z=1, high_z=6, border_width=0, bg_thresh=0.0
)


def test_finds_the_gap_between_contact_and_thin_neurite(settings, inputs, out):
    best = stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)
    # of the tutorial's grid, 0.58 and 0.64 lie in (0.55, 0.65); the earlier is taken
    assert best["decoding_params"] == {"threshold": 0.58}
    assert best["best_value"] == pytest.approx(1)
    assert best["scores"]["coverage"] == 0
    assert not best["test_data_used"]
    kept = stage.read_best_params(out.best_params)
    assert kept == best
    assert out.figure.read_bytes()[:4] == b"\x89PNG"
    opened = optuna.load_study(
        study_name="nisb_base_banis_cc_tuning",
        storage=f"sqlite:///{out.database('nisb_base_banis_cc_tuning')}",
    )
    assert len(opened.trials) == 10
    attributes = opened.trials[0].user_attrs
    assert {"voi_sum", "n_splits", "coverage", "n_non0_mergers"} <= attributes.keys()


def test_scores_are_those_of_decoding_at_each_threshold(settings, inputs, out):
    stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)
    truth = load(inputs["skeleton"])
    opened = optuna.load_study(
        study_name=settings.tune.study,
        storage=f"sqlite:///{out.database(settings.tune.study)}",
    )
    for trial in opened.trials:
        labels = label_affinities(
            made_affinities(), trial.params["threshold"], mask=WITHOUT_PLANE_0
        )
        segments = nodes.read_node_segments(volume.from_array(labels, "xyz"), truth)
        assert trial.value == pytest.approx(nerl.score(truth, segments)["nerl"])


def test_without_the_mask_the_bad_plane_merges_all(settings, inputs, out):
    best = stage.run(settings, out, **inputs)
    assert best["decoding_params"]["threshold"] != 0.58


def test_a_second_run_appends_and_redoes_nothing(settings, inputs, out, monkeypatch):
    stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)
    passes = []
    original = stage.sweep.nodes_by_threshold

    def counted(affinities, positions, thresholds, **rest):
        passes.append(thresholds)
        return original(affinities, positions, thresholds, **rest)

    monkeypatch.setattr(stage.sweep, "nodes_by_threshold", counted)
    stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)
    assert passes == []
    settings.tune.thresholds = (0.58, 0.61)
    best = stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)
    assert passes == [(0.61,)]
    assert best["trials_complete"] == 11


def test_another_prediction_or_mask_is_another_study(settings, inputs, out):
    stage.run(settings, out, **inputs)
    with pytest.raises(InputError, match="scored other mask"):
        stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)
    settings.tune.study = "masked"
    stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)


def test_named_grids(settings):
    assert stage.grid(settings) == study.GRIDS["tutorial"]
    settings.tune.grid = "banis"
    assert len(stage.grid(settings)) == 13
    settings.tune.grid = "bannis"
    with pytest.raises(
        InputError, match="tune.grid is 'bannis'; wanted one of tutorial"
    ):
        stage.grid(settings)
    settings.tune.grid = ""
    settings.tune.thresholds = (0.5, 1.5)
    with pytest.raises(InputError, match="wanted one or more numbers from 0 to 1"):
        stage.grid(settings)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_samplers_over_the_threshold(settings, inputs, out, sampler):
    settings.tune.sampler = sampler
    settings.tune.trials = 6
    best = stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)
    assert best["trials_complete"] == 6
    assert 0.4 <= best["decoding_params"]["threshold"] <= 0.94


def test_samplers_over_parameters_of_a_whole_decode(settings, inputs, out, tmp_path):
    settings.tune.sampler = "tpe"
    settings.tune.trials = 5
    settings.tune.space = (("threshold", 0.56, 0.64), ("min_size", 0, 50))
    with pytest.raises(InputError, match="which need a whole decode for each trial"):
        stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0)

    def decode(parameters):
        labels = label_affinities(
            made_affinities(), parameters["threshold"], mask=WITHOUT_PLANE_0
        )
        path = tmp_path / f"{parameters['threshold']}_{parameters['min_size']}.npy"
        np.save(path, labels)
        return path

    best = stage.run(settings, out, **inputs, mask=WITHOUT_PLANE_0, decode=decode)
    assert set(best["decoding_params"]) == {"threshold", "min_size"}
    assert best["best_value"] == pytest.approx(1)


def test_test_data_need_an_explicit_word(settings, inputs, out):
    settings.data.root = str(inputs["skeleton"].parent)
    settings.data.test.skeleton = "skeleton.pkl"
    with pytest.raises(
        InputError, match="belongs to the test volume, which thresholds"
    ):
        stage.run(settings, out, **inputs)
    assert not out.path.exists()
    settings.tune.allow_test_data = True
    best = stage.run(settings, out, **inputs)
    assert best["test_data_used"]
    assert "chosen on test data" in best["warnings"][-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "grdi"}, "tune.sampler is 'grdi'; wanted one of grid, tpe"),
        ({"sampler": "tpe", "trials": 0}, "tune.trials is 0; wanted 1 or more"),
        (
            {"sampler": "tpe", "space": (("min_size", 0, 9),)},
            r"tune.space names \['min_size'\]; wanted .* threshold at least",
        ),
        (
            {"sampler": "tpe", "space": (("threshold", 0.4, 0.9), ("minsize", 0, 9))},
            "tune.space names minsize, which is no key of decode; wanted some of affin",
        ),
    ],
)
def test_settings_that_cannot_be(settings, inputs, out, changes, message):
    settings.tune.update(changes)
    with pytest.raises(InputError, match=message):
        stage.run(settings, out, **inputs)


def test_inputs_that_do_not_fit(settings, inputs, out, tmp_path):
    with pytest.raises(InputError, match="no volume at"):
        stage.run(settings, out, prediction=tmp_path / "no", skeleton=tmp_path / "no")
    small = tmp_path / "small.npy"
    np.save(small, made_affinities()[:, :8])
    with pytest.raises(InputError, match="16 of 32 nodes of .* lie outside"):
        stage.run(settings, out, prediction=small, skeleton=inputs["skeleton"])
    path = manifest.path_beside(inputs["prediction"])
    with manifest.Manifest(path, {"a": 1}) as unfinished:
        unfinished.record("0:8", "checksum")
    with pytest.raises(InputError, match="is unfinished"):
        stage.run(settings, out, **inputs)


def test_best_params_that_are_missing_or_empty(tmp_path):
    path = tmp_path / "best_params.yaml"
    with pytest.raises(InputError, match="no tuned parameters at .*; run --mode=tune"):
        stage.read_best_params(path)
    for content in ("", "a: [", yaml.safe_dump({"decoding_params": {}})):
        path.write_text(content)
        with pytest.raises(InputError, match="has no decoding_params.threshold"):
            stage.read_best_params(path)


def test_where_edges_are_stored(settings):
    affinities = volume.from_array(made_affinities(), "cxyz")
    assert stage.edge_offset(settings, affinities) == 0
    affinities.attributes["edge_stored_at"] = "destination"
    assert stage.edge_offset(settings, affinities) == 1
    affinities.attributes["edge_stored_at"] = "nowhere"
    with pytest.raises(InputError, match="wanted one of source, destination"):
        stage.edge_offset(settings, affinities)
