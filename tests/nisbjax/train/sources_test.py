"""Several sources in one training, each read by its own keys."""

import jax
import numpy as np
import pytest

from nisbjax.config import source
from nisbjax.data.nisb import Pair
from nisbjax.errors import InputError
from nisbjax.keys import ranges
from nisbjax.parallel import devices
from nisbjax.store.volume import from_array
from nisbjax.train import recipe, sources


@pytest.fixture
def mixed(config, root, tmp_path):
    """The tiny volume, and one of 16 bit that is its transpose in a part of itself."""
    for name, values in (
        ("em", np.full((12, 12, 14), 500) + np.arange(14) * 100),
        ("seg", np.full((12, 12, 14), 65_535)),
    ):
        if name == "seg":
            values[:, :, 3:] = (
                np.arange(1, 13)[:, None, None].repeat(12, 1).repeat(11, 2)
            )
        np.save(tmp_path / f"{name}.npy", values.astype("uint16"))
    config.data.train.sources = (
        source(
            "plain",
            image="train/seed0/data.zarr/img",
            label="train/seed0/data.zarr/seg",
        ),
        source(
            "other",
            image=f"{tmp_path}/em.npy#zyx",
            label=f"{tmp_path}/seg.npy#zyx",
            box="2:14,0:12,0:12",
            weight=3.0,
            normalize="min_max",
            unlabeled="65535",
            erosion=(0, 0, 2),
        ),
    )
    return config


def test_each_source_is_read_by_its_own_keys(mixed, caplog):
    caplog.set_level("INFO")
    ranges.check(mixed)
    recipe.open_training_data(mixed)
    assert "train: source plain: 25% of the samples, from 1 volume of 0.00173 M" in (
        caplog.text
    )
    assert "source other: 75% of the samples" in caplog.text
    rule = recipe.make_recipe(mixed).examples
    assert rule.erosion == (0, 1, 0) and rule.erosions == ((0, 0, 2),)
    mesh = devices.make_mesh((("data", 1),), jax.local_devices()[:1])
    loader = recipe.training_loader(mixed, (5, 5, 5), mesh, 4)
    batch = loader.on_host(0, list(range(4)))
    crops = [loader.draw(0, sample) for sample in range(4)]
    assert batch.erosion.tolist() == [crop.pair for crop in crops]
    # Bytes and 16 bit meet in one batch; the second is 500 + 100 x, of all x: 500 to 1800.
    assert batch.images.dtype == np.uint16
    for number, crop in enumerate(crops):
        scale = [(0, 255, 0, 1), (500, 1800, 0, 1)][crop.pair]
        assert tuple(batch.scales[number]) == scale
    (second, *_) = [i for i, crop in enumerate(crops) if crop.pair]
    x = crops[second].box.start[0] + 2  # of the whole volume
    grey = batch.images[second, :, 0, 0, 0]
    assert grey.tolist() == [500 + 100 * (x + i) for i in range(5)]
    unlabeled = batch.labels[second, :, 0, 0] == -1
    assert unlabeled.tolist() == [x + i < 3 for i in range(5)]
    # 100 draws of 4 samples: 3/4 within three deviations of sqrt(3/16/400) = .02.
    drawn = [
        loader.draw(step, sample).pair for step in range(100) for sample in range(4)
    ]
    assert abs(np.mean(drawn) - 0.75) < 0.065
    again = recipe.training_loader(mixed, (5, 5, 5), mesh, 4)
    assert [again.draw(7, i) for i in range(4)] == [loader.draw(7, i) for i in range(4)]


def test_within_a_source_volumes_are_drawn_as_data_sampling_says(config):
    def pair(voxels):
        cube = np.ones((voxels, 1, 1, 1), np.uint8)
        return Pair(from_array(cube, "xyzc"), from_array(cube[..., 0], "xyz"))

    def of(sampling, weight):
        data = config.copy_and_resolve_references().data
        data.sampling = sampling
        return sources.Source("one", data, weight)

    pairs = [[pair(3), pair(1)], [pair(1), pair(9)]]
    found = sources.shares([of("volume", 1.0), of("uniform", 3.0)], pairs)
    assert found == [[0.1875, 0.0625], [0.375, 0.375]]


@pytest.mark.parametrize(
    "value, said",
    [
        (5, r"data.train.sources is 5; wanted \(\) or sources such as"),
        (
            (("a",), ("a",)),
            r"sources is \(\('a',\), \('a',\)\); wanted .* none twice",
        ),
        (
            (("a", ("imag", "x")),),
            "sources: a has the key 'imag'; wanted one of image, lab",
        ),
        (
            (source("a", image="x"),),
            "sources: a has no label; wanted image and label of",
        ),
        (
            (source("a", image="x", label="y", weight=0.0),),
            "sources: a.weight is 0.0; wanted a finite number, more than 0",
        ),
        (
            (source("a", image="x", label="y", box="all"),),
            "sources: a.box is 'all'; wanted a box x0:x1",
        ),
    ],
)
def test_sources_that_are_none(value, said):
    with pytest.raises(InputError, match=said):
        ranges.check_flat({"data.train.sources": value})


def test_a_source_that_is_not_there(mixed):
    mixed.data.train.sources = (source("gone", image="none/img", label="none/seg"),)
    with pytest.raises(
        InputError, match="no volume matches .*none/img; check data.root"
    ):
        recipe.open_training_data(mixed)
