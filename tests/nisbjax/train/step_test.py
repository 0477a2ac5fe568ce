"""One training step of a linear network, against numpy and across devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from nisbjax.data import targets
from nisbjax.data.augment import Augmentation
from nisbjax.data.loader import Batch
from nisbjax.offsets import SHORT_RANGE
from nisbjax.parallel import devices
from nisbjax.train import losses, step

PATCH = (3, 4, 2)
CROP = (4, 5, 3)  # one voxel more on each axis: the ends of the edges
SAMPLES = 8
CHANNELS = (None, None, None, None)  # b x y z before it


def mesh_of(count):
    return Mesh(np.array(jax.devices()[:count]).reshape(count), (devices.DATA,))


def apply(params, images):
    """Every logit is a linear function of its voxel."""
    return images * params["w"][CHANNELS] + params["b"][CHANNELS]


def weights():
    return {"w": jnp.array([2.0, -1.0, 0.5]), "b": jnp.array([0.1, 0.0, -0.3])}


@pytest.fixture(scope="module")
def crops():
    """Image bytes and labels of eight crops; some voxels are background or unlabeled."""
    draw = np.random.default_rng(0)
    return Batch(
        draw.integers(0, 256, (SAMPLES, *CROP, 1), np.uint8),
        draw.choice(np.array([-1, 0, 1, 1, 2, 2], np.int32), (SAMPLES, *CROP)),
        np.array([[0, 255, 0, 1]] * SAMPLES, np.float32),
        np.arange(SAMPLES, dtype=np.int32),
        np.ones(SAMPLES, bool),
    )


def by_hand(crops, w, b):
    """Mean cross entropy over the known edges and its gradient, voxel by voxel."""
    total, known, right = 0.0, 0, 0
    gradient = {"w": np.zeros(3), "b": np.zeros(3)}
    for sample in range(len(crops.images)):
        for voxel in np.ndindex(PATCH):
            for channel, offset in enumerate(SHORT_RANGE):
                other = tuple(np.add(voxel, offset))
                ends = crops.labels[sample][voxel], crops.labels[sample][other]
                if -1 in ends or not crops.real[sample]:
                    continue
                target = float(ends[0] == ends[1] > 0)
                grey = crops.images[sample][voxel][0] / 255
                logit = w[channel] * grey + b[channel]
                total += np.log1p(np.exp(logit)) - target * logit
                error = 1 / (1 + np.exp(-logit)) - target
                gradient["w"][channel] += error * grey
                gradient["b"][channel] += error
                right += (logit > 0) == target
                known += 1
    gradient = {name: value / known for name, value in gradient.items()}
    return total / known, gradient, right / known


def recipe(**changes):
    examples = targets.ExampleRule(
        PATCH, SHORT_RANGE, augmentation=Augmentation("none")
    )
    assert examples.crop == CROP
    values = {
        "apply": apply,
        "examples": examples,
        "objective": losses.make_loss("bce", logit_clamp=0.0),
        "optimizer": optax.sgd(0.5),
        "schedule": optax.constant_schedule(0.5),
        "seed": 3,
        "ema_decay": 0.9,
        "ema_warmup": 1,
    }
    return step.Recipe(**{**values, **changes})


def on(mesh, crops, count=SAMPLES):
    return jax.device_put(
        jax.tree.map(lambda a: a[:count], crops), devices.split_batch(mesh)
    )


def start(mesh, made, params=None, precision="fp32"):
    state = step.initial_state(params or weights(), made.optimizer, precision)
    return jax.device_put(state, devices.replicated(mesh))


def host(tree):
    return jax.tree.map(np.array, tree)


@pytest.fixture(scope="module")
def one_device(crops):
    """Two plain steps on one device: the states before, between and after."""
    mesh, made = mesh_of(1), recipe()
    compiled = step.make_train_step(made, mesh)
    states, scalars = [start(mesh, made)], []
    before = [host(states[0])]
    for _ in range(2):
        state, values = compiled(states[-1], on(mesh, crops))
        states.append(state)
        before.append(host(state))
        scalars.append(host(values))
    return before, scalars


def test_loss_gradient_and_update_equal_numpy(crops, one_device):
    states, scalars = one_device
    for number in range(2):
        w, b = (np.float64(states[number].params[n]) for n in ("w", "b"))
        loss, gradient, _ = by_hand(crops, w, b)
        np.testing.assert_allclose(scalars[number]["loss"], loss, rtol=1e-5)
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        np.testing.assert_allclose(scalars[number]["grad_norm"], norm, rtol=1e-5)
        for name, value in (("w", w), ("b", b)):
            np.testing.assert_allclose(
                states[number + 1].params[name], value - 0.5 * gradient[name], rtol=1e-5
            )
        assert scalars[number]["finite"] and scalars[number]["loss_scale"] == 1
        assert scalars[number]["lr"] == 0.5 and not scalars[number]["failed"]
    assert [int(s.step) for s in states] == [0, 1, 2]
    # The first update copies (ema_warmup 1), the second mixes: 0.9 e + 0.1 p.
    first, second = states[1].params["w"], states[2].params["w"]
    np.testing.assert_array_equal(states[1].ema["w"], first)
    np.testing.assert_allclose(
        states[2].ema["w"], 0.9 * first + 0.1 * second, rtol=1e-6
    )


def test_four_devices_equal_one(crops, one_device):
    mesh, made = mesh_of(4), recipe()
    compiled = step.make_train_step(made, mesh)
    state = start(mesh, made)
    batch = on(mesh, crops)
    assert {s.data.shape[0] for s in batch.images.addressable_shards} == {2}
    for number in range(2):
        state, scalars = compiled(state, batch)
        for name, value in one_device[1][number].items():
            np.testing.assert_allclose(scalars[name], value, rtol=2e-6)
    for name, value in one_device[0][2].params.items():
        np.testing.assert_allclose(state.params[name], value, rtol=2e-6)


def test_two_micro_batches_equal_one_batch(crops, one_device):
    # A mean over known edges equals the mean of two halves only where both know as many:
    # all labels are known here.
    known = crops._replace(labels=np.abs(crops.labels))
    mesh = mesh_of(2)
    results = []
    for accumulate in (1, 2):
        made = recipe(accumulate=accumulate)
        compiled = step.make_train_step(made, mesh)
        state, scalars = compiled(start(mesh, made), on(mesh, known))
        results.append((host(state.params), scalars["loss"], scalars["grad_norm"]))
    for one, two in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-6)


def test_a_step_that_overflows_leaves_the_state(crops):
    mesh = mesh_of(1)
    made = recipe(optimizer=optax.adam(0.1), scaled=True)
    compiled = step.make_train_step(made, mesh)
    huge = {"w": jnp.full(3, 3e38), "b": jnp.full(3, 3e38)}
    state = start(mesh, made, huge, "fp16")
    before = host(state)
    state, scalars = compiled(state, on(mesh, crops))
    assert not scalars["finite"] and scalars["loss_scale"] == 65536
    for part in ("params", "ema", "optimizer"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(before, part), getattr(state, part)
        )
    assert (
        state.step == 1 and state.scale.scale == 32768 and state.scale.good_steps == 0
    )
    assert not scalars["failed"] and not state.failed
    # And a good step with a scale is the step without one: gradients are divided again.
    scaled, _ = compiled(start(mesh, made, precision="fp16"), on(mesh, crops))
    plain, _ = compiled(start(mesh, made, precision="fp32"), on(mesh, crops))
    assert scaled.scale.scale == 65536 and scaled.scale.good_steps == 1
    for a, b in zip(*map(jax.tree.leaves, (scaled.params, plain.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_step_that_failed_stays_where_it_failed(crops):
    """Without a loss scale at once, with one when it is below 1."""
    mesh = mesh_of(1)
    huge = {"w": jnp.full(3, 3e38), "b": jnp.full(3, 3e38)}
    for precision, scale in (("fp32", 1.0), ("fp16", 0.5)):
        scaled = precision == "fp16"
        made = recipe(optimizer=optax.adam(0.1), scaled=scaled)
        compiled = step.make_train_step(made, mesh)
        state = start(mesh, made, huge, precision)
        state = state._replace(scale=state.scale._replace(scale=jnp.float32(scale)))
        state = jax.device_put(state, devices.replicated(mesh))
        before = host(state)
        state, scalars = compiled(state, on(mesh, crops))
        assert scalars["failed"] and state.failed and not scalars["finite"]
        # A good batch changes nothing any more: here, weights that would give finite loss.
        state = state._replace(params=host(weights()), ema=host(weights()))
        state = jax.device_put(state, devices.replicated(mesh))
        state, scalars = compiled(state, on(mesh, crops))
        assert scalars["failed"] and scalars["finite"]
        for a, b in zip(
            jax.tree.leaves((state.params, state.step, state.scale, state.optimizer)),
            jax.tree.leaves((weights(), before.step, before.scale, before.optimizer)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_augmented_steps_cross_to_the_host_nowhere(crops):
    mesh = mesh_of(4)
    examples = targets.ExampleRule(PATCH, SHORT_RANGE, erosion=(0, 1, 1))
    made = recipe(examples=examples, optimizer=optax.adam(0.1))
    compiled = step.make_train_step(made, mesh)
    batch = on(mesh, crops)
    state = start(mesh, made)
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, scalars = compiled(state, batch)
    assert scalars["finite"] and state.step == 2


def test_validation_counts_real_samples_alone(crops, strict_promotion):
    mesh = mesh_of(4)
    half = crops._replace(real=np.arange(SAMPLES) < 5)
    evaluate = step.make_validation_step(recipe(), mesh)
    params = jax.device_put(weights(), devices.replicated(mesh))
    batch = on(mesh, half)
    with jax.transfer_guard("disallow"):
        scalars, view = evaluate(params, batch)
    loss, _, accuracy = by_hand(half, *(np.float64(weights()[n]) for n in ("w", "b")))
    np.testing.assert_allclose(scalars["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(scalars["accuracy"], accuracy, rtol=1e-6)
    # The view: planes z = 1, y = 2, x = 1 of the first crop of a patch of 3 x 4 x 2.
    grey = crops.images[0] / np.float32(255)
    for plane, want in zip(
        view.images, (grey[:3, :4, 1], grey[:3, 2, :2], grey[1, :4, :2]), strict=True
    ):
        np.testing.assert_allclose(plane, want, rtol=1e-6)
    logit = grey[:3, :4, 1] * np.array(weights()["w"]) + np.array(weights()["b"])
    np.testing.assert_allclose(view.predictions[0], 1 / (1 + np.exp(-logit)), rtol=1e-5)
    assert view.targets[2].shape == view.valid[2].shape == (4, 2, 3)
