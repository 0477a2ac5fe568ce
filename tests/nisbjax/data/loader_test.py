"""Crops as functions of (seed, step, sample), whatever reads them and wherever they go."""

import time

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from nisbjax.data.loader import Batch, Loader
from nisbjax.data.nisb import Pair
from nisbjax.errors import InputError
from nisbjax.store.volume import from_array

SHAPE = (7, 6, 5)


def pair(seed=0, shape=SHAPE, labels=None, name="cube"):
    """Every voxel of the image says where it is; labels have no background."""
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(*shape, 1)
    if labels is None:
        labels = np.random.default_rng(seed).integers(1, 9, shape).astype(np.uint16)
    return Pair(
        from_array(image, "xyzc", source=f"{name}/img"),
        from_array(labels, "xyz", source=f"{name}/seg"),
    )


def loader(pairs=None, crop=(3, 3, 3), **options):
    return Loader(pairs or [pair()], crop, **{"seed": 1, "global_batch": 4, **options})


def same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


def test_image_and_labels_come_from_the_box_that_was_drawn():
    pairs = [pair(0), pair(1)]
    batches = loader(pairs)
    batch = batches.batch(5)
    assert batch.images.shape == (4, 3, 3, 3, 1) and batch.images.dtype == np.uint8
    assert batch.labels.dtype == np.int32
    for sample in range(4):
        crop = batches.draw(5, sample)
        image, labels = (v.read(crop.box) for v in pairs[crop.pair][:2])
        np.testing.assert_array_equal(batch.images[sample], image)
        np.testing.assert_array_equal(batch.labels[sample], labels)
    assert batch.samples.tolist() == [0, 1, 2, 3]
    assert batch.scales.tolist() == [[0, 255, 0, 1]] * 4
    assert batches.describe(5)[2] == f"cube/img {batches.draw(5, 2).box}"


def test_threads_restarts_and_batch_order_change_nothing():
    want = [loader().batch(step) for step in range(3)]
    for threads in (1, 3):
        got = list(loader(threads=threads).batches(0, 3))
        for a, b in zip(got, want, strict=True):
            same(a, b)
    resumed = loader().batches(first=2)
    same(next(resumed), want[2])
    assert not np.array_equal(want[0].images, want[1].images)


@pytest.mark.parametrize(
    ("threads", "prefetch", "ahead"), [(1, 3, 3), (3, 1, 3), (0, 2, 0), (2, 0, 0)]
)
def test_as_many_batches_are_ahead_as_threads_read(
    threads, prefetch, ahead, monkeypatch
):
    """Of the first batch and those ahead nothing more is read until one is taken."""
    batches, read = loader(threads=threads, prefetch=prefetch), []
    monkeypatch.setattr(batches, "batch", lambda step: read.append(step) or step)
    taken = batches.batches()
    next(taken)
    wanted = list(range(1 + ahead))
    for _ in range(100):
        time.sleep(0.01)
        if sorted(read) == wanted:
            break
    time.sleep(0.02)
    assert sorted(read) == wanted


def test_devices_get_their_own_samples():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    split = loader(sharding=sharding).batch(1)
    same(split, loader().batch(1))
    assert split.labels.sharding == sharding
    assert {s.data.shape for s in split.images.addressable_shards} == {(1, 3, 3, 3, 1)}


