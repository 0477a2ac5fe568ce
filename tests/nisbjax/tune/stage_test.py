"""Tuning a tiny volume: the study, its files, reruns, the mask, and the error lines."""

import pickle
import shutil

import networkx as nx
import numpy as np
import optuna
import pytest

from nisbjax import artifacts
from nisbjax.config import base_config
from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError
from nisbjax.evaluate import nerl, nodes, score_text
from nisbjax.evaluate.truth import Truth
from nisbjax.keys import determines
from nisbjax.mask import MaskSpec
from nisbjax.modes import segmentation
from nisbjax.skeletons import load
from nisbjax.store import manifest_lines, volume
from nisbjax.tune import best_params, scorer, space, stage
from nisbjax.tune.inputs import Inputs

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
def config():
    """The preset, with four of its ten thresholds."""
    config = base_config()
    config.tune.thresholds = (0.52, 0.58, 0.64, 0.76)
    return config


@pytest.fixture
def out(tmp_path):
    return artifacts.Run(tmp_path).tune(200000)


WITHOUT_PLANE_0 = MaskSpec(
    shape=SHAPE, low_z=1, high_z=6, border_width=0, bg_thresh=0.0
)


def run(
    config,
    out,
    *,
    prediction,
    skeleton,
    label="",
    mask=None,
    decode=None,
    on_test=False,
):
    """As the mode calls it."""
    inputs = Inputs(
        str(prediction),
        Truth(str(skeleton), str(label), (9.0, 9.0, 12.0)),
        determines.facts(config, "study"),
        MaskedEdges(mask=mask, mask_edges=config.decode.mask_edges),
        on_test,
    )
    return stage.run(
        config.tune, config.decode, out, inputs, seed=config.seed, decode_whole=decode
    )


def load_study(config, out) -> optuna.Study:
    return optuna.load_study(
        study_name=config.tune.study,
        storage=f"sqlite:///{out.database(config.tune.study)}",
    )


@pytest.fixture
def masked(tmp_path, inputs):
    """The inputs with a mask that takes the plane z = 0 away."""
    return inputs | {"mask": WITHOUT_PLANE_0}


@pytest.fixture
def decode(tmp_path):
    """A whole decode of the made volume under that mask."""

    def whole(parameters):
        labels = label_affinities(
            made_affinities(), parameters["threshold"], mask=WITHOUT_PLANE_0
        )
        sizes = np.bincount(labels.ravel())
        labels[sizes[labels] < parameters.get("min_size", 130)] = 0
        path = tmp_path / "trial.npy"
        np.save(path, labels)
        return path

    return whole


def test_finds_the_gap_between_contact_and_thin_neurite(masked, out):
    best = run(base_config(), out, **masked)
    # of the tutorial's grid, 0.58 and 0.64 lie in (0.55, 0.65); the earlier is taken
    assert best["decoding_params"] == {"threshold": 0.58}
    assert best["best_value"] == pytest.approx(1)
    assert best["scores"]["coverage"] == 0
    assert not best["test_data_used"]
    assert best_params.read(out.best_params) == best
    assert out.figure.read_bytes()[:4] == b"\x89PNG"
    assert out.database("nisb_base_banis_cc_tuning").is_file()
    opened = load_study(base_config(), out)
    assert len(opened.trials) == 10
    attributes = opened.trials[0].user_attrs
    assert {"voi_sum", "n_splits", "coverage", "n_non0_mergers"} <= attributes.keys()


@pytest.mark.parametrize(
    ("objective", "key", "sign"),
    [("nerl_mean", "nerl_mean", 1), ("nerl", "nerl", 1), ("voi", "voi_sum", -1)],
)
def test_scores_are_those_of_decoding_at_each_threshold(
    config, inputs, masked, out, objective, key, sign
):
    config.tune.objective = objective
    best = run(config, out, **masked)
    assert best["metric"] == best["made_from"]["metric"] == objective
    assert best["best_value"] == best["scores"][key]
    assert "2 skeletons for 1 tuned parameter(s)" in " ".join(best["warnings"])
    truth = load(inputs["skeleton"])
    opened = load_study(config, out)
    for trial in opened.trials:
        labels = label_affinities(
            made_affinities(), trial.params["threshold"], mask=WITHOUT_PLANE_0
        )
        segments = nodes.read_node_segments(volume.from_array(labels, "xyz"), truth)
        expected = sign * nerl.score(truth, segments)[key]
        assert trial.value == pytest.approx(expected)


