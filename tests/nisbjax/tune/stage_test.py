"""Tuning a tiny volume: the study, its files, reruns, the mask, and the error lines."""

import math
import pickle
import shutil

import networkx as nx
import numpy as np
import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nisbjax import artifacts, config
from nisbjax.decode.connected_components import label_affinities
from nisbjax.errors import InputError
from nisbjax.evaluate import nerl, nodes
from nisbjax.mask import MaskSpec
from nisbjax.modes import segmentation
from nisbjax.skeletons import load
from nisbjax.store import manifest_lines, volume
from nisbjax.tune import space, stage, study

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
    """The preset, with four of its ten thresholds."""
    settings = config.base_config()
    settings.tune.thresholds = (0.52, 0.58, 0.64, 0.76)
    return settings


@pytest.fixture
def out(tmp_path):
    return artifacts.Run(tmp_path).tune(200000)


WITHOUT_PLANE_0 = MaskSpec(
    shape=SHAPE, low_z=1, high_z=6, border_width=0, bg_thresh=0.0
)


def load_study(settings, out) -> optuna.Study:
    return optuna.load_study(
        study_name=settings.tune.study,
        storage=f"sqlite:///{out.database(settings.tune.study)}",
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
    best = stage.run(config.base_config(), out, **masked)
    # of the tutorial's grid, 0.58 and 0.64 lie in (0.55, 0.65); the earlier is taken
    assert best["decoding_params"] == {"threshold": 0.58}
    assert best["best_value"] == pytest.approx(1)
    assert best["scores"]["coverage"] == 0
    assert not best["test_data_used"]
    kept = stage.read_best_params(out.best_params)
    assert kept == best
    assert out.figure.read_bytes()[:4] == b"\x89PNG"
    assert out.database("nisb_base_banis_cc_tuning").is_file()
    opened = load_study(config.base_config(), out)
    assert len(opened.trials) == 10
    attributes = opened.trials[0].user_attrs
    assert {"voi_sum", "n_splits", "coverage", "n_non0_mergers"} <= attributes.keys()


def test_scores_are_those_of_decoding_at_each_threshold(settings, inputs, masked, out):
    stage.run(settings, out, **masked)
    truth = load(inputs["skeleton"])
    opened = load_study(settings, out)
    for trial in opened.trials:
        labels = label_affinities(
            made_affinities(), trial.params["threshold"], mask=WITHOUT_PLANE_0
        )
        segments = nodes.read_node_segments(volume.from_array(labels, "xyz"), truth)
        assert trial.value == pytest.approx(nerl.score(truth, segments)["nerl"])


def test_without_the_mask_the_bad_plane_merges_all(settings, inputs, out):
    best = stage.run(settings, out, **inputs)
    assert best["decoding_params"]["threshold"] != 0.58


def test_a_second_run_appends_and_redoes_nothing(settings, masked, out, monkeypatch):
    stage.run(settings, out, **masked)
    passes = []
    original = stage.sweep.nodes_by_threshold

    def counted(affinities, positions, thresholds, **rest):
        passes.append(thresholds)
        return original(affinities, positions, thresholds, **rest)

    monkeypatch.setattr(stage.sweep, "nodes_by_threshold", counted)
    stage.run(settings, out, **masked)
    assert passes == []
    settings.tune.thresholds = (0.58, 0.61)
    best = stage.run(settings, out, **masked)
    assert passes == [(0.61,)]
    assert best["trials_complete"] == 5


def test_another_prediction_or_mask_is_another_study(settings, inputs, masked, out):
    stage.run(settings, out, **inputs)
    with pytest.raises(InputError, match="scored other mask"):
        stage.run(settings, out, **masked)
    settings.tune.study = "masked"
    stage.run(settings, out, **masked)


def test_named_grids():
    settings = config.base_config()
    assert space.grid(settings) == study.GRIDS["tutorial"]
    settings.tune.grid = "banis"
    assert len(space.grid(settings)) == 13
    settings.tune.grid = "bannis"
    with pytest.raises(
        InputError, match="tune.grid is 'bannis'; wanted one of tutorial"
    ):
        space.grid(settings)
    settings.tune.grid = ""
    settings.tune.thresholds = (0.5, 1.5)
    with pytest.raises(InputError, match="wanted one or more numbers from 0 to 1"):
        space.grid(settings)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_samplers_over_the_threshold(settings, masked, out, sampler):
    settings.tune.sampler = sampler
    settings.tune.trials = 3
    best = stage.run(settings, out, **masked)
    assert best["trials_complete"] == 3
    assert 0.4 <= best["decoding_params"]["threshold"] <= 0.94


def test_samplers_over_parameters_of_a_whole_decode(settings, masked, out, decode):
    settings.tune.sampler = "tpe"
    settings.tune.trials = 3
    settings.tune.space = (("threshold", 0.56, 0.64), ("min_size", 0, 50))
    with pytest.raises(
        InputError, match=r"tuning \['min_size', 'threshold'\] with .* whole"
    ):
        stage.run(settings, out, **masked)
    best = stage.run(settings, out, **masked, decode=decode)
    assert set(best["decoding_params"]) == {"threshold", "min_size"}
    assert best["best_value"] == pytest.approx(1)
    assert best["made_from"]["parameters"] == ["min_size", "threshold"]


@pytest.fixture
def decode_file(settings, inputs, tmp_path):
    """A whole decode of the made volume by the decode stage, under that mask."""
    kept = np.ones(SHAPE, np.uint8)
    kept[:, :, 0] = 0
    np.save(tmp_path / "mask.npy", kept)

    def whole(parameters):
        place = artifacts.VolumeDir(tmp_path / "trial")
        shutil.rmtree(place.path, ignore_errors=True)
        chosen = segmentation.with_parameters(settings, parameters)
        path = segmentation.path_in(chosen.decode, place)
        mask = tmp_path / "mask.npy"
        return segmentation.decode(chosen, path, inputs["prediction"], mask)

    return whole


def test_growing_is_tuned_over_all_of_its_parameters(
    settings, masked, out, decode_file
):
    # seeds above 0.55 are the halves of the neurites, or the whole of them; what joins
    # two neurites (0.55) must not come in below: 0.65 makes it perfect, from any seed
    settings.decode.method = "grow"
    settings.tune.sampler = "tpe"
    settings.tune.trials = 8
    settings.tune.space = (
        ("threshold", 0.60, 0.64),
        ("low_threshold", 0.56, 0.64),
        ("min_seed", 1, 200),
    )
    best = stage.run(settings, out, **masked, decode=decode_file)
    assert best["best_value"] == pytest.approx(1)
    assert best["decoding_function"] == "grow"
    assert set(best["decoding_params"]) == {"threshold", "low_threshold", "min_seed"}
    trials = load_study(settings, out).trials
    assert len(trials) == 8
    assert all(t.params["low_threshold"] <= t.params["threshold"] for t in trials)
    # for testing, in the types of the keys
    kept = stage.read_best_params(out.best_params)
    chosen = stage.tuned_parameters(settings, kept, out.best_params)
    assert chosen == best["decoding_params"]
    assert isinstance(chosen["min_seed"], int)
    settings.decode.method = "affinity_cc"
    with pytest.raises(
        InputError,
        match="best_params.yaml is of decode.method=grow, and .* is affinity_cc; set",
    ):
        stage.tuned_parameters(settings, kept, out.best_params)


def test_a_grid_of_several_parameters(settings, masked, out, decode_file):
    settings.decode.method = "grow"
    settings.tune.thresholds = (0.58, 0.9)
    settings.tune.space = (
        ("threshold", 0.4, 0.9),  # a grid has tune.thresholds
        ("low_threshold", 0.57, 0.61, 2),
        ("min_seed", 1, 100, 3),
    )
    # .58 does not go with .61
    seeds = (1, 10, 100)  # over two decades: a logarithmic scale
    pairs = ((0.58, 0.57), (0.9, 0.57), (0.9, 0.61))
    assert space.points(settings) == [
        {"threshold": t, "low_threshold": low, "min_seed": n}
        for t, low in pairs
        for n in seeds
    ]
    stage.run(settings, out, **masked, decode=decode_file)
    trials = load_study(settings, out).trials
    assert len(trials) == 9 and all(t.value is not None for t in trials)
    stage.run(settings, out, **masked, decode=decode_file)
    assert len(load_study(settings, out).trials) == 9
    settings.tune.thresholds = (0.5,)
    with pytest.raises(InputError, match="no point of the grid has low_threshold at"):
        space.points(settings)


def test_parameters_of_pytc_that_are_not_ours_are_left_out(settings):
    found = {
        "decoding_function": "decode_affinity_cc",
        "decoding_params": {"threshold": 0.66, "backend": "numba", "min_size": 5.0},
    }
    chosen = stage.tuned_parameters(settings, found, "best_params.yaml")
    assert chosen == {"threshold": 0.66, "min_size": 5}


def test_a_minimal_size_is_tuned_as_it_is_tested(settings, masked, out, decode):
    # each neurite has 16 x 2 x 5 = 160 voxels without the plane z = 0, those cut at the
    # thin place fewer: above 0.65 every piece is below 130 voxels, and goes
    settings.decode.min_size = 130
    settings.tune.thresholds = (0.58, 0.76)
    best = stage.run(settings, out, **masked, decode=decode)
    assert best["best_value"] == pytest.approx(1)
    opened = load_study(settings, out)
    assert opened.trials[1].user_attrs["coverage"] == 1
    assert opened.trials[1].value == 0


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


def test_the_test_image_needs_the_word_too(settings, inputs, out, tmp_path):
    """The same image under other skeletons, and a prediction that was made of it."""
    image = tmp_path / "test" / "img"
    image.mkdir(parents=True)
    settings.data.root = str(tmp_path)
    settings.data.test.image = "test/img"
    skeleton = inputs["skeleton"]
    with pytest.raises(InputError, match="test/img belongs to the test volume"):
        stage.guard_test_data(settings, skeleton, tmp_path / "val" / ".." / image)
    assert not stage.guard_test_data(settings, skeleton, tmp_path)
    attributes = {"axes": list("cxyz"), "source": str(image)}
    volume.write_attributes(inputs["prediction"], attributes)
    with pytest.raises(InputError, match="test/img belongs to the test volume"):
        stage.run(settings, out, **inputs)
    settings.tune.allow_test_data = True
    assert stage.run(settings, out, **inputs)["test_data_used"]


def test_a_region_is_tuned_on_its_part_of_the_skeletons(settings, masked, out):
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
    settings.decode.affinity_mask = ""
    best = stage.run(settings, out, **masked)
    assert "16 of 32 nodes, 14 of 30 edges; not the volume's" in best["warnings"][-1]


def test_what_fails_in_a_trial_is_not_taken_for_a_damaged_study(
    settings, masked, out, monkeypatch
):
    def broken(*_, **__):
        raise KeyError("no such chunk")

    monkeypatch.setattr(stage.sweep, "nodes_by_threshold", broken)
    with pytest.raises(KeyError, match="no such chunk"):
        stage.run(settings, out, **masked)
    opened = load_study(settings, out)
    assert {t.state.name for t in opened.trials} == {"FAIL"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"thresholds": (0.5, float("nan"))},
            r"tune.thresholds is \(0.5, nan\); wanted one or more numbers from 0 to 1",
        ),
        ({"thresholds": ("half",)}, r"tune.thresholds is \('half',\); wanted"),
        ({"sampler": "grdi"}, "tune.sampler is 'grdi'; wanted one of grid, tpe"),
        ({"sampler": "tpe", "trials": 0}, "tune.trials is 0; wanted 1 or more"),
        (
            {"sampler": "tpe", "space": (("min_size", 0, 9),)},
            r"tune.space names \['min_size'\]; wanted .* threshold at least",
        ),
        (
            {"sampler": "tpe", "space": (("threshold", 0.4, 0.9), ("minsize", 0, 9))},
            "names minsize, which decode.method=affinity_cc does not take; .* min_size",
        ),
        (
            {"sampler": "tpe", "space": (("threshold", 0.4, 0.9),)},
            "low_threshold begins at 0.5 and threshold in tune.space at 0.4; wanted low",
        ),
        ({"space": (("threshold", 0.4),)}, r"tune.space holds \('threshold', 0.4\)"),
        ({"space": (3,)}, "tune.space holds 3; wanted"),
        ({"space": (("threshold", 0.9, 0.4),)}, "tune.space holds .*0.9, 0.4"),
        ({"space": (("threshold", 0.4, math.nan),)}, "tune.space holds .*0.4, nan"),
        ({"space": (("threshold", True, True),)}, "tune.space holds .*True, True"),
        (
            {"space": (("threshold", 0.4, 1.5),)},
            "tune.space's threshold is 1.5; wanted a number in .0, 1.",
        ),
        (
            {"space": (("threshold", 0.4, 0.9), ("threshold", 0.5, 0.6))},
            "tune.space names threshold twice; wanted it once",
        ),
        (
            {"space": (("threshold", 0.4, 0.9), ("min_size", 0, 2**41, 3))},
            "tune.space's min_size is 2199023255552; wanted at most 1099511627776",
        ),
        (
            {"space": (("threshold", 0.4, 0.9), ("min_size", 0, 9, 10**9))},
            "make a grid of 4000000000 points; wanted at most 10000",
        ),
        ({"storage": "."}, "tune.storage is ., a folder; name another file"),
        ({"space": (("threshold", "a", 0.9),)}, "tune.space holds .*'a', 0.9"),
        (
            {"space": (("threshold", 0.4, 0.9), ("min_size", 0.5, 9.0))},
            r"tune.space has min_size from \(0.5, 9.0\); wanted whole numbers",
        ),
        (
            {"space": (("threshold", 0.4, 0.9), ("min_size", 0, 9))},
            "tune.sampler=grid wants a fourth number, how many values",
        ),
    ],
)
def test_settings_that_cannot_be(settings, inputs, out, changes, message):
    if "low_threshold" in message:
        settings.decode.method = "grow"
    settings.tune.update(changes)
    before = sorted(inputs["skeleton"].parent.rglob("*"))
    with pytest.raises(InputError, match=message):
        stage.run(settings, out, **inputs)
    assert sorted(inputs["skeleton"].parent.rglob("*")) == before


