"""Statistics of slabs, gathered, are those of a scan; what is not sure is not believed."""

import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.geometry import Box
from nisbjax.qc import gathering, statistics
from nisbjax.qc.statistics_file import load
from nisbjax.store.volume import Volume, from_array

SHAPE = (6, 5, 4)
WHOLE = [Box((0, 0, 0), (4, 5, 4)), Box((4, 0, 0), (6, 5, 4))]


@pytest.fixture
def section():
    section = base_config().qc
    section.update({"border_width": 1, "bg_thresh": 100.0, "n_z_border": 2})
    return section


def drawn():
    draw = np.random.default_rng(0)
    image = draw.integers(0, 200, (*SHAPE, 1), np.uint8)
    return draw.random((2, *SHAPE)).astype(np.float16), from_array(image, "xyzc")


def gathered(section, folder, boxes, shape=SHAPE):
    """Observes parts of a prediction; returns them, and the statistics if there are any."""
    values, image = drawn()
    plain = from_array(values, "cxyz")
    source = str(folder / "raw.zarr")
    prediction = Volume(plain.store, "cxyz", {"box": "a"}, source)
    path = folder / "planes.npz"
    taken = gathering.begin(section, path, image, prediction)
    for box in boxes:
        assert taken.observe(box, values[(slice(None), *box.slices)]) == {}
    taken.finish([str(box) for box in boxes])
    assert not (folder / "raw.zarr" / ".planes").exists()
    made_from = gathering.identity({"box": "a"}, section)
    scanned = statistics.scan(plain, gathering.border_of(image, section, plain))
    return load(path, made_from), scanned


def test_slabs_make_the_statistics_of_a_scan(section, tmp_path):
    found, scanned = gathered(section, tmp_path, WHOLE)
    for name in ("count", "total", "squares", "low", "high"):
        np.testing.assert_array_equal(
            getattr(found.planes, name), getattr(scanned.planes, name)
        )
    np.testing.assert_array_equal(found.pictures, scanned.pictures)
    assert found.border.z == scanned.border.z
    for mine, theirs in zip(found.samples.ring, scanned.samples.ring, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.total == b.total > 0 and a.mean == b.mean


@pytest.mark.parametrize(
    "boxes", [WHOLE[:1], [*WHOLE, Box((3, 0, 0), (5, 5, 4))]], ids=["gap", "overlap"]
)
def test_slabs_that_do_not_make_the_whole_are_left_to_a_scan(section, tmp_path, boxes):
    assert gathered(section, tmp_path, boxes)[0] is None


def test_a_slab_without_its_statistics_is_left_to_a_scan(section, tmp_path, caplog):
    values, image = drawn()
    plain = from_array(values, "cxyz")
    prediction = Volume(plain.store, "cxyz", {}, str(tmp_path / "raw.zarr"))
    taken = gathering.begin(section, tmp_path / "planes.npz", image, prediction)
    taken.observe(WHOLE[0], values[:, :4])
    with caplog.at_level("INFO", logger="absl"):
        taken.finish([str(box) for box in WHOLE])
    assert not (tmp_path / "planes.npz").exists()
    assert "no statistics of 4:6,0:5,0:4 were gathered; QC will scan" in caplog.text


def test_a_region_has_no_border_rows(section, tmp_path):
    _, image = drawn()
    part = from_array(np.zeros((2, 3, 5, 4), np.float16), "cxyz")
    prediction = Volume(part.store, "cxyz", {}, str(tmp_path / "raw.zarr"))
    taken = gathering.begin(section, tmp_path / "planes.npz", image, prediction)
    taken.observe(Box.whole((3, 5, 4)), part.read())
    taken.finish([str(Box.whole((3, 5, 4)))])
    found = load(tmp_path / "planes.npz", gathering.identity({}, section))
    assert found.border is None and found.shape == (3, 5, 4)


def test_another_border_or_network_is_another_identity(section):
    one = gathering.identity({"network": {"step": 1}}, section)
    assert one == gathering.identity({"network": {"step": 1}, "axes": "cxyz"}, section)
    assert one != gathering.identity({"network": {"step": 2}}, section)
    section.z_stride = 3  # of the cuts, which are found again
    assert one == gathering.identity({"network": {"step": 1}}, section)
    section.border_width = 2
    assert one != gathering.identity({"network": {"step": 1}}, section)
