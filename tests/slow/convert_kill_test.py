"""Conversions killed or stopped at file operations chosen by number: the same bytes in the end."""

import signal
import sys

import numpy as np
import pytest
from kill_campaign import ENDS, campaign

pytestmark = pytest.mark.slow

KILLS = ((signal.SIGKILL, -signal.SIGKILL),)


@pytest.mark.parametrize(
    "form, ends, count",
    [(form, KILLS, 4) for form in ("zarr3", "ome-zarr-0.4", "precomputed", "n5")]
    + [("ome-zarr-0.5", ENDS, 1)],
)
def test_a_conversion_ends_as_the_undisturbed_one(tmp_path, library, form, ends, count):
    folder = tmp_path / "case"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 9, (40, 24, 24)).astype(np.uint32)
    np.save(folder / "labels.npy", values)

    def command(place):
        head = [sys.executable, "-m", "nisbjax.launch", "--mode=convert"]
        keys = {"format": form, "chunks": "16", "memory_gb": "0.0001"}
        keys |= {"voxel_size_nm": "8,8,8"}
        keys |= {} if form in ("zarr2", "zarr3") else {"downsample": "2"}
        flags = [f"--config.convert.{key}={value}" for key, value in keys.items()]
        return [*head, f"{place}/labels.npy", f"{place}/out", *flags]

    campaign(library, folder, command, count, ends)


@pytest.mark.parametrize("name", ["out.h5", "out.tif"])
def test_files_are_there_whole_or_not_at_all(tmp_path, library, name):
    folder = tmp_path / "case"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 9, (40, 24, 24)).astype(np.uint32)
    np.save(folder / "main.npy", values)

    def command(place):
        head = [sys.executable, "-m", "nisbjax.launch", "--mode=convert"]
        return [*head, f"{place}/main.npy", f"{place}/{name}"]

    campaign(library, folder, command, 3, KILLS)
