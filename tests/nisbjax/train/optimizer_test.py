"""AdamW, its decay groups, schedule and clip, against torch's formula in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nisbjax.errors import InputError
from nisbjax.train.optimizer import (
    adamw,
    is_norm,
    learning_rate,
    restarted,
    updates_done,
)

DEFAULTS = {
    "weight_decay": 0.01,
    "norm_weight_decay": 0.0,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "clip": 0.0,
}


def test_cosine_from_the_top_to_nothing():
    rate = learning_rate("cosine", lr=1e-3, steps=200_000)
    # (1 + cos 0) / 2 = 1, (1 + cos pi/2) / 2 = 1/2, (1 + cos pi) / 2 = 0.
    np.testing.assert_allclose(rate(0), 1e-3, rtol=1e-6)
    np.testing.assert_allclose(rate(100_000), 5e-4, rtol=1e-6)
    np.testing.assert_allclose(rate(200_000), 0.0, atol=1e-10)
    # A quarter: (1 + sqrt(1/2)) / 2 = 0.853553.
    np.testing.assert_allclose(rate(50_000), 0.853553e-3, rtol=1e-5)


def test_cosine_between_a_warm_up_and_a_floor():
    rate = learning_rate("cosine", lr=1e-2, steps=110, min_lr=1e-3, warmup_steps=10)
    # From lr / 10 by equal steps to lr at step 10, then 100 steps of cosine to the floor.
    np.testing.assert_allclose(rate(0), 1e-3, rtol=1e-6)
    np.testing.assert_allclose(rate(5), 1e-3 + 0.5 * 9e-3, rtol=1e-6)
    np.testing.assert_allclose(rate(10), 1e-2, rtol=1e-6)
    np.testing.assert_allclose(rate(60), (1e-2 + 1e-3) / 2, rtol=1e-6)
    np.testing.assert_allclose(rate(110), 1e-3, rtol=1e-6)
    np.testing.assert_allclose(rate(500), 1e-3, rtol=1e-6)


def test_constant_and_unknown_schedules():
    assert learning_rate("constant", lr=3e-4, steps=10)(7) == 3e-4
    with pytest.raises(
        InputError, match="schedule.kind is 'linear'; wanted one of cosine, constant"
    ):
        learning_rate("linear", lr=1.0, steps=1)


PARAMS = {
    "conv1": {"weight": np.array([0.5, -2.0, 3.0]), "bias": np.array([1.0])},
    "norm": {"weight": np.array([1.5]), "bias": np.array([-0.5])},
}
# A gradient for each of three steps; one entry changes sign, one vanishes.
GRADIENTS = [
    {
        "conv1": {"weight": np.array([0.1, -1.0, 0.0]), "bias": np.array([4.0])},
        "norm": {"weight": np.array([2.0]), "bias": np.array([-3.0])},
    },
    {
        "conv1": {"weight": np.array([-0.2, 0.5, 1e-3]), "bias": np.array([0.5])},
        "norm": {"weight": np.array([-1.0]), "bias": np.array([0.25])},
    },
    {
        "conv1": {"weight": np.array([0.0, 2.0, -1.0]), "bias": np.array([-1.0])},
        "norm": {"weight": np.array([0.125]), "bias": np.array([1.0])},
    },
]


def by_hand(steps, rate, decays, clip=0.0):
    """torch's AdamW: p -= lr wd p; then p -= lr m_hat / (sqrt(v_hat) + eps)."""
    leaves = {
        (layer, name): value.copy()
        for layer, parts in PARAMS.items()
        for name, value in parts.items()
    }
    m = {key: 0 * value for key, value in leaves.items()}
    v = {key: 0 * value for key, value in leaves.items()}
    for t, gradient in enumerate(GRADIENTS[:steps], 1):
        flat = {key: gradient[key[0]][key[1]] for key in leaves}
        norm = math.sqrt(sum((g**2).sum() for g in flat.values()))
        factor = min(1.0, clip / norm) if clip else 1.0
        for key, p in leaves.items():
            g = flat[key] * factor
            lr = rate(t - 1)
            p *= 1 - lr * decays[key[0]]
            m[key] = 0.9 * m[key] + 0.1 * g
            v[key] = 0.999 * v[key] + 0.001 * g**2
            m_hat, v_hat = m[key] / (1 - 0.9**t), v[key] / (1 - 0.999**t)
            p -= lr * m_hat / (np.sqrt(v_hat) + 1e-8)
    return leaves


