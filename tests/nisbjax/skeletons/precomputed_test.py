"""Precomputed skeletons packed by hand and by osteoid, and damaged ones."""

import gzip
import json
import struct

import numpy as np
import pytest

from nisbjax import skeletons
from nisbjax.errors import InputError

VOXEL = (10.0, 10.0, 20.0)
RADIUS = {"id": "radius", "data_type": "float32", "num_components": 1}
# Three vertices in a row: 3 vertices, 2 edges, positions, edges, then a radius of each.
PLACES = (0, 0, 0, 0, 0, 20, 0, 10, 40)
ROW = struct.pack("<2I", 3, 2) + struct.pack("<9f", *PLACES)
ROW += struct.pack("<4I", 0, 1, 1, 2) + struct.pack("<3f", 1, 2, 3)


def folder_of(tmp_path, files, **info):
    folder = tmp_path / "skeletons"
    folder.mkdir()
    info = {"@type": "neuroglancer_skeletons", "vertex_attributes": [RADIUS], **info}
    (folder / "info").write_text(json.dumps(info))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def load(folder, **options):
    return skeletons.load(folder, voxel_size_nm=VOXEL, **options)


def test_packed_by_hand(tmp_path):
    """In the order of ids, not of names; what is no number is not looked at."""
    other = {"spatial.frag": b"", "provenance": b"{}"}
    folder = folder_of(tmp_path, {"10": ROW, "9.gz": gzip.compress(ROW), **other})
    found = load(folder)
    assert found.node_id.tolist() == [9] * 3 + [10] * 3
    assert found.index_position[:3].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2]]
    assert found.edges.tolist() == [[0, 1], [1, 2], [3, 4], [4, 5]]
    # 20, then sqrt(10^2 + 20^2)
    assert found.edge_lengths_nm[2:] == pytest.approx([20, 500**0.5])


def test_the_transform_is_honoured(tmp_path):
    """Stored as y x z in um / 100, moved by one voxel along z: x' = 10 y, z' = 10 z + 20."""
    places = struct.pack("<6f", 1, 3, 2, 1, 5, 2)
    content = struct.pack("<2I", 2, 1) + places + struct.pack("<2I", 0, 1)
    folder = folder_of(
        tmp_path,
        {"4": content},
        transform=[0, 10, 0, 0, 10, 0, 0, 0, 0, 0, 10, 20],
        vertex_attributes=[],
    )
    found = load(folder)
    assert found.position_nm.tolist() == [[30, 10, 40], [50, 10, 40]]
    assert found.index_position.tolist() == [[3, 1, 2], [5, 1, 2]]


def test_files_of_osteoid(tmp_path):
    osteoid = pytest.importorskip("osteoid")
    places = np.array([[0, 0, 0], [10, 0, 20], [20, 10, 40]], np.float32)
    lines = np.array([[0, 1], [1, 2]], np.uint32)
    made = osteoid.Skeleton(places, lines, np.ones(3, np.float32))
    attributes = [
        {k: attribute[k] for k in ("id", "data_type", "num_components")}
        for attribute in made.extra_attributes
    ]
    folder = folder_of(
        tmp_path, {"5": made.to_precomputed()}, vertex_attributes=attributes
    )
    found = load(folder)
    assert found.index_position.tolist() == [[0, 0, 0], [1, 0, 1], [2, 1, 2]]
    assert found.edges.tolist() == [[0, 1], [1, 2]]


def test_ours_in_neuroglancers_words(tmp_path):
    """A node at voxel (1 0 3) is shown at that voxel's centre, (15 5 70) nm."""
    from nisbjax.skeletons import precomputed

    found = load(folder_of(tmp_path, {"5": ROW}))
    moved = skeletons.Skeletons(
        found.node_id, found.index_position + [1, 0, 3], found.position_nm + [10, 0, 60],
        found.edges,
    )  # fmt: skip
    precomputed.write(moved, tmp_path / "out", VOXEL)
    info = json.loads((tmp_path / "out" / "info").read_text())
    content = (tmp_path / "out" / "5").read_bytes()
    assert struct.unpack("<2I3f", content[:20]) == (3, 2, 10, 0, 60)
    assert info["transform"] == [1, 0, 0, 5, 0, 1, 0, 5, 0, 0, 1, 10]
    assert load(tmp_path / "out").index_position[0].tolist() == [1, 0, 3]


NAN = ROW[:8] + struct.pack("<f", float("nan")) + ROW[12:]
FAR = ROW[:44] + struct.pack("<I", 3) + ROW[48:]


@pytest.mark.parametrize(
    ("files", "info", "message"),
    [
        ({}, {}, "skeletons has an info, but no file of a skeleton beside it"),
        ({"5": ROW, "5.gz": ROW}, {}, "are both of id 5; remove one"),
        ({"5": ROW[:7]}, {}, "5 has 7 bytes; wanted a whole skeleton"),
        (
            {"5": ROW[:-4]},
            {},
            "5 has 68 bytes, and its 3 vertices with 2 edges take 72",
        ),
        (
            {"5": ROW},
            {"vertex_attributes": []},
            "5 has 72 bytes, and .* take 60 by info",
        ),
        ({"5": NAN}, {}, "5: the position of vertex 0 is not finite"),
        ({"5": FAR}, {}, "5 has edges to vertex 3 and holds 3 vertices"),
        ({"5.gz": ROW}, {}, "5.gz cannot be unpacked .*; copy it again"),
        ({"5.gz": gzip.compress(ROW)[:-9]}, {}, "5.gz was cut; copy it again"),
        ({str(1 << 63): ROW}, {}, "its id does not fit int64"),
        ({"5": ROW}, {"sharding": {"bits": 1}}, "says that the skeletons are sharded"),
        (
            {"5": ROW},
            {"transform": [1, 0]},
            "info: transform is .*; wanted a list .12 of",
        ),
        (
            {"5": ROW},
            {"@type": "words"},
            "info: @type is 'words'; wanted one of neurog",
        ),
        (
            {"5": ROW},
            {"@type": "neuroglancer_multiscale_volume", "skeletons": "sk"},
            "info is that of a volume; its skeletons lie in .*skeletons/sk",
        ),
    ],
)
def test_refused(tmp_path, files, info, message):
    folder = folder_of(tmp_path, files, **info)
    with pytest.raises(InputError, match=message):
        load(folder)


def test_bounds(tmp_path):
    """A gzip of a megabyte of zeros has some thousand bytes."""
    bomb = gzip.compress(bytes(1 << 20))
    folder = folder_of(tmp_path, {"5.gz": bomb})
    with pytest.raises(InputError, match="has more than 10000 bytes once unpacked"):
        load(folder, max_bytes=10_000)
    (folder / "5.gz").unlink()
    (folder / "6").write_bytes(ROW)
    with pytest.raises(InputError, match="6 goes beyond the limit of nodes"):
        load(folder, max_nodes=2)
