"""What a study says that it scored, with and without a prediction and a mask."""

import pickle

import networkx as nx
import numpy as np
import pytest

from nisbjax import skeletons
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.evaluate.truth import Truth
from nisbjax.geometry import Box
from nisbjax.mask import MaskSpec
from nisbjax.store import regions
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import from_array
from nisbjax.tune.inputs import Inputs

KEYS = {"decode.method": "grow", "decode.min_size": 0, "data.voxel_size_nm": [9, 9, 12]}


@pytest.fixture
def paths(tmp_path):
    np.save(tmp_path / "raw.npy", np.zeros((3, 2, 2, 2), np.float16))
    (tmp_path / "skeleton.pkl").write_bytes(pickle.dumps(nx.Graph()))
    return str(tmp_path / "raw.npy"), str(tmp_path / "skeleton.pkl")


def made(paths, **more):
    return Inputs(paths[0], Truth(paths[1], "", (9.0, 9.0, 12.0)), KEYS, **more)


def test_what_is_tuned_is_no_fact(paths):
    assert made(paths).made_from(["threshold", "min_size"], "voi") == {
        "prediction": fingerprint(paths[0]),
        "skeleton": skeletons.content_hash(paths[1]),
        "mask": "none",
        "metric": "voi",
        "parameters": ["min_size", "threshold"],
        "decode.method": "grow",
        "data.voxel_size_nm": [9, 9, 12],
    }


def test_what_is_known_before_there_is_a_prediction_or_a_mask(paths):
    names = {"skeleton", "metric", "parameters", *KEYS}
    assert made(("", paths[1])).known_by_now(["threshold"], "nerl").keys() == names
    assert made(paths).known_by_now(["threshold"], "nerl").keys() == names | {
        "prediction"
    }


def test_masks_of_each_kind(paths):
    specification = MaskSpec(
        shape=(2, 2, 2), low_z=1, high_z=2, border_width=0, bg_thresh=0.0
    )
    found = made(paths, edges=MaskedEdges(mask=specification)).made_from(
        ["threshold"], "nerl"
    )
    assert found["mask"] == {
        "shape": [2, 2, 2],
        "low_z": 1,
        "high_z": 2,
        "border_width": 0,
        "bg_thresh": 0.0,
    }
    array = MaskedEdges(mask=np.ones((2, 2, 2), bool))
    assert made(paths, edges=array).made_from(["threshold"], "nerl")["mask"] == "array"
    np.save(paths[0], np.ones((2, 2, 2), np.uint8))
    volume = from_array(np.ones((2, 2, 2), np.uint8), "xyz", source=paths[0])
    found = made(paths, edges=MaskedEdges(mask=volume)).made_from(["threshold"], "nerl")
    assert found["mask"] == fingerprint(paths[0])


def test_a_part_of_a_mask_is_its_file_and_the_region(paths, tmp_path):
    name = str(tmp_path / "mask.npy")
    np.save(name, np.ones((4, 2, 2), np.uint8))
    whole = from_array(np.ones((4, 2, 2), np.uint8), "xyz", source=name)
    region = Box((2, 0, 0), (4, 2, 2))
    part = regions.part_of(whole, region, (4, 2, 2))

    def fact(volume, **more):
        edges = MaskedEdges(mask=volume)
        return made(paths, edges=edges, mask=name, **more).made_from([], "voi")["mask"]

    assert fact(part, mask_part=region) == f"{fingerprint(name)} [2:4,0:2,0:2]"
    assert fact(whole) == fingerprint(name)  # as studies without a region have it