def by_optax(steps, rate, dtype="float64", **options):
    transform = adamw(rate, **{**DEFAULTS, **options})
    with jax.enable_x64(dtype == "float64"):
        params = jax.tree.map(lambda p: jnp.asarray(p, dtype), PARAMS)
        state = transform.init(params)
        for gradient in GRADIENTS[:steps]:
            gradient = jax.tree.map(lambda g: jnp.asarray(g, dtype), gradient)
            updates, state = transform.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
    return {(a, b): p for a, parts in params.items() for b, p in parts.items()}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    "options, decays",
    [
        ({}, {"conv1": 0.01, "norm": 0.0}),  # PyTC: biases decay, norms do not
        ({"norm_weight_decay": 0.01}, {"conv1": 0.01, "norm": 0.01}),  # BANIS
        (
            {"weight_decay": 0.5, "norm_weight_decay": 0.25},
            {"conv1": 0.5, "norm": 0.25},
        ),
    ],
)
def test_steps_equal_the_formula(steps, options, decays):
    rate = learning_rate("cosine", lr=0.1, steps=8)
    got = by_optax(steps, rate, **options)
    single = by_optax(steps, rate, "float32", **options)
    cosine = lambda t: 0.1 * (1 + math.cos(math.pi * t / 8)) / 2
    for key, wanted in by_hand(steps, cosine, decays).items():
        # The rate itself is a float32 in optax.
        np.testing.assert_allclose(got[key], wanted, rtol=1e-6)
        # 1 - 0.999 in float32 is off by 5e-5 of itself, its root by half of that.
        np.testing.assert_allclose(single[key], wanted, rtol=1e-5, atol=3e-6)


def test_one_number_by_hand():
    # Step 1: m_hat = g, v_hat = g^2, so the update is lr sign(g) but for eps, after the
    # decay 2 * (1 - 0.1 * 0.01): -2 * 0.999 + 0.1 = -1.898.
    got = by_optax(1, lambda _: 0.1)[("conv1", "weight")]
    np.testing.assert_allclose(got, [0.4995 - 0.1, -1.898, 2.997], rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm():
    rate = lambda _: 0.1
    no_decay = {"conv1": 0.0, "norm": 0.0}
    for clip in (1.0, 100.0):
        got = by_optax(3, rate, clip=clip, weight_decay=0.0)
        for key, wanted in by_hand(3, rate, no_decay, clip).items():
            np.testing.assert_allclose(got[key], wanted, rtol=1e-9)
    # Adam forgets the scale of a single step, so the moments themselves are looked at:
    # a gradient (3, 4) of norm 5 is clipped to (0.6, 0.8); m = 0.1 of that.
    transform = adamw(rate, **{**DEFAULTS, "clip": 1.0})
    params = {"conv1": jnp.zeros(2)}
    _, state = transform.update(
        {"conv1": jnp.array([3.0, 4.0])}, transform.init(params), params
    )
    moments = [s.mu for s in state if isinstance(s, optax.ScaleByAdamState)]
    np.testing.assert_allclose(moments[0]["conv1"], [0.06, 0.08], rtol=1e-6)


def test_norms_are_found_by_their_layers_name():
    tree = {
        "enc_block_0": {"norm": {"weight": 0, "bias": 0}, "conv1": {"bias": 0}},
        "normal": {"weight": 0},
    }
    found = jax.tree_util.tree_map_with_path(lambda path, _: is_norm(path), tree)
    assert found == {
        "enc_block_0": {
            "norm": {"weight": True, "bias": True},
            "conv1": {"bias": False},
        },
        "normal": {"weight": False},
    }


def test_moments_and_schedule_restart_apart():
    optimizer = adamw(learning_rate("cosine", lr=1e-3, steps=10), **DEFAULTS)
    params = jax.tree.map(jnp.asarray, PARAMS)
    fresh = state = optimizer.init(params)
    for _ in range(3):
        _, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    assert (updates_done(fresh), updates_done(state)) == (0, 3)
    assert updates_done(optax.sgd(0.1).init(params)) == 0
    for moments in (False, True):
        for schedule in (False, True):
            made = restarted(state, fresh, moments=moments, schedule=schedule)
            assert updates_done(made) == (0 if schedule else 3)
            assert int(made[1].count) == (0 if moments else 3)
            want = (fresh if moments else state)[1].mu
            jax.tree.map(np.testing.assert_array_equal, made[1].mu, want)
