"""A file that is named brings its own image and skeleton, or they are asked for."""

import pathlib
import pickle
import shutil

import h5py
import networkx as nx
import numpy as np
import pytest

from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.evaluate.truth import Truth
from nisbjax.mask import MaskSpec, open_mask
from nisbjax.modes import evaluation, tuning, workflow
from nisbjax.modes.volumes import image_of, split_of, split_with
from nisbjax.qc import front_matter, mask_file
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import create_zarr, open_affinities, open_image, open_labels

SHAPE = (12, 10, 9)


def write(path, values, axes, **attributes):
    volume = create_zarr(
        path, shape=values.shape, dtype=values.dtype, chunks=values.shape, axes=axes,
        attributes=attributes,
    )  # fmt: skip
    volume.write(..., values)
    return path


def skeleton(path, y):
    """One line of nodes along x, at another y in each volume."""
    graph = nx.Graph()
    for x in range(SHAPE[0]):
        at = (x, y, 4)
        graph.add_node(
            x, id=1, index_position=at, nm_position=tuple(9.0 * a for a in at)
        )
    graph.add_edges_from((x, x + 1) for x in range(SHAPE[0] - 1))
    path.write_bytes(pickle.dumps(graph))


@pytest.fixture
def config(tmp_path):
    """Two volumes of one shape, and a prediction of the validation volume."""
    config = base_config()
    config.data.root = str(tmp_path / "data")
    draw = np.random.default_rng(0)
    for name, y in (("val/seed5", 2), ("test/seed6", 7)):
        folder = tmp_path / "data" / name
        pixels = draw.integers(50, 200, (*SHAPE, 1), np.uint8)
        write(folder / "data.zarr/img", pixels, "xyzc")
        skeleton(folder / "skeleton.pkl", y)
    return config


@pytest.fixture
def prediction(tmp_path):
    """All edges but those into y >= 5: the line at y = 2 is whole, that at y = 7 is not."""
    image = tmp_path / "data/val/seed5/data.zarr/img"
    values = np.ones((3, *SHAPE), np.float16)
    values[:, :, 5:] = 0.3
    said = {"source": str(image), "source_fingerprint": fingerprint(image)}
    return write(tmp_path / "run" / "val.zarr", values, "cxyz", **said)


@pytest.fixture
def foreign(tmp_path):
    return write(
        tmp_path / "run" / "raw.zarr", np.ones((3, *SHAPE), np.float16), "cxyz"
    )


