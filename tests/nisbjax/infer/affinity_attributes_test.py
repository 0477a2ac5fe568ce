"""What a prediction says of its edges."""

import pathlib

import numpy as np

from nisbjax.config import base_config
from nisbjax.geometry import Box
from nisbjax.infer.affinity_attributes import EdgeGeometry, attributes
from nisbjax.keys import determines
from nisbjax.store.volume import from_array

EDGES = EdgeGeometry(((1, 0, 0), (0, -5, 0)), "destination", (9.0, 9.0, 12.0))


def test_channels_say_which_edges_they_hold():
    section = base_config().predict
    section.channels = (1, 0, 2)  # data.offsets names two: the third is unknown
    image = from_array(np.zeros((4, 5, 6, 1), np.uint8), "xyzc")
    determined_by = {"predict.scale": 0.2}
    made_from = {**determined_by, "image": "ab", "network": {"step": 7}}
    region = Box((1, 0, 0), (3, 5, 6))
    said = attributes(section, EDGES, image, region, determined_by, made_from)
    assert said["offsets"] == [[0, -5, 0], [1, 0, 0], None]
    assert said["edge_stored_at"] == "destination"
    assert said["voxel_size_nm"] == [9.0, 9.0, 12.0]
    assert (said["box"], said["volume_shape"]) == ("1:3,0:5,0:6", [4, 5, 6])
    assert (said["source_fingerprint"], said["network"]) == ("ab", {"step": 7})
    assert said["config_fingerprint"] == determines.digest(determined_by)
    assert pathlib.Path(said["source"]).is_absolute()


def test_edges_of_channels():
    assert EDGES.of((1, 0)) == ((0, -5, 0), (1, 0, 0))
    assert EDGES.offset_of(2) is None
