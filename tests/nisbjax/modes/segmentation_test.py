"""Which value counts: of a key, of a study, of the run; and what is refused beforehand."""

import pathlib

import numpy as np
import pytest

from nisbjax.artifacts import VolumeDir
from nisbjax.config import base_config
from nisbjax.decode.connected_components import label_affinities
from nisbjax.errors import InputError
from nisbjax.modes import segmentation
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.store.volume import create_zarr, open_labels

PLACE = VolumeDir(pathlib.Path("seed6"))


def test_a_file_is_named_by_its_method_and_parameters():
    config = base_config()
    config.predict.channels = (0, 1, 2, 3, 4, 5)
    decode = config.decode
    decode.threshold, decode.low_threshold, decode.min_seed = 0.75, 0.25, 7
    names = {
        "affinity_cc": "decoded_x1_ch0-1-2_affinity_cc_0.75.zarr",
        "grow": "decoded_x1_ch0-1-2_grow_0.75_0.25_7_0.zarr",
        "mutex": "decoded_x1_ch0-1-2-3-4-5_mutex_0.75_0.25.zarr",
        "chain": "decoded_x1_ch0-1-2-3-4-5_chain_0.2_0.8.zarr",
        "chain3": "decoded_x1_ch0-1-2_chain3_0.75.zarr",
    }
    for method, name in names.items():
        decode.method = method
        assert segmentation.path_in(config, PLACE) == pathlib.Path("seed6") / name
    # What is decoded without a mask, under another or without small segments is another file.
    decode.method = "affinity_cc"
    for mask, least, end in (
        ("", 0, "_nomask"),
        ("null", 0, "_nomask"),
        ("masks/mine.h5", 0, "_mask-mine"),
        ("auto", 100, "_min100"),
        ("", 100, "_nomask_min100"),
    ):
        decode.update({"affinity_mask": mask, "min_size": least})
        name = f"decoded_x1_ch0-1-2_affinity_cc_0.75{end}.zarr"
        assert segmentation.path_in(config, PLACE).name == name
    decode.update({"affinity_mask": "auto", "min_size": 0})
    # Joins read the long-range links too.
    decode.update({"method": "chain3", "joins": ("average",)})
    name = "decoded_x1_ch0-1-2-3-4-5_chain3_0.75.zarr"
    assert segmentation.path_in(config, PLACE).name == name
    decode.method = "affinty"
    with pytest.raises(InputError, match="decode.method is 'affinty'; wanted one of"):
        segmentation.path_in(config, PLACE)


def test_a_named_output_counts_for_the_mode_alone():
    config = base_config()
    decode = config.decode
    decode.output = "elsewhere/labels.zarr"
    path = pathlib.Path("elsewhere/labels.zarr")
    named = NamedOutputs.of(config).segmentation
    assert segmentation.output_path(config, PLACE, named) == path
    assert segmentation.path_in(config, PLACE).parent == pathlib.Path("seed6")
    decode.output = "null"
    named = NamedOutputs.of(config).segmentation
    assert segmentation.output_path(config, PLACE, named).parent == pathlib.Path(
        "seed6"
    )


def test_tuned_values_count_and_leave_the_configuration_as_it_is():
    config = base_config()
    chosen = segmentation.with_parameters(config, {"threshold": 0.61, "min_size": 3})
    assert (chosen.decode.threshold, chosen.decode.min_size) == (0.61, 3)
    assert config.decode.threshold != 0.61
    assert config.decode.min_size == 0
    assert segmentation.with_parameters(config, {}) is config


def test_what_cannot_be_written_is_known_without_a_prediction(tmp_path):
    config = base_config()
    segmentation.check_output(config)  # none is named
    config.decode.output = str(tmp_path / "labels.h5")
    with pytest.raises(InputError, match="labels.h5; wanted a name that ends in .zarr"):
        segmentation.check_output(config)
    (tmp_path / "labels.zarr").write_text("something else")
    config.decode.output = str(tmp_path / "labels.zarr")
    with pytest.raises(InputError, match="labels.zarr"):
        segmentation.check_output(config)
    config.decode.threshold = 1.5
    with pytest.raises(InputError, match=r"decode.threshold is 1.5; wanted .*\[0, 1\]"):
        segmentation.check_keys(config)


def test_it_decodes_where_the_caller_says_whatever_the_keys_name(tmp_path):
    values = np.random.default_rng(0).random((3, 5, 4, 6)).astype(np.float32)
    raw = create_zarr(
        tmp_path / "raw.zarr",
        shape=values.shape,
        dtype=np.float32,
        chunks=(1, 4, 4, 4),
        axes="cxyz",
    )
    raw.write(..., values)
    config = base_config()
    config.decode.update({"output": str(tmp_path / "named.zarr"), "input": "no.zarr"})
    config.decode.update({"affinity_mask": "no.h5", "threshold": 0.6})
    path = tmp_path / "trial" / "labels.zarr"
    segmentation.check(config, path, raw.source)
    assert not path.parent.exists()
    assert segmentation.decode(config, path, raw.source) == path
    expected = label_affinities(values, 0.6)
    np.testing.assert_array_equal(open_labels(path).read(), expected)
    assert not (tmp_path / "named.zarr").exists()