@pytest.fixture
def labeled(masked, tmp_path):
    """The masked inputs, with dense labels of the two neurites and no skeletons."""
    labels = np.ones(SHAPE, np.uint8)
    labels[:, 2:] = 2
    np.save(tmp_path / "labels.npy", labels)
    return masked | {"skeleton": "", "label": tmp_path / "labels.npy"}


def test_without_skeletons_dense_labels_are_tuned_by(
    config, labeled, out, decode, caplog
):
    caplog.set_level("INFO")
    best = run(config, out, **labeled, decode=decode)
    assert best["decoding_params"] == {"threshold": 0.58}
    assert best["metric"] == best["made_from"]["metric"] == "adapted_rand"
    # in the lowest plane both are background: 32 + 32 of 384 voxels in all, kept as
    # 64 / 384; the rest shares 160^2 + 160^2, and labels have 192^2 + 192^2
    shared, background = 2 * 160**2, 64 / 384
    recall = (shared + background) / (2 * 192**2)
    assert best["scores"]["adapted_rand_recall"] == pytest.approx(recall)
    assert best["scores"]["adapted_rand_precision"] == pytest.approx(1)
    assert best["best_value"] == pytest.approx(1 - 2 * recall / (1 + recall))
    assert not {"nerl", "coverage"} & best["scores"].keys()
    assert not [w for w in best["warnings"] if "skeletons" in w]
    assert best_params.read(out.best_params) == best
    assert out.figure.read_bytes()[:4] == b"\x89PNG"
    said = f"no skeletons: tuned by adapted Rand error against {labeled['label']}"
    assert said in caplog.messages
    assert run(config, out, **labeled, decode=decode) == best


def test_other_labels_are_another_study(config, labeled, out, decode):
    config.tune.thresholds = (0.58,)
    run(config, out, **labeled, decode=decode)
    np.save(labeled["label"], np.ones(SHAPE, np.uint8))
    with pytest.raises(InputError, match="scored other label"):
        run(config, out, **labeled, decode=decode)
    np.save(labeled["label"], np.ones((2, 2, 2), np.uint8))
    with pytest.raises(InputError, match=r"labels.npy have shape \(2, 2, 2\), and wh"):
        run(config, out, **labeled, decode=decode)


def test_without_the_mask_the_bad_plane_merges_all(config, inputs, out):
    best = run(config, out, **inputs)
    assert best["decoding_params"]["threshold"] != 0.58


def test_a_second_run_appends_and_redoes_nothing(config, masked, out, monkeypatch):
    run(config, out, **masked)
    passes = []
    original = scorer.sweep.nodes_by_threshold

    def counted(affinities, positions, thresholds, **rest):
        passes.append(thresholds)
        return original(affinities, positions, thresholds, **rest)

    monkeypatch.setattr(scorer.sweep, "nodes_by_threshold", counted)
    run(config, out, **masked)
    assert passes == []
    config.tune.thresholds = (0.58, 0.61)
    best = run(config, out, **masked)
    assert passes == [(0.61,)]
    assert best["trials_complete"] == 5


def test_another_prediction_mask_or_objective_is_another_study(
    config, inputs, masked, out
):
    run(config, out, **inputs)
    config.tune.objective = "voi"
    with pytest.raises(InputError, match="scored other metric .metric: 'nerl_mean', n"):
        run(config, out, **inputs)
    config.tune.objective = "nerl_mean"
    with pytest.raises(InputError, match="scored other mask"):
        run(config, out, **masked)
    config.tune.study = "masked"
    run(config, out, **masked)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_samplers_over_the_threshold(config, masked, out, sampler):
    config.tune.sampler = sampler
    config.tune.trials = 3
    best = run(config, out, **masked)
    assert best["trials_complete"] == 3
    assert 0.4 <= best["decoding_params"]["threshold"] <= 0.94