class Host(jax.sharding.Sharding):
    """The sharding that one of several hosts sees: of all devices it addresses its own."""

    def __init__(self, mesh, devices):
        self._whole = NamedSharding(mesh, PartitionSpec("data"))
        self._devices = devices

    def addressable_devices_indices_map(self, shape):
        every = self._whole.devices_indices_map(shape)
        return {device: every[device] for device in self._devices}


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("space", [1, 2])
def test_hosts_share_out_what_one_would_read(hosts, space, monkeypatch):
    """Each sample is read by one host, or by each host that holds a part of it."""
    shape = (4 // space, space)
    mesh = jax.make_mesh(shape, ("data", "space"), axis_types=(AxisType.Auto,) * 2)
    every = mesh.devices.ravel()
    share = len(every) // hosts

    def read_by(sharding):
        batches, seen = loader(global_batch=8, sharding=sharding), {}
        nowhere = Batch(*5 * [None])
        monkeypatch.setattr(batches, "_put", lambda rows: seen.update(rows) or nowhere)
        batches.batch(3)
        return seen

    alone = read_by(None)
    assert list(alone) == list(range(8))
    found = [
        read_by(Host(mesh, every[i : i + share])) for i in range(0, len(every), share)
    ]
    for rows in found:
        for sample, row in rows.items():
            same(row, alone[sample])
    together = [sample for rows in found for sample in rows]
    copies = max(1, space // share)  # hosts among which one crop is split
    assert sorted(together) == sorted(list(range(8)) * copies)
    if copies == 1:
        assert together == list(range(8))


def test_every_position_and_volume_is_drawn_alike():
    batches = loader([pair(0), pair(1)], crop=(5, 6, 4), global_batch=1)
    starts = [batches.draw(step, 0) for step in range(600)]
    places, counts = np.unique(
        [(c.pair, *c.box.start) for c in starts], axis=0, return_counts=True
    )
    # 2 volumes x 3 x 1 x 2 starts (7 - 5 + 1, 6 - 6 + 1, 5 - 4 + 1).
    assert len(places) == 12
    # chi-squared with 11 degrees of freedom: mean 11, sd 4.7.
    assert ((counts - 50) ** 2 / 50).sum() < 11 + 4 * 4.7


def test_volumes_in_proportion_to_their_size():
    # 7 * 6 * 5 = 210 and 7 * 6 * 15 = 630 voxels: a quarter and three.
    pairs = [pair(0), pair(1, (7, 6, 15))]
    batches = loader(pairs, global_batch=1, sampling="volume")
    first = [batches.draw(step, 0).pair == 0 for step in range(1000)]
    # Binomial: sd sqrt(1/4 * 3/4 / 1000) = 0.0137.
    assert abs(np.mean(first) - 0.25) < 4 * 0.0137
    alike = loader(pairs, global_batch=1)
    first = [alike.draw(step, 0).pair == 0 for step in range(1000)]
    assert abs(np.mean(first) - 0.5) < 4 * 0.0158
    with pytest.raises(
        InputError, match="data.sampling is 'size'; wanted one of uniform, volume"
    ):
        loader(pairs, sampling="size")


def test_the_whole_batch_on_the_host_is_what_the_devices_got():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    batches = loader(sharding=sharding, relabel=True)
    on_host = batches.on_host(2)
    same(on_host, batches.batch(2))
    assert all(type(field) is np.ndarray for field in on_host if field is not None)


def test_validation_is_a_fixed_list_whatever_the_batch():
    six = loader(count=6, global_batch=4)
    assert six.steps == 2
    batches = list(six.batches())
    assert [b.real.tolist() for b in batches] == [
        [True] * 4,
        [True, True, False, False],
    ]
    ones = [loader(count=6, global_batch=1).batch(i) for i in range(6)]
    images = np.concatenate([b.images for b in batches])[:6]
    np.testing.assert_array_equal(images, np.concatenate([b.images for b in ones]))
    same(batches[0], next(iter(loader(count=6).batches())))


def test_a_volume_smaller_than_the_crop_is_extended():
    row = np.arange(1, 5, dtype=np.uint8).reshape(4, 1, 1)
    small = Pair(from_array(row[..., None], "xyzc"), from_array(row, "xyz"))
    batch = loader([small], crop=(7, 1, 1), global_batch=1).batch(0)
    # 7 - 4 = 3 voxels are missing: 2 before, 1 behind. Reflection about the outer centres.
    assert batch.images.ravel().tolist() == [3, 2, 1, 2, 3, 4, 3]
    assert batch.labels.ravel().tolist() == [-1, -1, 1, 2, 3, 4, -1]


def test_a_crop_without_an_object_is_drawn_again():
    labels = np.zeros(SHAPE, np.uint16)
    labels[:4] = 6
    batches = loader([pair(labels=labels)], crop=(2, 2, 2), global_batch=1)
    for step in range(30):
        assert (batches.batch(step).labels > 0).any()
    # Starts 4 and 5 of 0..5 hold background alone: a third of the first draws.
    again = [s for s in range(30) if batches.draw(s, 0).box.start[0] > 3]
    assert again
    crop = batches.describe(again[0])[0]
    assert str(batches.draw(again[0], 0).box) not in crop


@pytest.mark.parametrize("value", [0, -1])
def test_nothing_but_background_is_refused(value):
    labels = np.full(SHAPE, value, np.int32)
    message = (
        r"cube/seg: 32 crops of shape \(3, 3, 3\) hold no labeled object \(all backg"
    )
    with pytest.raises(InputError, match=message):
        loader([pair(labels=labels)]).batch(0)
    with pytest.raises(InputError, match=message):  # out of the reading threads, too
        next(loader([pair(labels=labels)]).batches())


def test_relabelling_splits_what_the_crop_cut_apart():
    labels = np.zeros((3, 3, 3), np.uint16)
    labels[:, 0, 0] = labels[:, 2, 0] = 9
    cut = (
        loader([pair(shape=(3, 3, 3), labels=labels)], relabel=True).batch(0).labels[0]
    )
    assert cut[:, 0, 0].tolist() == [1, 1, 1] and cut[:, 2, 0].tolist() == [2, 2, 2]


def test_beyond_labels_of_a_part_the_image_is_read_and_a_mask_hides_labels():
    # Labels 2^3 begin at voxel (3, 2, 1) of 7 x 6 x 5; a crop of 4^3 lies around their middle.
    cube = pair()
    part = Pair(
        cube.image,
        from_array(np.full((2, 2, 2), 9, np.uint8), "xyz", source="part"),
        offset=(3, 2, 1),
        mask=from_array(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), "xyz"),
    )
    batches = loader([part], (4, 4, 4), global_batch=1)
    batch = batches.on_host(0)
    whole = cube.image.read()
    np.testing.assert_array_equal(batch.images[0], whole[2:6, 1:5, 0:4])
    want = np.full((4, 4, 4), -1)
    want[1:3, 1:3, 1:3] = 9
    want[1, 1, 1] = -1  # the mask's only 0
    np.testing.assert_array_equal(batch.labels[0], want)
    assert batches.describe(0) == ["cube/img 2:6,1:5,0:4"]
    # Of a larger crop, x ends where the image does: 1 voxel before it, 6 of 7 and so on.
    wide = loader([part], (8, 4, 4), global_batch=1).on_host(0)
    np.testing.assert_array_equal(
        wide.images[0],
        np.pad(whole[:, 1:5, 0:4], [(0, 1), (0, 0), (0, 0), (0, 0)], "reflect"),
    )


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.uint64])
def test_large_ids_stay_distinct(dtype):
    labels = np.zeros((2, 2, 2), dtype)
    labels.flat[:4] = [2**31 + 1, 2**31 + 2, 5, 2**31 + 1]
    got = np.asarray(
        loader([pair(shape=(2, 2, 2), labels=labels)], (2, 2, 2)).batch(0).labels
    )
    first, second, third, again, *rest = got[0].ravel().tolist()
    assert first == again and len({first, second, third}) == 3
    assert min(first, second, third) > 0 and rest == [0] * 4