def test_inputs_that_do_not_fit(settings, inputs, out, tmp_path):
    with pytest.raises(InputError, match="no volume at"):
        stage.run(settings, out, prediction=tmp_path / "no", skeleton=tmp_path / "no")
    small = tmp_path / "small.npy"
    np.save(small, made_affinities()[:, :8])
    with pytest.raises(InputError, match="16 of 32 nodes of .* lie outside"):
        stage.run(settings, out, prediction=small, skeleton=inputs["skeleton"])
    path = manifest_lines.path_inside(inputs["prediction"])
    path.write_text('{"fingerprint": {}}\n')
    with pytest.raises(InputError, match="is unfinished"):
        stage.run(settings, out, **inputs)


def test_best_params_that_are_missing_or_empty(tmp_path):
    path = tmp_path / "best_params.yaml"
    with pytest.raises(InputError, match="no tuned parameters at .*; run --mode=tune"):
        stage.read_best_params(path)
    path.mkdir()
    with pytest.raises(InputError, match="is a folder"):
        stage.read_best_params(path)


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\ndecoding_params: {threshold: .5, b: *b}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is null; wanted the keys decoding_params"),
        (b"a: [", "line 1: "),
        (b"[1, 2]", "wanted the keys decoding_params"),
        (
            b"decoding_params: {}",
            "decoding_params.threshold is missing; wanted a finite",
        ),
        (
            b"decoding_params: {threshold: high}",
            "threshold is 'high'; wanted a finite n",
        ),
        (b"decoding_params: {threshold: [0.5]}", "threshold is .0.5.; wanted a finite"),
        (b"decoding_params: {threshold: .nan}", "threshold is nan; wanted a finite"),
        (b"decoding_params: {threshold: 1.5}", "threshold is 1.5; wanted .* in .0, 1."),
        (b"decoding_params: {threshold: true}", "threshold is True; wanted a finite"),
        (b"decoding_params: {threshold: .5}\ntest_data_used: 3", "test_data_used is 3"),
        (b"decoding_params: {threshold: .5}\ndecoding_function: 7", "function is 7"),
        (BOMB.encode(), "an alias"),
        ("# \xe9\n".encode("latin-1"), "is not UTF-8"),
        (b"#" * 2_000_000, "has more than 1000000 bytes"),
        (b"!!python/object/apply:os.getpid []", "could not determine a constructor"),
    ],
)
def test_best_params_of_other_types(tmp_path, content, message):
    path = tmp_path / "best_params.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"best_params.yaml.*{message}"):
        stage.read_best_params(path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"min_size": -1},
            "best_params.yaml: min_size is -1; wanted a whole number, 0 ",
        ),
        ({"min_size": 5.5}, "min_size is 5.5; wanted a whole number"),
        ({"min_size": "5"}, "min_size is '5'; wanted a whole number"),
        ({"min_seed": math.inf}, "min_seed is inf; wanted a whole number"),
        ({"low_threshold": 2}, "low_threshold is 2; wanted a number in .0, 1."),
        ({"low_threshold": None}, "low_threshold is None; wanted a number"),
    ],
)
def test_tuned_parameters_that_decoding_does_not_take(settings, parameters, message):
    settings.decode.method = "grow"
    found = {"decoding_params": {"threshold": 0.6, **parameters}}
    with pytest.raises(InputError, match=message):
        stage.tuned_parameters(settings, found, "best_params.yaml")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(["threshold", "min_size", "low_threshold", "min_seed"])


@given(
    st.fixed_dictionaries(
        {"decoding_params": ANY | st.dictionaries(KEYS | st.text(), ANY)},
        optional={"decoding_function": ANY, "test_data_used": ANY, "storage": ANY},
    )
    | ANY
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_best_params_of_any_content_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("best") / "best_params.yaml"
    path.write_text(yaml.dump(content), encoding="utf-8")
    settings = config.base_config()
    settings.decode.method = "grow"
    try:
        best = stage.read_best_params(path)
        chosen = stage.tuned_parameters(settings, best, path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= chosen["threshold"] <= 1


def test_no_mask_in_decoding_is_none_in_tuning(settings, masked, out):
    settings.decode.affinity_mask = "none"
    assert stage.run(settings, out, **masked)["made_from"]["mask"] == "none"
