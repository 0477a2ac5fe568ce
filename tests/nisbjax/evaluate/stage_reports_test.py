"""Reports, whatever a segmentation says of itself and whatever lies in their place."""

import json
import os
import pathlib
import tempfile

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_files import SHAPE, as_npy, as_zarr, made_segmentation, run

from nisbjax import artifacts
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.evaluate import stage
from nisbjax.store import volume, zarr_output


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"parameters": ["attract", "repel"], "attract": 0.25, "repel": 1}, True),
        ({"parameters": "a=3"}, False),  # another program's
        ({"parameters": [["a"], "b", 3], "b": "c"}, False),
    ],
)
def test_a_segmentation_without_a_threshold(
    tmp_path, config, inputs, attributes, expected
):
    array = made_segmentation()
    written = volume.create_zarr(
        tmp_path / "decoded_x1_ch0-1-2-3-4-5_chain_0.25_1.zarr",
        shape=array.shape,
        dtype=array.dtype,
        chunks=(5, 2, 4),
        axes="xyz",
        attributes=attributes,
    )
    written.write(..., array)
    out = artifacts.VolumeDir(tmp_path / "seed5")
    config.evaluate.ceiling = False
    found = run(config, out, segmentation=written.source, skeleton=inputs)
    assert found["threshold"] is None
    named = {"attract": 0.25, "repel": 1}
    assert found.get("parameters") == (named if expected else None)
    text = out.evaluation(pathlib.Path(written.source), ".txt")
    said = "parameters: attract 0.25, repel 1 (default)" in text.read_text()
    assert said == expected


def test_a_second_evaluation_remembers_where_the_threshold_came_from(
    tmp_path, config, inputs
):
    out = artifacts.VolumeDir(tmp_path / "out")
    segmentation = as_zarr(tmp_path, made_segmentation())
    given = {"segmentation": segmentation, "skeleton": inputs}
    found = run(config, out, **given, threshold_origin="")
    assert found["threshold_origin"] == "of unknown origin"
    run(config, out, **given, threshold_origin="tuned on a.yaml")
    found = run(config, out, **given, threshold_origin="")
    assert found["threshold_origin"] == "tuned on a.yaml"
    as_zarr(tmp_path, np.ones(SHAPE, np.uint32))
    found = run(config, out, **given, threshold_origin="")
    assert found["threshold_origin"] == "of unknown origin"


def test_an_evaluation_of_another_process_is_left_to_it(
    tmp_path, config, inputs, held_elsewhere
):
    out = artifacts.VolumeDir(tmp_path / "seed5")
    process = held_elsewhere(out.path / "eval_theirs_npy.lock")
    file = as_npy(tmp_path, made_segmentation())
    with pytest.raises(
        InputError,
        match=f"eval_theirs_npy.txt is being written by process {process} on ",
    ):
        run(config, out, segmentation=file, skeleton=inputs)
    assert os.listdir(out.path) == ["eval_theirs_npy.lock"]


def test_a_pipe_in_the_way_is_refused_before_anything_is_scored(
    tmp_path, config, inputs
):
    out = artifacts.VolumeDir(tmp_path)
    os.mkfifo(tmp_path / "eval_theirs_npy_splits.csv")
    file = as_npy(tmp_path, made_segmentation())
    there = sorted(os.listdir(tmp_path))
    with pytest.raises(
        InputError, match="eval_theirs_npy_splits.csv is a device, pipe"
    ):
        run(config, out, segmentation=file, skeleton=inputs)
    assert sorted(os.listdir(tmp_path)) == there


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@hypothesis.settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(["threshold", "note", "segments"]), _ANY))
def test_no_attribute_costs_a_report(attributes):
    """Twelve voxels of one segment and no truth but themselves."""
    labels = np.ones(SHAPE, np.uint32)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        source = as_zarr(path, labels)
        zarr_output.write_attributes(source, {"axes": "xyz", **attributes})
        config = base_config()
        config.evaluate.metrics = ("voi",)
        found = run(
            config,
            artifacts.VolumeDir(path),
            segmentation=source,
            label=source,
        )
        assert found["dense"]["voi_sum"] == 0
        (written,) = path.glob("eval_*.json")
        assert json.loads(written.read_text())["dense"]["voi_sum"] == 0
        (written,) = path.glob("eval_*.txt")
        assert "VOI Total" in written.read_text()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.75, "threshold: 0.75 ("),
        ("0.75", "threshold: '0.75' ("),
        ([0.5, 0.6], "threshold: [0.5, 0.6] ("),
        (None, ""),
    ],
)
def test_a_threshold_of_any_type_is_in_the_report(tmp_path, config, value, said):
    config.evaluate.metrics = ("voi",)
    source = as_zarr(tmp_path, np.ones(SHAPE, np.uint32))
    zarr_output.write_attributes(source, {"axes": "xyz", "threshold": value})
    out = artifacts.VolumeDir(tmp_path)
    run(config, out, segmentation=source, label=source)
    (written,) = tmp_path.glob("eval_*.txt")
    assert said in written.read_text()
    assert ("threshold: " in written.read_text()) == bool(said)


@pytest.mark.parametrize(
    "content", ["5", "null", "{", '{"segmentation_fingerprint": 3}', "[[[[", "\x00"]
)
def test_an_earlier_report_of_any_content_is_replaced(tmp_path, config, content):
    config.evaluate.metrics = ("voi",)
    source = as_zarr(tmp_path, np.ones(SHAPE, np.uint32))
    out = artifacts.VolumeDir(tmp_path)
    path = out.evaluation(pathlib.Path(source), ".json")
    path.write_text(content)
    run(config, out, segmentation=source, label=source, threshold_origin="")
    assert json.loads(path.read_text())["threshold_origin"] == stage.UNKNOWN_THRESHOLD
