"""Each way to scale a volume, on numbers worked by hand, the same whatever box is read."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage import exposure

from nisbjax.data import clahe, nisb, normalization
from nisbjax.data.intensity import normalized
from nisbjax.data.normalization import Normalization
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store.volume import create_zarr, from_array


def inputs(keys, array):
    """What the network is given of a volume."""
    view, scale = keys.applied(from_array(array, "xyzc", source="memory"))
    found = normalized(jnp.asarray(view.read()[None]), jnp.array([scale], jnp.float32))
    return np.asarray(found[0])


GREY = np.array([[0, 10], [20, 30]], np.uint16).reshape(2, 1, 2, 1)  # x z


@pytest.mark.parametrize(
    "keys, want",
    [
        (Normalization("range", grey_range=(10, 20)), [[0, 0], [1, 1]]),
        (Normalization("min_max", invert=True), [[1, 2 / 3], [1 / 3, 0]]),
        # Slice 0 holds 0 and 20, slice 1 holds 10 and 30.
        (Normalization("min_max", per="slice"), [[0, 0], [1, 1]]),
        (Normalization("min_max", per="slice", invert=True), [[1, 1], [0, 0]]),
        # The quarter of 0 and 20 is 5, of 10 and 30 15: those and the largest.
        (
            Normalization("percentile", (25, 100), per="slice"),
            [[0, 0], [1, 1]],
        ),
        # Mean 15, variance (225 + 25 + 25 + 225) / 4 = 125.
        (Normalization("zscore"), np.array([[-15, -5], [5, 15]]) / 125**0.5),
        (
            Normalization("zscore", invert=True),
            np.array([[15, 5], [-5, -15]]) / 125**0.5,
        ),
        # Means 10 and 20, deviation 10 in either slice.
        (Normalization("zscore", per="slice"), [[-1, -1], [1, 1]]),
        (Normalization("zscore", per="slice", invert=True), [[1, 1], [-1, -1]]),
    ],
)
def test_scaled_by_hand(keys, want):
    np.testing.assert_allclose(inputs(keys, GREY)[:, 0, :, 0], want, rtol=1e-6)


def test_slices_without_two_values_are_0_and_nan_counts_as_the_lowest():
    stack = np.array([[5, 1, np.nan], [5, 3, np.nan], [5, np.inf, 7]], np.float32)
    got = inputs(Normalization("min_max", per="slice"), stack.reshape(3, 1, 3, 1))
    np.testing.assert_array_equal(got[:, 0, :, 0], [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    with pytest.raises(InputError, match="memory has no slice of z that holds two"):
        inputs(Normalization("zscore", per="slice"), np.ones((2, 2, 2, 1), np.uint8))
    with pytest.raises(InputError, match="holds no two different finite values"):
        inputs(Normalization("zscore"), np.ones((2, 2, 2, 1), np.uint8))


def test_tables_of_a_tile():
    """Levels 0, 0, 0 and 2 of four voxels; at most half of them may count in one level.

    One of level 0 is spread over 256: 2 + 1/256 of level 0, 1/256 of level 1 and so on, so
    that level 0 becomes 255 (2 + 1/256) / 4 and level 2 255 (3 + 3/256) / 4.
    """
    counts = np.bincount([0, 0, 0, 2], minlength=256)
    found = clahe.table(counts, 0.5)
    assert found[[0, 1, 2, 255]].tolist() == [128, 128, 192, 255]


def test_clahe_is_scikit_images_in_its_plane_and_does_not_depend_on_boxes():
    draw = np.random.default_rng(0)
    plane = np.linspace(40, 120, 64)[:, None] + draw.normal(0, 20, (64, 96))
    stack = np.stack([plane, plane[::-1]], -1)[..., None].clip(0, 255).astype(np.uint8)
    keys = Normalization("clahe", tile=16, clip=0.03)
    view, scale = keys.applied(from_array(stack, "xyzc"))
    got = view.read()
    assert scale == (0, 255, 0, 1) and got.dtype == np.uint8
    for z in range(2):
        want = exposure.equalize_adapthist(
            stack[:, :, z, 0], kernel_size=16, clip_limit=0.03, nbins=256
        )
        # Where tiles lie and how the rest is spread differ at the plane's edges.
        inside = (slice(16, -16), slice(16, -16))
        apart = np.abs(got[:, :, z, 0][inside] / 255 - want[inside])
        assert apart.mean() < 0.02, apart.mean()
    box = Box((5, 30, 1), (41, 33, 2))
    np.testing.assert_array_equal(view.read(box), got[box.slices])
    dark = Normalization("clahe", tile=16, clip=0.03, invert=True)
    assert dark.applied(from_array(stack, "xyzc"))[1] == (255, 0, 0, 1)


def test_statistics_are_of_the_whole_volume_and_made_once(
    tmp_path, monkeypatch, caplog
):
    def stored(name, values):
        volume = create_zarr(
            tmp_path / name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=values.shape,
            axes="xyzc"[: values.ndim],
        )
        volume.write(..., values)

    image = np.arange(16, dtype=np.uint16).reshape(4, 2, 2, 1)
    stored("img", image)
    stored("seg", np.ones((4, 2, 2), np.uint16))
    keys = Normalization("min_max", kept=str(tmp_path / "kept"))
    (pair,) = nisb.open_pairs(
        tmp_path, "img", "seg", box="0:1,0:2,0:2", normalization=keys
    )
    assert pair.scale == (0, 15, 0, 1) and pair.image.shape == (1, 2, 2, 1)
    (file,) = (tmp_path / "kept").iterdir()

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(normalization, "intensity_range", refuse)
    monkeypatch.setattr(normalization, "_IN_MEMORY", {})
    assert keys.applied(
        pair.image.view(pair.image.store, source=str(tmp_path / "img"))
    )[1] == (0, 15, 0, 1)
    monkeypatch.undo()
    # Not by another: what the statistics depend on, and the image, are part of the name.
    monkeypatch.setattr(normalization, "_IN_MEMORY", {})
    Normalization("zscore", kept=keys.kept).applied(
        from_array(image, "xyzc", source=str(tmp_path / "img"))
    )
    assert len(list((tmp_path / "kept").iterdir())) == 2
    monkeypatch.setattr(normalization, "_IN_MEMORY", {})
    file.write_bytes(b"PK")
    source = from_array(image, "xyzc", source=str(tmp_path / "img"))
    assert keys.applied(source)[1] == (0, 15, 0, 1)
    assert "is damaged" in caplog.text and file.stat().st_size > 100


def test_refused():
    with pytest.raises(InputError, match="data.normalize is 'histogram'; wanted one"):
        inputs(Normalization("histogram"), GREY)
    with pytest.raises(InputError, match="data.normalize_per is 'row'; wanted one of"):
        inputs(Normalization("min_max", per="row"), GREY)
    with pytest.raises(InputError, match="holds bool; wanted grey values"):
        inputs(Normalization("clahe"), np.ones((2, 2, 2, 1), bool))
