"""Pictures are files of the right proportions; an id keeps its colour."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from nisbjax.store.volume import from_array
from nisbjax.viz.colours import label_colours
from nisbjax.viz.plots import slices

SHAPE = (12, 8, 6)


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that was saved."""
    figures = []
    save = Figure.savefig

    def keep(self, *arguments, **options):
        figures.append(self)
        return save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def volumes():
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (*SHAPE, 1), np.uint8)
    affinities = draw.random((3, *SHAPE), np.float32)
    labels = draw.integers(0, 5, SHAPE, np.uint32)
    return image, affinities, labels


def test_three_planes_of_every_volume(tmp_path, drawn):
    image, affinities, labels = volumes()
    columns = {
        "image": from_array(image, "xyzc"),
        "affinity": from_array(affinities, "cxyz"),
        "labels": from_array(labels, "xyz"),
    }
    path = slices(tmp_path / "new" / "slices.png", columns, (9.0, 9.0, 12.0))
    assert imread(path).ndim == 3
    assert [p.name for p in path.parent.iterdir()] == ["slices.png"]
    axes = np.array(drawn[0].axes).reshape(3, 3)
    assert [a.get_title() for a in axes[0]] == ["image", "affinity", "labels"]
    # The middle of 6, 8 and 12 voxels.
    assert [a.get_ylabel() for a in axes[:, 0]] == ["z = 3", "y = 4", "x = 6"]
    # A voxel is 9 x 9 nm in the z plane; 12 nm down and 9 across in the others.
    assert [a.get_aspect() for a in axes[:, 0]] == pytest.approx([1, 12 / 9, 12 / 9])
    shown = [[a.images[0] for a in row] for row in axes]
    # x runs to the right, y (then z) downwards.
    np.testing.assert_array_equal(shown[0][0].get_array(), image[:, :, 3, 0].T)
    np.testing.assert_array_equal(shown[1][0].get_array(), image[:, 4, :, 0].T)
    np.testing.assert_array_equal(shown[2][0].get_array(), image[6, :, :, 0].T)
    np.testing.assert_allclose(
        shown[0][1].get_array(), affinities[:, :, :, 3].mean(0).T, rtol=1e-6
    )
    np.testing.assert_array_equal(
        shown[0][2].get_array(),
        label_colours(labels[:, :, 3].astype(np.int64)).swapaxes(0, 1),
    )
    assert [s.get_clim() for s in shown[0][:2]] == [(0, 255), (0, 1)]


def test_large_volumes_are_shown_around_their_centre(tmp_path, drawn):
    values = np.zeros((600, 3, 4), np.uint8)
    values[44, 0, 0], values[43, 0, 0] = 1, 9  # (600 - 512) / 2 = 44 is the first
    values[44, 0, 2] = 7
    slices(
        tmp_path / "a.png",
        {"a": from_array(values[..., None], "xyzc")},
        (1.0, 1.0, 1.0),
    )
    plane = drawn[0].axes[0].images[0].get_array()
    assert plane.shape == (3, 512) and plane[0, 0] == 7


def test_labels_take_the_colours_of_their_truth(tmp_path, drawn):
    labels = np.zeros(SHAPE, np.uint32)
    labels[:6], labels[6:] = 7, 9
    columns = {
        "found": from_array(labels, "xyz"),
        "truth": from_array(labels // 7, "xyz"),
    }
    slices(tmp_path / "a.png", columns, (1.0, 1.0, 1.0), truth="truth")
    found, truth = (a.images[0].get_array() for a in drawn[0].axes[:2])
    # Both segments lie in object 1 (7 // 7 = 9 // 7), in which the second has more voxels: in
    # the plane x = 6 there is it alone.
    np.testing.assert_array_equal(found[:, 6:], truth[:, 6:])
    assert (found[:, :6] != truth[:, :6]).any(-1).all()


def test_no_display_is_needed():
    assert matplotlib.get_backend().lower() == "agg"
