"""Loss scaling as torch's GradScaler with its defaults does it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.train.loss_scale import (
    LossScale,
    all_finite,
    initial_scale,
    next_scale,
)


def grad_scaler(outcomes, scale=65536.0, tracker=0):
    """torch: backoff 0.5 on inf, growth 2 after 2000 good steps in a row."""
    for finite in outcomes:
        if not finite:
            scale, tracker = scale * 0.5, 0
        else:
            tracker += 1
            if tracker == 2000:
                scale, tracker = scale * 2, 0
        yield scale, tracker


def test_the_sequence_of_scales_is_torchs(strict_promotion):
    outcomes = np.ones(6200, bool)
    outcomes[[0, 1, 2100, 2101, 4101]] = False
    _, got = jax.lax.scan(
        lambda state, finite: (next_scale(state, finite),) * 2,
        initial_scale("fp16"),
        jnp.asarray(outcomes),
    )
    wanted = np.array(list(grad_scaler(outcomes)))
    np.testing.assert_array_equal(got.scale, wanted[:, 0])
    np.testing.assert_array_equal(got.good_steps, wanted[:, 1])
    # 65536 / 4 at once, doubled after steps 2..2001, halved twice at 2100, and at 4101
    # just after 1999 good steps, doubled at 6101.
    scales = got.scale[jnp.array([1, 2001, 2101, 4101, 6101])]
    assert scales.tolist() == [16384, 32768, 8192, 4096, 8192]


def test_other_precisions_do_not_scale():
    assert initial_scale("bf16") == initial_scale("fp32") == LossScale(1.0, 0)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_one_value_that_is_not_finite_is_found(value):
    tree = {"a": jnp.ones(3), "b": {"c": jnp.zeros((2, 2))}}
    assert all_finite(tree)
    tree["b"]["c"] = tree["b"]["c"].at[1, 0].set(value)
    assert not all_finite(tree)
