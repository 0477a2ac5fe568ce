"""A volume is known again by its content, wherever it lies."""

import json

import h5py
import numpy as np
import pytest
import tensorstore as ts
from small_volumes import VALUES, written

from nisbjax.errors import InputError
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.fingerprint_versions import difference, is_earlier
from nisbjax.store.manifest import require_equal
from nisbjax.store.volume import open_volume
from nisbjax.store.zarr_output import write_attributes


def test_a_fingerprint_is_of_the_content_not_of_the_place(tmp_path):
    written(tmp_path / "a.zarr")
    np.save(tmp_path / "a.npy", VALUES)
    for name, chunk in (("a.zarr", "a.zarr/1.0.1"), ("a.npy", "a.npy")):
        first = fingerprint(tmp_path / name)
        moved = tmp_path / "elsewhere" / name
        moved.parent.mkdir(exist_ok=True)
        (tmp_path / name).rename(moved)
        assert fingerprint(moved) == first
        file = moved.parent / chunk
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        assert fingerprint(moved) != first
        data[-1] ^= 1
        file.write_bytes(data)
        assert fingerprint(moved) == first
    moved = tmp_path / "elsewhere" / "a.zarr"
    before = fingerprint(moved)
    write_attributes(moved, {"axes": ["z", "y", "x"]})
    assert fingerprint(moved) != before
    before = fingerprint(moved)
    (moved / "0.0.0").rename(moved / "0.0.9")
    assert fingerprint(moved) != before


def test_datasets_of_one_file_have_fingerprints_of_their_own(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"], file["seg"] = VALUES, VALUES
    prints = {fingerprint(tmp_path / "a.h5" / n) for n in ("raw", "seg")}
    assert len(prints) == 2
    with pytest.raises(InputError, match="no volume at .*b.h5; check the path"):
        fingerprint(tmp_path / "b.h5")


def add(path, **words):
    """Adds words to a file of JSON."""
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | words, indent=3))


@pytest.mark.parametrize(
    "driver, name, free, meant",
    [
        ("zarr", ".zattrs", {"note": "mine"}, {"axes": "zyx"}),
        (
            "zarr3",
            "zarr.json",
            {"attributes": {"note": 1}},
            {"attributes": {"axes": "zyx"}},
        ),
        ("n5", "attributes.json", {"note": "mine"}, {"axes": list("zyx")}),
    ],
)
def test_words_that_people_add_are_no_part_of_it(tmp_path, driver, name, free, meant):
    path = tmp_path / "em"
    store = ts.open(
        {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}},
        dtype=ts.uint16,
        shape=VALUES.shape,
        create=True,
    ).result()
    store[...] = VALUES
    before = fingerprint(path)
    add(path / name, **free)
    assert open_volume(path).attributes["note"]
    assert fingerprint(path) == before
    add(path / name, **meant)
    assert open_volume(path).stored_axes == "zyx"
    assert fingerprint(path) != before
    assert fingerprint(path) == fingerprint(f"{path}#zyx")


def test_attributes_and_neighbours_of_a_dataset_are_no_part_of_it(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=VALUES, chunks=(4, 4, 4), compression="gzip")
    before = fingerprint(tmp_path / "a.h5/raw")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["raw"].attrs["note"], file["other"] = "mine", VALUES
    assert fingerprint(tmp_path / "a.h5/raw") == before
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["raw"].attrs["offsets"] = [[1, 0, 0]]  # which decoding reads
    assert fingerprint(tmp_path / "a.h5/raw") != before
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["raw"].attrs["offsets"]
        file["raw"][4, 5, 6] ^= 1
    assert fingerprint(tmp_path / "a.h5/raw") != before


def test_one_of_an_earlier_version_is_told_from_another_volume():
    old, new = "ab" * 32, "2:" + "cd" * 32
    assert is_earlier(old) and is_earlier(f"{old} [0:2,0:2,0:2]")
    assert not any(map(is_earlier, (new, "em.zarr", None, 3)))
    assert difference(new, new) == ""
    assert difference("2:" + old, new) == "has changed"
    with pytest.raises(
        InputError,
        match=r"a is known by a .* version before 2, .*\(image\); remove",
    ):
        require_equal("a", {"image": old}, {"image": new})
    with pytest.raises(
        InputError, match=r"a run with other image, shape \(image: 'abab"
    ):
        require_equal("a", {"image": old, "shape": [3]}, {"image": new, "shape": [4]})