def tree(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_decoding_and_scoring_a_named_prediction(tmp_path, config, prediction):
    config.decode.input = str(prediction)
    path = launch.run_mode("decode", config)
    report = front_matter.read(tmp_path / "run" / "val_check_aff_report.md")
    assert report.img == str(tmp_path / "data/val/seed5/data.zarr/img")
    assert open_labels(path).attributes["image"] == report.img
    config.evaluate.segmentation = str(path)
    config.evaluate.metrics = ("nerl",)
    facts = launch.run_mode("evaluate", config)
    assert facts["skeleton"] == str(tmp_path / "data/val/seed5/skeleton.pkl")
    assert facts["skeletons"]["nerl"] == 1.0
    config.evaluate.skeleton = str(tmp_path / "data/test/seed6/skeleton.pkl")
    assert launch.run_mode("evaluate", config)["skeletons"]["nerl"] == 0.0


def test_the_ceiling_of_a_named_segmentation_is_its_own_volumes(
    tmp_path, config, prediction
):
    """The validation line is one label in val and cut at x = 5 in test."""
    whole = np.ones(SHAPE, np.uint8)
    cut = whole.copy()
    cut[5] = 0
    for volume, values in (("val/seed5", whole), ("test/seed6", cut)):
        write(tmp_path / "data" / volume / "data.zarr/seg", values, "xyz")
    config.decode.input = str(prediction)
    config.evaluate.segmentation = str(launch.run_mode("decode", config))
    facts = launch.run_mode("evaluate", config)
    assert facts["skeletons"]["nerl_ceiling"] == 1.0
    config.evaluate.ceiling = False
    assert "nerl_ceiling" not in launch.run_mode("evaluate", config)["skeletons"]


def test_qc_of_a_named_prediction(tmp_path, config, prediction):
    config.qc.input = str(prediction)
    report = front_matter.read(launch.run_mode("qc", config))
    assert report.img == str(tmp_path / "data/val/seed5/data.zarr/img")


def test_an_image_may_be_one_dataset_of_a_file(tmp_path, config):
    """Its name goes with the path of the file, which alone would be another volume."""
    draw = np.random.default_rng(0)
    file = tmp_path / "both.h5"
    with h5py.File(file, "w") as opened:
        for name in ("main", "second"):
            opened[name] = draw.integers(0, 9, SHAPE, np.uint8)
    image = f"{file}/second"
    said = {
        "source": open_image(image).source,
        "source_fingerprint": fingerprint(image),
    }
    assert said["source"] == image and open_image(file).source == str(file)
    values = np.ones((3, *SHAPE), np.float16)
    predicted = open_affinities(write(tmp_path / "raw.zarr", values, "cxyz", **said))
    assert image_of(config, predicted) == image
    config.data.test.image = image
    split = split_with(config, image)
    assert split is not None and split.image == image
    spec = MaskSpec(SHAPE, 0, 4, 2, 3.0)
    mask_file.build(open_image(image), spec, tmp_path / "mask.h5")
    mask, found = open_mask(tmp_path / "mask.h5")
    assert isinstance(mask, MaskSpec) and found is not None and found.source == image


def test_data_that_moved_are_found_by_their_fingerprint(tmp_path, config, prediction):
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    volume = open_affinities(prediction)
    assert image_of(config, volume) == ""
    config.data.root = str(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere/val/seed5"
    assert image_of(config, volume) == str(moved / "data.zarr/img")
    split = split_with(config, str(moved / "data.zarr/img"))
    assert split is not None and split.skeleton == str(moved / "skeleton.pkl")
    assert split_with(config, str(tmp_path / "nowhere")) is None


def test_an_image_that_has_changed(tmp_path, config, prediction):
    image = tmp_path / "data/val/seed5/data.zarr/img"
    shutil.rmtree(image)
    write(image, np.zeros((*SHAPE, 1), np.uint8), "xyzc")
    with pytest.raises(
        InputError, match="val.zarr was made from .*img, which has chan"
    ):
        image_of(config, open_affinities(prediction))


def test_what_a_foreign_file_does_not_say_is_asked_for(tmp_path, config, foreign):
    config.decode.input = str(foreign)
    before = tree(tmp_path)
    with pytest.raises(
        InputError,
        match=r"raw.zarr does not say which image it was made from, .* name it with --config"
        r".qc.image=PATH, or set --config.decode.affinity_mask= .none.",
    ):
        launch.run_mode("decode", config)
    assert tree(tmp_path) == before
    labels = write(tmp_path / "labels.zarr", np.ones(SHAPE, np.uint32), "xyz")
    config.evaluate.segmentation = str(labels)
    before = tree(tmp_path)
    with pytest.raises(
        InputError,
        match="labels.zarr does not say that it is of one of the volumes of the configur.*"
        "name its skeleton with --config.evaluate.skeleton=FILE",
    ):
        launch.run_mode("evaluate", config)
    assert tree(tmp_path) == before


def test_a_segmentation_of_an_image_that_the_configuration_does_not_know(
    tmp_path, config, prediction
):
    config.decode.input, config.decode.affinity_mask = str(prediction), ""
    config.evaluate.segmentation = str(launch.run_mode("decode", config))
    config.data.val.image = "val/seed9/data.zarr/img"
    with pytest.raises(
        InputError, match="is of .*seed5/data.zarr/img, which is none of"
    ):
        launch.run_mode("evaluate", config)


MODES_THAT_COMPOSE = ["test", "tune", "tune-test"]


@pytest.mark.parametrize("mode", MODES_THAT_COMPOSE)
@pytest.mark.parametrize("key", workflow._OWN)
def test_a_file_in_place_of_what_a_mode_makes(tmp_path, config, foreign, mode, key):
    config.update_from_flattened_dict({key: str(foreign)})
    before = tree(tmp_path)
    with pytest.raises(
        InputError, match=f"{key} is .*raw.zarr, and --mode=(test|tune) m"
    ):
        launch.run_mode(mode, config, str(tmp_path / "run"))
    assert tree(tmp_path) == before


def test_another_files_mask_for_a_decode(config, foreign, prediction):
    config.decode.input, config.qc.input = str(foreign), str(prediction)
    with pytest.raises(
        InputError, match="qc.input names a file, and --mode=decode makes"
    ):
        launch.run_mode("decode", config)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "find_checkpoint", lambda *_: tmp_path / "7")


@pytest.mark.usefixtures("checkpoint")
def test_a_test_of_a_named_image(tmp_path, config):
    val = tmp_path / "data/val/seed5"
    config.predict.input = str(val / "data.zarr/img")
    split = workflow.tested(config)
    assert (split.name, split.skeleton) == ("seed5", str(val / "skeleton.pkl"))
    config.predict.input = str(
        write(tmp_path / "seed7/img", np.ones((*SHAPE, 1), np.uint8), "xyzc")
    )
    before = tree(tmp_path)
    with pytest.raises(
        InputError, match="predict.input is .*seed7/img, which is none of"
    ):
        launch.run_mode("test", config, str(tmp_path / "run"))
    assert tree(tmp_path) == before
    config.evaluate.skeleton = str(val / "skeleton.pkl")
    assert workflow.tested(config).name == "seed7"


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"evaluate.skeleton": "/no/such.pkl"}, "no skeleton at /no/such.pkl; check"),
        ({"evaluate.metrics": ("adapted_rand",)}, "asks for adapted_rand, but there"),
        ({"decode.affinity_mask": "/no/mask.h5"}, "/no/mask.h5"),
    ],
)
def test_what_a_test_lacks_is_said_before_it_predicts(tmp_path, config, keys, text):
    config.update_from_flattened_dict(keys)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=text):
        launch.run_mode("test", config, str(tmp_path / "run"))
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("checkpoint")
def test_tuning_on_a_named_image(tmp_path, config):
    config.predict.input = str(tmp_path / "data/test/seed6/data.zarr/img")
    with pytest.raises(
        InputError, match="predict.input is .*, and thresholds are tuned"
    ):
        launch.run_mode("tune", config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# What a later stage refuses, for each of the modes that it ends.
LATER = {
    "decode.output": ("wrong.h5", "decode.output is .*; wanted .* .zarr", "dt"),
    "tune.storage": (
        "words.db",
        "words.db cannot be read .*file is not a database",
        "u",
    ),
    "qc.report": ("folder.md", "folder.md is a folder", "dut"),
    "mask.output": ("words.h5", "words.h5 is there and is no affinity mask", "dut"),
    "evaluate.label": ("small.npy", "small.npy have shape .2, 2, 2., and what is", "t"),
    "evaluate.skeleton": ("words.db", "words.db is no skeleton|words.db", "t"),
}
LETTERS = {"d": ("decode",), "u": ("tune", "tune-test"), "t": ("test", "tune-test")}


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(
    ("key", "mode"),
    [
        (k, m)
        for k, (_, _, on) in LATER.items()
        for letter in on
        for m in LETTERS[letter]
    ],
)
def test_later_stages_refuse_before_an_earlier_one_writes(
    tmp_path, config, prediction, monkeypatch, key, mode
):
    """What stands in the way is left as it is, and so is the run's folder."""
    name, message, _ = LATER[key]
    (tmp_path / "words.db").write_text("words " * 100)
    (tmp_path / "words.h5").write_text("words " * 100)
    (tmp_path / "folder.md").mkdir()
    np.save(tmp_path / "small.npy", np.ones((2, 2, 2), np.uint8))
    # In test and tune, the prediction is there already; it is what comes before it here.
    for module in (workflow, tuning):
        monkeypatch.setattr(module, "predict", lambda *_: prediction)
    config.update_from_flattened_dict({key: str(tmp_path / name)})
    if mode == "decode":
        config.decode.input = str(prediction)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=message):
        launch.run_mode(mode, config, str(tmp_path / "run"))
    assert tree(tmp_path) == before


