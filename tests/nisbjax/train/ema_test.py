"""The moving average against its recurrence in float64."""

import jax.numpy as jnp
import numpy as np

from nisbjax.train.ema import update


def test_copies_for_500_updates_then_mixes(strict_promotion):
    ema, params = {"w": jnp.float32([7.0, 7.0])}, {"w": jnp.float32([1.0, 2.0])}
    for number in (1, 499, 500):
        copied = update(ema, params, jnp.int32(number), decay=0.999, warmup=500)
        np.testing.assert_array_equal(copied["w"], params["w"])
    mixed = update(ema, params, jnp.int32(501), decay=0.999, warmup=500)
    # 0.999 * 7 + 0.001 * 1 = 6.994, 0.999 * 7 + 0.001 * 2 = 6.995
    np.testing.assert_allclose(mixed["w"], [6.994, 6.995], rtol=1e-6)


def test_a_sequence_equals_the_recurrence():
    weights = np.random.default_rng(0).normal(size=12)
    ema, wanted = jnp.float32(weights[0]), weights[0]
    for number, w in enumerate(weights, 1):
        ema = update(ema, jnp.float32(w), jnp.int32(number), decay=0.8, warmup=3)
        wanted = w if number <= 3 else 0.8 * wanted + 0.2 * w
        np.testing.assert_allclose(ema, wanted, rtol=1e-5)


def test_no_decay_is_the_weights_themselves():
    ema = update(
        jnp.float32(9.0), jnp.float32(2.0), jnp.int32(600), decay=0.0, warmup=500
    )
    assert ema == 2.0