def test_samplers_over_parameters_of_a_whole_decode(
    config, masked, out, decode, caplog
):
    caplog.set_level("INFO")
    config.tune.sampler = "tpe"
    config.tune.trials = 3
    config.tune.space = (("threshold", 0.56, 0.64), ("min_size", 0, 50))
    with pytest.raises(
        InputError, match=r"tuning \['min_size', 'threshold'\] with .* whole"
    ):
        run(config, out, **masked)
    best = run(config, out, **masked, decode=decode)
    assert any("each trial is a whole decode: " in line for line in caplog.messages)
    assert set(best["decoding_params"]) == {"threshold", "min_size"}
    assert best["best_value"] == pytest.approx(1)
    assert best["made_from"]["parameters"] == ["min_size", "threshold"]


@pytest.fixture
def decode_file(config, inputs, tmp_path):
    """A whole decode of the made volume by the decode stage, under that mask."""
    kept = np.ones(SHAPE, np.uint8)
    kept[:, :, 0] = 0
    np.save(tmp_path / "mask.npy", kept)

    def whole(parameters):
        place = artifacts.VolumeDir(tmp_path / "trial")
        shutil.rmtree(place.path, ignore_errors=True)
        chosen = segmentation.with_parameters(config, parameters)
        path = segmentation.path_in(chosen, place)
        mask = tmp_path / "mask.npy"
        return segmentation.decode(chosen, path, inputs["prediction"], mask)

    return whole


def test_growing_is_tuned_over_all_of_its_parameters(config, masked, out, decode_file):
    # seeds above 0.55 are the halves of the neurites, or the whole of them; what joins
    # two neurites (0.55) must not come in below: 0.65 makes it perfect, from any seed
    config.decode.method = "grow"
    config.tune.sampler = "tpe"
    config.tune.trials = 8
    config.tune.space = (
        ("threshold", 0.60, 0.64),
        ("low_threshold", 0.56, 0.64),
        ("min_seed", 1, 200),
    )
    best = run(config, out, **masked, decode=decode_file)
    assert best["best_value"] == pytest.approx(1)
    assert best["decoding_function"] == "grow"
    assert set(best["decoding_params"]) == {
        "threshold",
        "low_threshold",
        "min_seed",
        "grow_margin",
    }
    trials = load_study(config, out).trials
    assert len(trials) == 8
    assert all(t.params["low_threshold"] <= t.params["threshold"] for t in trials)
    # for testing, in the types of the keys
    kept = best_params.read(out.best_params)
    chosen = best_params.parameters(config.decode, kept, out.best_params)
    assert chosen == best["decoding_params"]
    assert isinstance(chosen["min_seed"], int)
    config.decode.method = "affinity_cc"
    with pytest.raises(
        InputError,
        match="best_params.yaml is of decode.method=grow, and .* is affinity_cc; set",
    ):
        best_params.parameters(config.decode, kept, out.best_params)


def test_joins_stay_as_they_are_from_a_study_to_a_score(
    config, masked, out, decode_file, tmp_path
):
    config.decode.update(
        {"method": "chain3", "joins": ("average", "absorb"), "faces": 3}
    )
    config.tune.thresholds = (0.6, 0.7)
    best = run(config, out, **masked, decode=decode_file)
    assert best["decoding_params"]["joins"] == ("average", "absorb")
    kept = best_params.read(out.best_params)
    chosen = best_params.parameters(config.decode, kept, out.best_params)
    assert chosen == best["decoding_params"]
    decode_file(chosen)
    assert "joins average+absorb, faces 3" in score_text.parameters(chosen)