def test_an_array_in_the_way_of_a_decode(tmp_path, config, prediction):
    """One of other chunks, without a voxel and without a manifest."""
    config.decode.input = str(prediction)
    path = tmp_path / "out.zarr"
    create_zarr(path, shape=SHAPE, dtype=np.uint32, chunks=(2, 2, 2), axes="xyz")
    config.decode.output = str(path)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="out.zarr exists with another shape, type or"):
        launch.run_mode("decode", config)
    assert tree(tmp_path) == before
    shutil.rmtree(path)
    assert (
        launch.run_mode("decode", config) == launch.run_mode("decode", config) == path
    )


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize("ending", ["db", "journal"])
def test_a_study_of_other_inputs_is_refused_before_the_mask(
    tmp_path, config, prediction, monkeypatch, ending
):
    for module in (workflow, tuning):
        monkeypatch.setattr(module, "predict", lambda *_: prediction)
    config.tune.storage = str(tmp_path / "run" / f"study.{ending}")
    config.tune.thresholds = (0.2, 0.5)
    launch.run_mode("tune", config, str(tmp_path / "run"))
    config.decode.mask_edges = "source"
    for left in (tmp_path / "run").rglob("check_aff_report*"):
        left.unlink()
    before = tree(tmp_path)
    with pytest.raises(
        InputError,
        match="scored other decode.mask_edges .decode.mask_edges: 'both', now",
    ):
        launch.run_mode("tune", config, str(tmp_path / "run"))
    assert tree(tmp_path) == before


