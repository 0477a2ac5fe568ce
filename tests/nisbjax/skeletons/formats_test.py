"""Which reader opens what, the cache, the hash, the bounds."""

import logging
import os

import numpy as np
import pytest
from small_skeletons import check_tiny, tiny_graph, written

from nisbjax import skeletons
from nisbjax.errors import InputError
from nisbjax.skeletons import flat_file, precomputed, swc

VOXEL = (9.0, 9.0, 12.0)


def test_cache_is_keyed_by_content(tmp_path):
    path, cache = written(tmp_path, tiny_graph()), tmp_path / "run"
    check_tiny(skeletons.load(path, cache=cache))
    (kept,) = cache.glob("skeletons_*.npz")
    check_tiny(skeletons.load(path, cache=cache))
    graph = tiny_graph()
    graph.nodes[5]["id"] = 77
    changed = skeletons.load(written(tmp_path, graph), cache=cache)
    assert changed.node_id[0] == 77
    assert len(list(cache.glob("*"))) == 2
    assert kept.exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    path, cache = written(tmp_path, tiny_graph()), tmp_path / "run"
    skeletons.load(path, cache=cache)
    (kept,) = cache.glob("skeletons_*.npz")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    check_tiny(skeletons.load(path, cache=cache))
    assert kept.read_bytes() == whole


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "skeleton.pkl")
    with pytest.raises(InputError, match=r"no skeleton file at .*skeleton.pkl"):
        skeletons.load(tmp_path / "skeleton.pkl")


def test_no_file(tmp_path):
    with pytest.raises(
        InputError, match="no skeleton file at .*; wanted NISB's skeleton.pkl"
    ):
        skeletons.load(tmp_path / "absent.pkl")


def test_too_large(tmp_path):
    path = written(tmp_path, tiny_graph())
    with pytest.raises(InputError, match="bytes, more than the limit of 100"):
        skeletons.load(path, max_bytes=100)
    with pytest.raises(InputError, match="4 nodes, over the limit 3"):
        skeletons.load(path, max_nodes=3)


# --- folders and formats --------------------------------------------------------------


def tiny(tmp_path):
    return skeletons.load(written(tmp_path, tiny_graph()))


def edge_set(found):
    """Edges as pairs of voxels, which no order of nodes changes."""
    voxels = [tuple(v) for v in found.index_position.tolist()]
    return {frozenset((voxels[a], voxels[b])) for a, b in found.edges.tolist()}


WRITERS = {
    "flat.npz": flat_file.write,
    "swc": swc.write,
    "precomputed": lambda found, path: precomputed.write(found, path, VOXEL),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_we_write_comes_back(tmp_path, name):
    whole, path = tiny(tmp_path), tmp_path / name
    WRITERS[name](whole, path)
    found = skeletons.load(path, voxel_size_nm=VOXEL)
    assert found.source == str(path)
    assert sorted(found.node_id.tolist()) == [11, 11, 11, 12]
    assert edge_set(found) == edge_set(whole)
    lengths = np.sort(whole.edge_lengths_nm)
    assert np.allclose(np.sort(found.edge_lengths_nm), lengths)
    # and from the cache, of a folder as of a file
    again = skeletons.load(path, voxel_size_nm=VOXEL, cache=tmp_path / "kept")
    kept = skeletons.load(path, voxel_size_nm=VOXEL, cache=tmp_path / "kept")
    for one in (again, kept):
        assert one.index_position.tolist() == found.index_position.tolist()
        assert one.placed == (name != "flat.npz")


def test_a_folder_is_known_by_names_contents_and_unit(tmp_path):
    swc.write(tiny(tmp_path), tmp_path / "swc")
    folder = str(tmp_path / "swc")
    known = {skeletons.content_hash(folder), skeletons.content_hash(f"{folder}#um")}
    (tmp_path / "swc" / "notes.txt").write_text("nothing of skeletons")
    assert skeletons.content_hash(folder) in known
    (tmp_path / "swc" / "12.swc").rename(tmp_path / "swc" / "13.swc")
    known.add(skeletons.content_hash(folder))
    (tmp_path / "swc" / "13.swc").write_text("1 0 1 1 1 0 -1\n")
    known.add(skeletons.content_hash(folder))
    assert len(known) == 4


def test_a_copy_of_another_name_has_its_own_id_from_the_cache(tmp_path):
    for number in (5, 7):
        path = tmp_path / f"{number}.swc"
        path.write_text("1 0 0 0 0 1 -1\n2 0 90 0 0 1 1\n")
        found = skeletons.load(path, voxel_size_nm=VOXEL, cache=tmp_path / "kept")
        assert found.node_id.tolist() == [number] * 2


def test_ids_are_the_numbers_in_names_or_else_places(tmp_path, caplog):
    for name in ("neuron_20.swc", "neuron_3.SWC"):
        (tmp_path / name).write_text("1 0 0 0 0 1 -1\n2 0 90 0 0 1 1\n")
    found = skeletons.load(tmp_path, voxel_size_nm=VOXEL)
    assert found.node_id.tolist() == [3, 3, 20, 20]
    # 0 is nobody's id, so all are numbered by their order
    (tmp_path / "neuron_0.swc").write_text("1 0 0 0 0 1 -1\n2 0 90 0 0 1 1\n")
    with caplog.at_level(logging.INFO):
        found = skeletons.load(tmp_path, voxel_size_nm=VOXEL)
    assert found.node_id.tolist() == [1, 1, 2, 2, 3, 3]
    assert "not every name has one number above 0" in caplog.text
    (tmp_path / "neuron_0.swc").unlink()
    (tmp_path / "axon_020.swc").write_text("1 0 0 0 0 1 -1\n")
    with pytest.raises(InputError, match="axon_020.swc and .*20.swc are both of id 20"):
        skeletons.load(tmp_path, voxel_size_nm=VOXEL)


def test_one_file_of_swc(tmp_path, caplog):
    path = tmp_path / "axon_7.swc"
    path.write_text("# of a program\n1 2 0.0 0.0 0.0 -1 -1\n2 2 0.18 0 0.012 -1 1\n")
    with caplog.at_level(logging.INFO):
        found = skeletons.load(f"{path}#um", voxel_size_nm=VOXEL)
    # 180 nm of 9 are 20 voxels, 12 nm of 12 are one
    assert found.index_position.tolist() == [[0, 0, 0], [20, 0, 1]]
    assert found.node_id.tolist() == [7, 7] and "positions in um" in caplog.text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("", {}, "is a folder without skeletons; wanted NISB's skeleton.pkl, .npz"),
        ("skeleton.pkl#um", {}, "is no SWC, which alone has #um behind its path"),
        ("a.swc", {}, "a.swc has no voxels of its own; give its voxel_size_nm"),
    ],
)
def test_refused_by_what_the_path_is(tmp_path, name, options, message):
    folder = tmp_path / "empty"
    folder.mkdir()
    if name:
        written(folder, tiny_graph())
        (folder / "a.swc").write_text("1 0 0 0 0 1 -1\n")
    with pytest.raises(InputError, match=message):
        skeletons.load(folder / name if name else folder, **options)


def test_is_there(tmp_path):
    assert not skeletons.is_there("")
    assert not skeletons.is_there(tmp_path / "a.swc#um")
    (tmp_path / "a.swc").write_text("")
    assert skeletons.is_there(f"{tmp_path}/a.swc#um")