def test_a_grid_of_several_parameters(config, masked, out, decode_file):
    config.decode.method = "grow"
    config.tune.thresholds = (0.58, 0.9)
    config.tune.space = (
        ("threshold", 0.4, 0.9),  # a grid has tune.thresholds
        ("low_threshold", 0.57, 0.61, 2),
        ("min_seed", 1, 100, 3),
    )
    # .58 does not go with .61
    seeds = (1, 10, 100)  # over two decades: a logarithmic scale
    pairs = ((0.58, 0.57), (0.9, 0.57), (0.9, 0.61))
    assert space.points(config.tune, config.decode) == [
        {"threshold": t, "low_threshold": low, "min_seed": n}
        for t, low in pairs
        for n in seeds
    ]
    run(config, out, **masked, decode=decode_file)
    trials = load_study(config, out).trials
    assert len(trials) == 9 and all(t.value is not None for t in trials)
    run(config, out, **masked, decode=decode_file)
    assert len(load_study(config, out).trials) == 9
    config.tune.thresholds = (0.5,)
    with pytest.raises(InputError, match="no point of the grid has low_threshold at"):
        space.points(config.tune, config.decode)


def test_a_minimal_size_is_tuned_as_it_is_tested(config, masked, out, decode):
    # each neurite has 16 x 2 x 5 = 160 voxels without the plane z = 0, those cut at the
    # thin place fewer: above 0.65 every piece is below 130 voxels, and goes
    config.decode.min_size = 130
    config.tune.thresholds = (0.58, 0.76)
    best = run(config, out, **masked, decode=decode)
    assert best["best_value"] == pytest.approx(1)
    opened = load_study(config, out)
    assert opened.trials[1].user_attrs["coverage"] == 1
    assert opened.trials[1].value == 0


def test_a_region_is_tuned_on_its_part_of_the_skeletons(config, masked, out):
    """x 4 to 12 of the made volume, where both neurites are thin at x 7 and 8."""
    part = masked["prediction"].with_name("part.zarr")
    volume.create_zarr(
        part,
        shape=(3, 8, 4, 6),
        dtype=np.float16,
        chunks=(3, 8, 4, 6),
        axes="cxyz",
        attributes={"box": "4:12,0:4,0:6", "volume_shape": list(SHAPE)},
    ).write(..., made_affinities()[:, 4:12])
    masked |= {"prediction": part, "mask": None}
    best = run(config, out, **masked)
    assert "16 of 32 nodes, 14 of 30 edges; not the volume's" in best["warnings"][-1]


def test_what_fails_in_a_trial_is_not_taken_for_a_damaged_study(
    config, masked, out, monkeypatch
):
    def broken(*_, **__):
        raise KeyError("no such chunk")

    monkeypatch.setattr(scorer.sweep, "nodes_by_threshold", broken)
    with pytest.raises(KeyError, match="no such chunk"):
        run(config, out, **masked)
    opened = load_study(config, out)
    assert {t.state.name for t in opened.trials} == {"FAIL"}


def test_keys_are_refused_before_anything_is_written(config, inputs, out):
    config.tune.space = (("threshold", 0.4),)
    before = sorted(inputs["skeleton"].parent.rglob("*"))
    with pytest.raises(InputError, match="tune.space holds"):
        run(config, out, **inputs)
    assert sorted(inputs["skeleton"].parent.rglob("*")) == before


def test_inputs_that_do_not_fit(config, inputs, out, tmp_path):
    with pytest.raises(InputError, match="no volume at"):
        run(config, out, prediction=tmp_path / "no", skeleton=tmp_path / "no")
    small = tmp_path / "small.npy"
    np.save(small, made_affinities()[:, :8])
    with pytest.raises(InputError, match="16 of 32 nodes of .* lie outside"):
        run(config, out, prediction=small, skeleton=inputs["skeleton"])
    path = manifest_lines.path_inside(inputs["prediction"])
    path.write_text('{"fingerprint": {}}\n')
    with pytest.raises(InputError, match="is unfinished"):
        run(config, out, **inputs)


def test_what_was_tuned_on_test_data_says_so(config, inputs, out):
    best = run(config, out, **inputs, on_test=True)
    assert best["test_data_used"]
    assert best["warnings"][-1] == (
        "the threshold was chosen on test data: not a test result"
    )