def test_no_volume_is_refused():
    with pytest.raises(
        InputError, match="no volume to draw crops from; check data.root"
    ):
        Loader([], (2, 2, 2), seed=0, global_batch=1)


@pytest.mark.parametrize("relabel", [False, True])
@pytest.mark.parametrize(
    ("dtype", "code"),
    [("i4", -2), ("i8", -(2**40)), ("u8", 2**64 - 3), ("u4", 2**32 - 1)],
)
def test_unlabeled_codes_are_not_supervised(dtype, code, relabel):
    # Object 5 in x < 4, the code in x 4 and 5, background behind.
    labels = np.zeros((8, 8, 8), dtype)
    labels[:4], labels[4:6] = 5, code
    options = {"crop": (8, 8, 8), "global_batch": 1, "relabel": relabel}
    batch = loader([pair(shape=(8, 8, 8), labels=labels)], **options).on_host(0)
    assert (batch.labels[0, 4:6] == -1).all()
    assert (batch.labels[0, :4] > 0).all() and not batch.labels[0, 6:].any()


def test_named_codes_are_not_supervised():
    labels = np.full((3, 3, 3), 7, np.uint16)
    labels[0], labels[1] = 65535, 0
    cube = pair(shape=(3, 3, 3), labels=labels)
    batch = loader([cube._replace(unlabeled="65535,0")], global_batch=1).on_host(0)
    assert batch.labels[0, :, 0, 0].tolist() == [-1, -1, 7]
    with pytest.raises(InputError, match="data.unlabeled is 'no'"):
        loader([cube._replace(unlabeled="no")])
