"""What a segmentation says of itself, by the decode that is planned."""

import numpy as np

from nisbjax.config import base_config
from nisbjax.decode.methods import PlainParameters
from nisbjax.decode.mutex import MutexParameters
from nisbjax.decode.plan import Plan, compared
from nisbjax.store.volume import from_array


def planned(method, attributes):
    section = base_config().decode
    section.update({"method": method, "threshold": 0.7})
    section.update({"low_threshold": 0.25, "min_seed": 7, "min_size": 3})
    values = np.zeros((3, 4, 5, 6), np.float16)
    affinities = from_array(values, "cxyz", attributes)
    return Plan(section, "/data/raw.zarr", affinities, 0, {"affinities": "ab"}, "cd")


def test_it_says_what_made_it_and_what_its_affinities_say():
    found = planned(
        "grow",
        {
            "voxel_size_nm": [9, 9, 12],
            "source": "/data/img",
            "source_fingerprint": "ef",
        },
    ).attributes("")
    assert found.pop("software").startswith("nisbjax ")
    assert found == {
        "axes": ["x", "y", "z"],
        "method": "grow",
        "threshold": 0.7,
        "compared_threshold": 0.7001953125,  # the float16 next to .7
        "low_threshold": 0.25,
        "min_seed": 7,
        "grow_margin": 0.0,
        "mask": "",
        "mask_edges": "both",
        "min_size": 3,
        "source": "/data/raw.zarr",
        "source_fingerprint": "ab",
        "mask_fingerprint": "",
        "config_fingerprint": "cd",
        "voxel_size_nm": [9, 9, 12],
        "image": "/data/img",
        "image_fingerprint": "ef",
    }


def test_a_method_without_a_threshold_lists_its_parameters():
    found = planned("chain", {}).attributes("")
    assert "threshold" not in found and "compared_threshold" not in found
    assert found["parameters"] == ["attract", "repel", "anchor", "low", "margin"]
    assert [found[k] for k in found["parameters"]] == [0.2, 0.8, 20, 0.45, 0.03]
    chain3 = planned("chain3", {}).attributes("")
    assert (chain3["threshold"], chain3["anchor"]) == (0.7, 20)
    assert "attract" not in chain3 and "parameters" not in chain3


def test_a_method_notes_its_own_parameters():
    assert planned("affinity_cc", {}).parameters == PlainParameters(0.7)
    assert planned("mutex", {}).parameters == MutexParameters(0.7, 0.25)


def test_the_array_has_the_shape_of_the_affinities():
    array = planned("affinity_cc", {}).array
    assert (array["shape"], array["dtype"]) == ((4, 5, 6), np.uint32)


def test_integers_are_compared_as_their_share_of_255():
    assert compared(0.7, np.dtype(np.uint8)) == 0.7
    assert compared(0.7, np.dtype(np.float32)) == float(np.float32(0.7))
