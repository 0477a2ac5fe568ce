"""What the libraries really raise when something outside of us fails, as one line each."""

import concurrent.futures.process
import errno
import os
import resource
import signal
import sqlite3

import h5py
import jax
import numpy as np
import pytest
import tensorstore as ts

from nisbjax import launch
from nisbjax.errors import InputError
from nisbjax.modes import outside
from nisbjax.store.volume import create_zarr


def caught(work) -> BaseException:
    """What a function raises."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001 (whatever it is)
        return error
    raise AssertionError("it raised nothing")


def array(path):
    made = create_zarr(
        path, shape=(64, 64), dtype=np.dtype("u4"), chunks=(64, 64), axes="xy"
    )
    made.write(..., np.random.default_rng(0).integers(0, 2**32, (64, 64), np.uint32))
    return ts.open(
        {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path)}}
    ).result()


def damaged_chunk(folder):
    store = array(folder / "a.zarr")
    (folder / "a.zarr" / "0.0").write_bytes(b"xx")
    store.read().result()


def missing_array(folder):
    ts.open(
        {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder / "no")}}
    ).result()


def array_below_a_file(folder):
    (folder / "file").touch()
    array(folder / "file" / "a.zarr")


def array_of_a_long_name(folder):
    spec = {"driver": "zarr", "dtype": "uint8", "schema": {"domain": {"shape": [4]}}}
    store = {"driver": "file", "path": str(folder / ("x" * 300))}
    ts.open({**spec, "kvstore": store, "create": True}).result()


def array_behind_a_loop(folder):
    (folder / "loop").symlink_to(folder / "loop")
    spec = {"driver": "zarr", "dtype": "uint8", "schema": {"domain": {"shape": [4]}}}
    store = {"driver": "file", "path": str(folder / "loop" / "a")}
    ts.open({**spec, "kvstore": store, "create": True}).result()


def chunk_that_is_a_folder(folder):
    store = array(folder / "a.zarr")
    (folder / "a.zarr" / "0.0").unlink()
    (folder / "a.zarr" / "0.0").mkdir()
    store.write(1).result()


def no_hdf5(folder):
    (folder / "a.h5").write_bytes(b"nonsense" * 100)
    h5py.File(folder / "a.h5")


def hdf5(folder):
    values = np.random.default_rng(0).random((100, 100))
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(50, 50), compression="gzip")
        place = file["x"].id.get_chunk_info(0)
    return place.byte_offset


def cut_hdf5(folder):
    hdf5(folder)
    os.truncate(folder / "a.h5", (folder / "a.h5").stat().st_size // 2)
    h5py.File(folder / "a.h5")


def damaged_hdf5(folder):
    at = hdf5(folder)
    with open(folder / "a.h5", "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 100)
    h5py.File(folder / "a.h5")["x"][...]


def missing_dataset(folder):
    hdf5(folder)
    h5py.File(folder / "a.h5")["y"]


def missing_hdf5(folder):
    h5py.File(folder / "no.h5")


def hdf5_in_a_missing_folder(folder):
    h5py.File(folder / "no" / "a.h5", "w")


def unaligned(folder):
    (folder / "x.npz").write_bytes(b"")
    with open(folder / "x.npz" / "y"):
        pass


def too_many_links(folder):
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "loop").read_text()


def long_name(folder):
    (folder / ("x" * 300)).write_text("")


def much_memory(folder):
    np.empty(2**50, np.uint8)


def dead_worker(folder):
    raise concurrent.futures.process.BrokenProcessPool("a child was killed")


def other_database(folder):
    (folder / "a.db").write_bytes(b"nonsense" * 200)
    sqlite3.connect(folder / "a.db").execute("select * from x")


def deep_inside(folder):
    """As Orbax and Dask do it: an error of theirs, from ours."""
    try:
        raise InputError("decode.threshold is 2; wanted a number in [0, 1]")
    except InputError as error:
        raise RuntimeError("a task failed") from error


def in_a_group(folder):
    raise ExceptionGroup("two tasks", [OSError(errno.EDQUOT, "quota", "raw.zarr/0")])


def with_a_note(folder):
    error = OSError(errno.EIO, "fault", "raw.zarr/0")
    error.add_note("box 0:64 is not written")
    raise error


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (damaged_chunk, "a.zarr/0.0 cannot be read or written ("),
        (missing_array, "no/.zarray is not there"),
        (array_below_a_file, "Not a directory; name another path"),
        (array_of_a_long_name, "File name too long; give a shorter path"),
        (array_behind_a_loop, "Too many levels of symbolic links; its links"),
        (chunk_that_is_a_folder, "a.zarr/0.0: Is a directory; name another path"),
        (no_hdf5, "an HDF5 file cannot be used: Unable to synchronously open"),
        (cut_hdf5, "truncated file"),
        (damaged_hdf5, "an HDF5 file cannot be used: Can't synchronously read data"),
        (missing_dataset, "an HDF5 file cannot be used: "),
        (missing_hdf5, "no.h5: No such file or directory; is it named rightly"),
        (hdf5_in_a_missing_folder, "no/a.h5: No such file or directory"),
        (unaligned, "y: Not a directory; name another path"),
        (too_many_links, "loop: Too many levels of symbolic links"),
        (long_name, "File name too long; give a shorter path"),
        (much_memory, "out of memory (Unable to allocate 1.00 PiB"),
        (dead_worker, "a process that worked for this one has died (a child was"),
        (other_database, "the database of the study failed (file is not a database)"),
        (deep_inside, "decode.threshold is 2; wanted a number in [0, 1]"),
        (in_a_group, "raw.zarr/0: Disk quota exceeded; free space there"),
        (with_a_note, "; box 0:64 is not written"),
    ],
)
def test_failures_of_the_outside_are_explained(tmp_path, work, said):
    line = outside.explain(caught(lambda: work(tmp_path)))
    assert line is not None and said in line
    assert "\n" not in line
    assert "tensorstore_spec" not in line


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_number_of_the_system_has_a_line(number):
    """With a file, and without: `write` and `fsync` know none."""
    with_file = outside.explain(OSError(number, "?", "raw.zarr/0"))
    assert with_file.startswith(f"raw.zarr/0: {os.strerror(number)}; ")
    without = outside.explain(OSError(number, "?"))
    assert f": {os.strerror(number)}; " in without


def test_a_file_that_may_not_grow(tmp_path):
    """The limit of the process instead of a full disk: 10,000 bytes, then 16,384."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
    try:
        error = caught(lambda: array(tmp_path / "a.zarr"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
        signal.signal(signal.SIGXFSZ, handler)
    line = outside.explain(error)
    assert "a.zarr/0.0: File too large; raise the largest size of a file" in line


def test_a_device_without_room():
    """2^50 bytes of zeros: XLA refuses them by name."""
    error = caught(lambda: jax.numpy.zeros(2**50, "uint8").block_until_ready())
    assert "the device is out of memory (RESOURCE_EXHAUSTED" in outside.explain(error)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("'int' object is not callable"),
        KeyError("scores"),
        ValueError("operands could not be broadcast together"),
        RuntimeError("generator raised StopIteration"),
        ValueError("INVALID_ARGUMENT: Error aligning dimensions"),
        AssertionError(),
        RecursionError("maximum recursion depth exceeded"),
    ],
)
def test_defects_of_ours_keep_their_traceback(error, monkeypatch):
    assert outside.explain(error) is None

    def work(*_):
        raise error

    monkeypatch.setattr(launch, "_run", work)
    with pytest.raises(type(error)):
        launch.main(["nisbjax"])


def test_a_defect_after_a_failure_is_still_a_defect():
    def work():
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            None.close()

    assert outside.explain(caught(work)) is None


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(errno.ENOSPC, "?"), 2, "No space left on device; free space there"),
        (InputError("one\nline"), 2, "nisbjax: one line\n"),
        (KeyboardInterrupt(), 130, "stopped by the keyboard"),
    ],
)
def test_one_line_and_the_exit_status(monkeypatch, capsys, error, status, said):
    def work(*_):
        raise error

    monkeypatch.setattr(launch, "_run", work)
    with pytest.raises(SystemExit) as left:
        launch.main(["nisbjax"])
    assert left.value.code == status
    printed = capsys.readouterr().err
    assert said in printed and printed.startswith("nisbjax: ")
    assert printed.count("\n") == 1
