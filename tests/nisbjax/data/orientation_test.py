"""Labels across their image are seen by their borders, and in what a start says it read."""

import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.data import description, orientation
from nisbjax.data.nisb import Pair
from nisbjax.store.volume import from_array
from nisbjax.train import recipe


def blocks(shape, side):
    """Labels in bricks of side x 7 x 11, and dark walls between them."""
    x, y, z = np.indices(shape)
    parts = [x // side, y // 7, z // 11]
    labels = (1 + parts[0] + 50 * parts[1] + 2500 * parts[2]).astype(np.uint32)
    image = np.full(shape, 200, np.uint8)
    for axis in range(3):
        walls = np.moveaxis(image, axis, 0)
        turned = np.moveaxis(labels, axis, 0)
        walls[1:][turned[1:] != turned[:-1]] = 60
    noise = np.random.default_rng(0).integers(-20, 20, shape)
    return (image + noise).astype(np.uint8), labels


def pair(image, labels):
    return Pair(
        from_array(image[..., None], "xyzc", source="em.h5"),
        from_array(np.ascontiguousarray(labels), "xyz", source="labels.h5"),
    )


def test_the_order_that_fits_is_found():
    image, labels = blocks((36, 36, 36), 5)
    assert orientation.warn(pair(image, labels)) == ""
    found = orientation.contrasts(pair(image, labels))
    assert len(found) == 6 and max(found, key=found.get) == "xyz"
    for letters in ("zyx", "yzx", "zxy", "xzy", "yxz"):
        stored = labels.transpose(["xyz".index(a) for a in letters])
        said = orientation.warn(pair(image, stored))
        assert f"taken as {' '.join(letters)} (contrast" in said


def test_only_orders_of_the_images_shape_are_asked():
    """20 x 36 x 36: y and z may be exchanged, x may not."""
    image, labels = blocks((20, 36, 36), 5)
    assert sorted(orientation.contrasts(pair(image, labels))) == ["xyz", "xzy"]


@pytest.mark.parametrize("label", [0, 7])
def test_labels_without_a_border_say_nothing(label):
    image, _ = blocks((20, 20, 20), 5)
    assert orientation.warn(pair(image, np.full((20, 20, 20), label, np.uint8))) == ""


def test_real_tissue_in_its_own_order(shared_data):
    """FIB-25's block is 170 x 250 x 170, so z y x has its shape too."""
    from nisbjax.store.volume import open_image, open_labels

    folder = shared_data / "fib25" / "train" / "seed0" / "data.zarr"
    image, labels = open_image(folder / "img"), open_labels(folder / "seg")
    assert orientation.warn(Pair(image, labels)) == ""
    turned = from_array(np.ascontiguousarray(labels.read().T), "xyz")
    assert "taken as z y x" in orientation.warn(Pair(image, turned))


def test_a_pair_in_two_lines():
    """20 voxels of 40 are background, 4 unlabeled; three crops are the whole thrice."""
    image = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    labels = np.repeat(np.array([0, 7, 8, -1], np.int64), [20, 8, 8, 4])
    volumes = pair(image, labels.reshape(2, 4, 5))
    volumes.image.attributes["voxel_size_nm"] = [9, 9, 12.5]
    order = "no word for its axes, taken as x y z"
    image_line, label_line = description.lines(volumes, "default")
    assert (image_line, label_line) == (
        (f"em.h5\nuint8 2 x 4 x 5, {order}, 9 x 9 x 12.5 nm, grey 0 to 39"),
        (
            f"labels.h5\nint64 2 x 4 x 5, {order}\n"
            "2 labels, 50% background, 10% unlabeled in 3 crops"
        ),
    )


def test_a_start_says_what_it_read_and_warns_whatever_the_box(tmp_path, caplog):
    """Labels stored z y x beside an image x y z; training takes a third of them."""
    image, labels = blocks((36, 36, 36), 5)
    np.save(tmp_path / "em.npy", image)
    np.save(tmp_path / "labels.npy", np.ascontiguousarray(labels.T))
    config = base_config()
    config.data.root = str(tmp_path)
    config.data.train.image, config.data.train.label = "em.npy", "labels.npy"
    config.data.train.box = "0:12,0:36,0:36"
    config.train.val_every = 0
    caplog.set_level("INFO")
    recipe.open_training_data(config)
    assert "labels taken as z y x" in caplog.text
    assert "em.npy [0:12,0:36,0:36]\nuint8 12 x 36 x 36, " in caplog.text
    caplog.clear()
    config.data.train.label = "labels.npy#zyx"
    recipe.open_training_data(config)
    assert "taken as" not in caplog.text.replace("axes, taken as x y z", "")
    assert "labels.npy#zyx [0:12,0:36,0:36]\n" in caplog.text
