"""npy and npz files of the package's own, in threads; open_npy's tests are in formats_test."""

import ast
import concurrent.futures
import errno
import time

import numpy as np
import pytest

from nisbjax.store import npy


def test_one_header_is_parsed_at_a_time(tmp_path, monkeypatch):
    """Two at once fail in CPython 3.11, in one of some 80,000."""
    np.save(tmp_path / "one.npy", np.arange(3))
    np.savez(tmp_path / "more.npz", a=np.arange(2))
    parse, inside, most = ast.literal_eval, [], []

    def slow(text):
        inside.append(text)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", slow)

    def read(_):
        assert npy.load(tmp_path / "one.npy").tolist() == [0, 1, 2]
        assert npy.mapped(tmp_path / "one.npy").tolist() == [0, 1, 2]
        assert npy.open_npy(tmp_path / "one.npy").read().result().tolist() == [0, 1, 2]
        with npy.Archive(tmp_path / "more.npz") as archive:
            assert archive["a"].tolist() == [0, 1]

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(read, range(8)))
    assert max(most) == 1 and len(most) > 4 * 8 - 8  # one mapping is kept


def test_an_archive_names_and_gives_its_arrays(tmp_path):
    np.savez(tmp_path / "more.npz", a=np.arange(2), b=np.ones((1, 2), np.float16))
    with npy.Archive(tmp_path / "more.npz") as archive:
        assert archive.names == ["a", "b"]
        found = archive.all()
    assert found["a"].tolist() == [0, 1]
    assert found["b"].dtype == np.float16 and found["b"].shape == (1, 2)


def test_a_mapped_file_can_be_changed(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(3))
    mapped = npy.mapped(tmp_path / "one.npy", "r+")
    mapped[1] = 7
    mapped.flush()
    assert npy.load(tmp_path / "one.npy").tolist() == [0, 7, 2]
    with pytest.raises(ValueError, match="read-only"):
        npy.mapped(tmp_path / "one.npy")[0] = 1


def test_one_array_is_no_archive_and_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(3))
    with pytest.raises(ValueError, match="one array and no archive"):
        npy.Archive(tmp_path / "one.npy")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        npy.load(tmp_path / "objects.npy")


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0)])
def test_what_is_saved_is_what_numpy_saves(tmp_path, shape):
    values = np.asarray(np.random.default_rng(0).integers(0, 9, shape))
    for each in (values, values.T):  # numpy keeps Fortran's order, we do not
        npy.save(tmp_path / "ours.npy", each)
        found = npy.load(tmp_path / "ours.npy")
        np.testing.assert_array_equal(found, each, strict=True)
    np.save(tmp_path / "numpys.npy", values)
    npy.save(tmp_path / "ours.npy", values)
    assert (tmp_path / "ours.npy").read_bytes() == (
        tmp_path / "numpys.npy"
    ).read_bytes()


def test_a_full_disk_is_the_systems_error_by_name():
    """numpy's own has neither number nor name."""
    with pytest.raises(OSError, match="No space left on device: '/dev/full'") as info:
        npy.save("/dev/full", np.arange(100_000))
    assert info.value.errno == errno.ENOSPC
