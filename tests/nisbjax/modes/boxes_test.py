"""One stack, split by boxes: training, tuning, validation and testing keep to their own.

12 x 9 x 8 voxels with two bright neurites along x (conftest); the network is linear.
"""

import re

import numpy as np
import pytest
from validated_runs import run, save

from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.mask import MaskSpec, open_mask
from nisbjax.modes import workflow
from nisbjax.modes.volumes import split_of, split_with
from nisbjax.qc import front_matter
from nisbjax.store import regions
from nisbjax.store.volume import from_array, open_affinities, open_image, open_labels
from nisbjax.viz import plots

pytestmark = pytest.mark.usefixtures("linear_network")


@pytest.fixture
def stack(settings, folder):
    """val in the first 8 planes of x, test in the last 4, of the same files."""
    for key in settings.data.test:
        settings.data.test[key] = settings.data.val[key]
    settings.data.val.box = "0:8,0:9,0:8"
    settings.data.test.box = "8:12,0:9,0:8"
    settings.predict.window = (4, 8, 8)
    save(folder, settings, {20: 20})
    return settings


def test_what_is_predicted_tuned_on_and_scored(stack, folder, monkeypatch):
    """Nodes at x = 0 to 7 are tuned on, 8 to 11 scored: 2 neurites of 4 nodes, 3 edges."""
    shown = {}

    def show(path, columns, _, truth):
        shown.update(columns)
        path.touch()
        return path

    monkeypatch.setattr(plots, "slices", show)
    stack.evaluate.metrics = ("nerl", "voi", "adapted_rand")
    stack.evaluate.label = split_of(stack, "test").label
    facts = launch.run_mode("tune-test", stack, workdir=str(folder))
    tuned = Run(folder).tune(20).prediction("seed5").find_raw()
    assert open_affinities(tuned).shape == (3, 8, 9, 8)
    assert open_affinities(tuned).attributes["box"] == stack.data.val.box
    found = open_labels(facts["segmentation"])
    assert (found.shape, found.attributes["box"]) == ((4, 9, 8), stack.data.test.box)
    score = facts["skeletons"]
    assert (score["n_skeletons"], score["nerl"], score["nerl_ceiling"]) == (2, 1, 1)
    assert facts["dense"]["adapted_rand_error"] == 0
    # The picture shows the box in every column: 4 of the 12 planes.
    assert {v.spatial_shape for v in shown.values()} == {(4, 9, 8)}
    labels = open_labels(split_of(stack, "test").label).read()
    np.testing.assert_array_equal(shown["truth"].read(), labels[8:])


def test_a_box_is_checked_masked_and_decoded(stack, folder, caplog):
    """Both steps by QC of 4 of 12 planes of x, as they are of the whole's image."""
    caplog.set_level("INFO")
    stack.decode.affinity_mask = "auto"
    stack.qc.update({"border_width": 1, "refine_window": 2, "k_edge": 1, "z_stride": 1})
    facts = launch.run_mode("test", stack, workdir=str(folder))
    place = Run(folder).test(20, "seed5")
    front = front_matter.read(place.qc_report)
    assert (front.box, front.volume_shape) == (stack.data.test.box, "12,9,8")
    assert "part: 8:12,0:9,0:8 of 12 x 9 x 8 voxels" in place.qc_report.read_text()
    assert "by gathered statistics" in caplog.text
    image = open_image(split_of(stack, "test").image).read()[..., 0]
    spec, _ = open_mask(place.mask)
    assert (spec.start, spec.volume) == ((8, 0, 0), (12, 9, 8))
    whole = MaskSpec((12, 9, 8), front.low_z, front.high_z, 1, 30.0)
    kept = whole.mask_of(Box.whole((12, 9, 8)), image)
    # The dark plane y = 4 is of the ring at x = 11, the last of the volume, and not at x = 8.
    assert kept[8, 4].any() and not kept[11, 4].any()
    np.testing.assert_array_equal(open_labels(place.mask).read(), kept[8:])
    assert facts["skeletons"]["nerl"] == 1
    # A mask of the whole volume gives the same part.
    np.save(folder / "whole.npy", kept.astype(np.uint8))
    stack.decode.affinity_mask = str(folder / "whole.npy")
    again = launch.run_mode("decode", stack, workdir=str(folder))
    assert again.name.endswith("_mask-whole.zarr")
    np.testing.assert_array_equal(
        open_labels(again).read(), open_labels(facts["segmentation"]).read()
    )


def test_validation_scores_its_box(stack, folder):
    (row,) = run(stack, folder)
    assert (row["nerl"], row["coverage"]) == (1.0, 0)


def test_boxes_that_share_voxels_are_test_data(stack, folder):
    stack.data.val.box = "0:9,0:9,0:8"
    with pytest.raises(
        InputError, match="belongs to the test volume, which thresholds"
    ):
        launch.run_mode("tune", stack, workdir=str(folder))


def test_a_region_beyond_the_box_is_refused(stack, folder):
    stack.predict.roi = "6:12,0:9,0:8"
    with pytest.raises(
        InputError,
        match="predict.roi is 6:12,0:9,0:8, which is not inside data.test.box, 8:12,0:9",
    ):
        launch.run_mode("predict", stack, workdir=str(folder))
    # Inside it, the region counts.
    stack.predict.roi = "9:12,0:9,0:8"
    assert workflow.within_box_of_tested(stack).predict.roi == "9:12,0:9,0:8"


