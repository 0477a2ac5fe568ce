"""Examples: the composition by hand, and the same arrays on one device and on four."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from nisbjax.data.affinities import affinity_targets
from nisbjax.data.augment import Augmentation, augment, sample_keys
from nisbjax.data.calibre import calibre_weights
from nisbjax.data.labels import erode
from nisbjax.data.loader import Batch
from nisbjax.data.targets import ExampleRule, examples, view

TWO = ((0, 0, 1), (0, 0, 2))
OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 3))
RULE = ExampleRule(
    patch=(4, 4, 4),
    offsets=OFFSETS,
    erosion=(0, 1, 1),
    augmentation=Augmentation(drop=0.0, shift=0.0, intensity=0.0),
)


def crops(rule, batch=4):
    draw = np.random.default_rng(0)
    blocks = draw.integers(-1, 3, (batch, 3, 3, 3), np.int32)
    labels = blocks.repeat(3, 1).repeat(3, 2).repeat(3, 3)
    x, y, z = rule.crop
    images = draw.integers(0, 256, (batch, x, y, z, 1), np.uint8)
    real = np.arange(batch) != batch - 1
    scales = np.tile(np.float32([[0, 255, 0, 1]]), (batch, 1))
    samples = np.arange(batch, dtype=np.int32)
    return Batch(images, labels[:, :x, :y, :z], scales, samples, real)


@functools.partial(jax.jit, static_argnames=("rule", "training", "mesh"))
def made(batch, step, rule, training=True, mesh=None):
    return examples(batch, rule, seed=3, step=step, training=training, mesh=mesh)


def test_long_edges_may_have_an_erosion_of_their_own():
    # Along z: 1 1 1 1 2 2 2 2 0 0. Eroded by one voxel, both objects lose one where they
    # meet; the edges to the next voxel see that, those of two steps see the whole objects.
    line = np.array([1, 1, 1, 1, 2, 2, 2, 2, 0, 0], np.int32).reshape(1, 1, 1, 10)
    rule = ExampleRule((1, 1, 8), TWO, erosion=(0, 0, 1), long_erosion=(0, 0, 0))
    batch = Batch(
        np.zeros((1, 1, 1, 10, 1), np.uint8),
        line,
        np.float32([[0, 255, 0, 1]]),
        np.zeros(1, np.int32),
        np.ones(1, bool),
    )
    got = made(jax.device_put(batch), jnp.uint32(0), rule, training=False)
    assert got.labels.ravel().tolist() == [1, 1, 1, 0, 0, 2, 2, 2]
    short, long = np.moveaxis(np.asarray(got.targets), -1, 0)
    assert short.ravel().astype(int).tolist() == [1, 1, 0, 0, 0, 1, 1, 0]
    assert long.ravel().astype(int).tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert got.valid.all()
    same = dataclasses.replace(rule, long_erosion=None)
    got = made(jax.device_put(batch), jnp.uint32(0), same, training=False)
    assert got.targets[..., 1].ravel().astype(int).tolist() == [1, 0, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("stored_at, first", [("source", 0), ("destination", 1)])
def test_validation_examples_are_the_steps_in_order(stored_at, first):
    rule = ExampleRule((4, 4, 4), OFFSETS, stored_at=stored_at, erosion=(0, 1, 1))
    assert rule.crop == (5, 5, 7)  # 4 + 1, 4 + 1, 4 + 3
    batch = crops(rule)
    got = made(jax.device_put(batch), jnp.uint32(0), rule, training=False)
    labels = erode(jnp.asarray(batch.labels), (0, 1, 1))
    targets, valid = affinity_targets(labels, OFFSETS, stored_at=stored_at)
    patch = np.s_[:, :4, :4, :4] if first == 0 else np.s_[:, 1:, 1:, 3:]
    np.testing.assert_allclose(got.images, batch.images[patch] / 255, rtol=1e-6)
    np.testing.assert_array_equal(got.labels, labels[patch])
    np.testing.assert_array_equal(got.targets, targets[patch])
    np.testing.assert_array_equal(got.valid[:-1], valid[patch][:-1])
    assert not got.valid[-1].any()  # a sample that only pads
    known = (np.asarray(labels) != -1).all((1, 2, 3))
    assert np.asarray(got.valid)[:-1][known[:-1]].all()


def test_training_examples_are_augmented_before_the_labels_are_eroded():
    batch = crops(RULE)
    got = made(jax.device_put(batch), jnp.uint32(7), RULE)
    keys = sample_keys(3, 7, jnp.arange(4))
    one = jax.jit(augment, static_argnames="options")
    for sample in range(3):
        image = jnp.asarray(batch.images[sample], jnp.float32) / 255
        image, labels = one(
            keys[sample], image, jnp.asarray(batch.labels[sample]), RULE.augmentation
        )
        np.testing.assert_allclose(got.images[sample], image[:4, :4, :4], atol=1e-5)
        labels = erode(labels[None], RULE.erosion)
        targets, valid = affinity_targets(labels, OFFSETS)
        np.testing.assert_array_equal(got.targets[sample], targets[0, :4, :4, :4])
        np.testing.assert_array_equal(got.valid[sample], valid[0, :4, :4, :4])


def test_a_sample_is_the_same_array_on_one_device_and_on_four():
    batch = crops(RULE)
    alone = made(jax.device_put(batch), jnp.uint32(1), RULE)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    step = jax.device_put(np.uint32(1), whole)
    shared = jax.device_put(batch, rows)
    with jax.transfer_guard("disallow"):
        split = made(shared, step, RULE, mesh=mesh)
    assert alone.weights is None
    for a, b in zip(alone[:4], split[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert split.targets.sharding.spec[0] == "data"
    program = made.lower(shared, step, RULE, mesh=mesh).compile().as_text()
    for collective in ("all-gather", "all-reduce", "collective-permute", "all-to-all"):
        assert collective not in program


def test_steps_differ_and_repeat():
    batch = jax.device_put(crops(RULE))
    first, again, next_step = (made(batch, jnp.uint32(s), RULE) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, next_step.images)


def test_the_rules_of_precision_hold(strict_promotion):
    got = made(jax.device_put(crops(RULE)), jnp.uint32(0), RULE, training=False)
    assert got.images.dtype == jnp.float32 and got.targets.dtype == jnp.bool_


def test_calibre_weights_are_cut_like_the_targets_they_weigh():
    rule = ExampleRule((4, 4, 4), OFFSETS, calibre_max=3.0)
    batch = crops(rule)
    got = made(jax.device_put(batch), jnp.uint32(0), rule, training=False)
    labels = jnp.asarray(batch.labels)
    targets, _ = affinity_targets(labels, OFFSETS)
    weights = calibre_weights(labels, targets, largest=3.0)[:, :4, :4, :4]
    np.testing.assert_allclose(got.weights, weights, rtol=1e-6)
    assert float(weights.max()) > 1.0


def test_samples_of_other_volumes_may_have_another_erosion():
    # Along z 1 1 1 1 2 2 2 2: radius 1 takes one voxel on either side, radius 2 two.
    line = np.array([1, 1, 1, 1, 2, 2, 2, 2, 0, 0], np.int32)
    rule = ExampleRule((1, 1, 8), TWO, erosion=(0, 0, 1), erosions=((0, 0, 2),))
    batch = Batch(
        np.zeros((2, 1, 1, 10, 1), np.uint8),
        np.stack([line, line]).reshape(2, 1, 1, 10),
        np.float32([[0, 255, 0, 1]] * 2),
        np.arange(2, dtype=np.int32),
        np.ones(2, bool),
        np.int32([1, 0]),
    )
    got = made(jax.device_put(batch), jnp.uint32(0), rule, training=False)
    assert got.labels[0].ravel().tolist() == [1, 1, 0, 0, 0, 0, 2, 2]
    assert got.labels[1].ravel().tolist() == [1, 1, 1, 0, 0, 2, 2, 2]


def test_a_view_is_an_example_with_its_labels_before_erosion():
    # Along z: 1 1 1 1 2 2 2 2 0 0, eroded by one voxel where they meet.
    line = np.array([1, 1, 1, 1, 2, 2, 2, 2, 0, 0], np.int32).reshape(1, 1, 1, 10)
    plain = Augmentation(profile="none")
    rule = ExampleRule((1, 1, 8), TWO, erosion=(0, 0, 1), augmentation=plain)
    images = np.arange(10, dtype=np.uint8).reshape(1, 1, 1, 10, 1)
    scales, samples = np.float32([[0, 255, 0, 1]]), np.zeros(1, np.int32)
    batch = jax.device_put(Batch(images, line, scales, samples, np.ones(1, bool)))
    seen = view(batch, rule, seed=3, step=0)
    wanted = examples(batch, rule, seed=3, step=0, training=True)
    assert seen.labels.ravel().tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert seen.eroded.ravel().tolist() == [1, 1, 1, 0, 0, 2, 2, 2]
    for ours, theirs in (
        (seen.eroded, wanted.labels),
        (seen.images, wanted.images),
        (seen.targets, wanted.targets),
        (seen.valid, wanted.valid),
    ):
        np.testing.assert_array_equal(ours, theirs)