def test_where_a_threshold_comes_from(config):
    def origin(given):
        return workflow.chosen_parameters(config, Run(pathlib.Path("run")), "", given)[
            1
        ]

    assert origin(()) == origin(("decode.min_size",)) == "default"
    assert origin(("decode.threshold",)) == "command line"
    config.decode.threshold_from = "0.6"
    assert origin(()) == "command line"


@pytest.mark.parametrize(
    "metrics, skeleton, compared",
    [
        (("nerl", "voi"), "s.pkl", False),
        (("nerl", "adapted_rand"), "s.pkl", True),
        (("instance_accuracy",), "", True),
        (("voi",), "", True),
    ],
)
def test_a_volumes_own_labels_are_compared_with_where_metrics_need_them(
    config, tmp_path, metrics, skeleton, compared
):
    np.save(tmp_path / "labels.npy", np.zeros((2, 2, 2), np.uint8))
    config.data.test.label = str(tmp_path / "labels.npy")
    config.data.test.skeleton = skeleton
    config.evaluate.metrics = metrics
    test = split_of(config, "test")
    assert test.label == str(tmp_path / "labels.npy")
    found = evaluation.truth_of(config, test)
    assert found.label == (test.label if compared else "") and found.dense == test.label
    config.evaluate.skeleton = "another.pkl"  # of who knows which volume
    assert evaluation.truth_of(config, test).label == ""


def test_truth_that_is_named_wins_over_the_volumes_own(config):
    test = split_of(config, "test")
    assert evaluation.truth_of(config, test) == Truth(
        test.skeleton, "", (9.0, 9.0, 12.0), config.data.unlabeled, dense=test.label
    )
    config.evaluate.skeleton = "a.pkl"  # of who knows which volume: no ceiling
    assert evaluation.truth_of(config, test).dense == ""
    config.evaluate.label = "b.zarr"
    found = evaluation.truth_of(config, test)
    assert (found.skeleton, found.label, found.dense) == ("a.pkl", "b.zarr", "b.zarr")