def test_an_image_that_two_splits_divide(stack, folder, caplog):
    """Named, it is the test volume, or that which holds the region; or any region of it."""
    stack.predict.input = split_of(stack, "val").image
    stack.data.val.skeleton = "val.pkl"
    within = workflow.within_box_of_tested
    assert within(stack).predict.roi == "8:12,0:9,0:8"
    for roi, skeleton in (("0:4,0:9,0:8", "val.pkl"), ("9:12,0:9,0:8", "skeleton.pkl")):
        stack.predict.roi = roi
        assert within(stack).predict.roi == roi
        split = split_with(stack, stack.predict.input, box=roi)
        assert split is not None and split.skeleton.endswith(skeleton)
    stack.predict.roi = "6:12,0:9,0:8"
    with pytest.raises(InputError, match="not inside data.test.box, 8:12,0:9,0:8"):
        launch.run_mode("test", stack, workdir=str(folder))
    stack.predict.output = str(folder / "named.zarr")
    caplog.set_level("INFO")
    path = launch.run_mode("predict", stack, workdir=str(folder))
    assert open_affinities(path).shape == (3, 6, 9, 8)
    # Windows of 4 at 0, 2, ..., 8: those from 4 reach x = 6; 9 on y takes two, 8 on z one.
    (line,) = [m for m in caplog.messages if " windows of " in m]
    assert "6 windows" in line


def test_tuning_on_a_box_takes_its_part_of_a_named_mask(stack, folder, tmp_path):
    """A file without a report's attributes, of all 12 x 9 x 8 voxels; twice, continued."""
    np.save(tmp_path / "mymask.npy", np.ones((12, 9, 8), np.uint8))
    stack.decode.affinity_mask = str(tmp_path / "mymask.npy")
    best = launch.run_mode("tune", stack, workdir=str(folder))
    assert launch.run_mode("tune", stack, workdir=str(folder)) == best


def test_the_part_of_a_volume_that_another_covers():
    whole = from_array(np.arange(24).reshape(4, 3, 2), "xyz")
    said = {"box": "1:3,0:3,1:2", "volume_shape": [4, 3, 2]}
    part = from_array(np.zeros((2, 3, 1)), "xyz", said)
    np.testing.assert_array_equal(
        regions.part_like(whole, part).read(), whole.read()[1:3, :, 1:2]
    )
    other = from_array(np.zeros((2, 3, 1)), "xyz")
    assert regions.part_like(other, part) is other  # no such whole volume
    assert regions.part_like(whole, other) is whole


def test_a_study_and_its_prediction_are_made_anew_where_that_is_asked_for(
    stack, folder, caplog
):
    caplog.set_level("INFO")
    launch.run_mode("tune", stack, workdir=str(folder))
    stack.predict.scale = 0.1
    with pytest.raises(
        InputError, match="add --redo=predict to replace it, or name an"
    ):
        launch.run_mode("tune", stack, workdir=str(folder))
    with pytest.raises(
        InputError, match="scored; give --redo=predict,tune, or name ano"
    ):
        launch.run_mode("tune", stack, workdir=str(folder), redo=["predict"])
    redo = ["predict", "tune"]
    launch.run_mode("tune", stack, workdir=str(folder), redo=redo)
    place = Run(folder).tune(20)
    for path in (place.database(stack.tune.study), place.prediction("seed5").raw()):
        assert f"replacing {path}, as --redo asks" in caplog.messages
    raw, study = place.prediction("seed5").raw("zarr"), place.database(stack.tune.study)
    (said,) = (text for text in caplog.messages if text.startswith("--redo="))
    assert said.startswith(f"--redo=predict,tune replaces {raw}, ")
    assert said.endswith(f", {study}")
    stack.tune.objective = "nerl"
    with pytest.raises(
        InputError, match="other metric .*; add --redo=tune to make it a"
    ):
        launch.run_mode("tune", stack, workdir=str(folder))
    best = launch.run_mode("tune", stack, workdir=str(folder), redo=["tune"])
    assert best["metric"] == "nerl" and best["trials_complete"] == 2


@pytest.mark.parametrize(
    ("objective", "named"),
    [("nerl_mean", ""), ("auto", "val/seed5/gone.pkl")],
)
def test_skeletons_that_are_missing_are_named_by_the_key_that_counts(
    stack, folder, objective, named
):
    """Before anything is predicted; and with either key it goes on."""
    found = stack.data.val.skeleton
    stack.data.val.skeleton, stack.tune.objective = named, objective
    with pytest.raises(InputError, match="name NISB's skeleton.pkl with") as error:
        launch.run_mode("tune", stack, workdir=str(folder))
    first, second = re.findall(
        r"--config\.([a-z._]+)=(?:FILE|adapted_rand)", str(error.value)
    )
    assert not Run(folder).tune(20).path.exists()
    stack.update_from_flattened_dict({first: found})
    assert launch.run_mode("tune", stack, workdir=str(folder))["scores"]["nerl"] == 1
    stack.data.val.skeleton = named
    stack.update_from_flattened_dict({second: "adapted_rand", "tune.study": "dense"})
    best = launch.run_mode("tune", stack, workdir=str(folder))
    assert (
        best["scores"]["adapted_rand_error"] == 0 and best["metric"] == "adapted_rand"
    )
