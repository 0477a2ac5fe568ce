"""The command line of a conversion: two paths, keys without a configuration."""

import numpy as np
import pytest
from absl import flags

from nisbjax import launch
from nisbjax.errors import InputError
from nisbjax.modes import command_line, convert
from nisbjax.store.volume import open_labels

VALUES = np.arange(5 * 6 * 7, dtype=np.uint32).reshape(5, 6, 7)


@pytest.fixture
def run(monkeypatch):
    """Runs the mode as the command line does, with flags of its own."""

    def ran(*arguments):
        found = flags.FlagValues()
        flags.DEFINE_string("mode", "train", "", flag_values=found)
        flags.DEFINE_string("workdir", "", "", flag_values=found)
        monkeypatch.setattr(command_line, "FLAGS", found)
        given = ["nisbjax", *map(str, arguments)]
        paths = command_line.parse_flags(given, tuple(launch.CONFIGURED_PATH_MODES))
        return convert.run(paths[1:], found.config)

    return ran


def test_two_paths_and_keys(tmp_path, run):
    np.save(tmp_path / "a.npy", VALUES)
    for mode in (["--mode=convert"], ["--mode", "convert"]):
        path = run(
            *mode,
            tmp_path / "a.npy",
            tmp_path / "a.zarr",
            "--config.convert.downsample=1",
            "--config.convert.chunks=4",
            "--config.convert.voxel_size_nm=8,9,30",
        )
        assert path == tmp_path / "a.zarr"
    volume = open_labels(path)
    np.testing.assert_array_equal(volume.read(), VALUES)
    assert (volume.chunks, volume.attributes["voxel_size_nm"]) == (
        (4, 4, 4),
        [8, 9, 30],
    )


@pytest.mark.parametrize("paths", [(), ("a",), ("a", "b", "c")])
def test_other_than_two_paths(run, paths):
    with pytest.raises(
        InputError, match=f"--mode=convert names {len(paths)} paths; wanted two"
    ):
        run("--mode=convert", *paths)


@pytest.mark.parametrize(
    "key, message",
    [
        ("--config.convert.format=vtk", "convert.format is 'vtk'; wanted one of auto"),
        ("--config.convert.downsample=-1", "convert.downsample is -1; wanted a whole"),
        ("--config.convert.chunks=(4,4)", "convert.chunks is .*; wanted three whole"),
        ("--config.convert.dtype=text", "convert.dtype is 'text'; wanted one of"),
        ("--config.convert.pyramid=1", "convert.pyramid is no key"),
        ("--config.data.root=a", "no volume at a; check the path"),
    ],
)
def test_keys_that_mean_nothing(run, tmp_path, monkeypatch, key, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        run("--mode=convert", "a", "b.zarr", key)


def test_other_modes_want_a_configuration(run):
    with pytest.raises(InputError, match="is given without --config"):
        run("--mode=decode", "--config.convert.downsample=1")
