"""Losses against the formulas in plain loops, and what they must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.train import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


OPTIONS = ("max_pos_weight", "balance_group", "logit_clamp")
per_channel_bce = jax.jit(losses.per_channel_bce, static_argnames=OPTIONS)
pooled_bce = jax.jit(losses.pooled_bce, static_argnames="logit_clamp")
at_scale = jax.jit(losses.at_scale, static_argnames="shape")


def sample(seed, batch=4, channels=3, scale=30.0):
    draw = np.random.default_rng(seed)
    shape = (batch, 2, 3, 4, channels)
    logits = draw.normal(0, scale, shape).astype(np.float32)
    return logits, draw.random(shape) < 0.7, draw.random(shape) < 0.8


def by_loops(logits, targets, valid, group, cap=10.0, clamp=20.0):
    """One voxel at a time, in double precision."""
    total = 0.0
    groups = len(logits) // group
    for g in range(groups):
        rows = slice(g * group, (g + 1) * group)
        for c in range(logits.shape[-1]):
            x, t, m = (a[rows, ..., c].ravel() for a in (logits, targets, valid))
            pos = sum(1 for ti, mi in zip(t, m, strict=True) if mi and ti)
            neg = sum(1 for ti, mi in zip(t, m, strict=True) if mi and not ti)
            weight = 1.0 if pos == 0 else min(neg / pos, cap)
            loss = 0.0
            for xi, ti, mi in zip(x, t, m, strict=True):
                p = 1 / (1 + np.exp(-np.clip(float(xi), -clamp, clamp)))
                if mi:
                    loss += -weight * np.log(p) if ti else -np.log1p(-p)
            total += loss / (pos + neg) if pos + neg else 0.0
    return total / groups


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]))
def test_equals_the_formula(seed, group):
    logits, targets, valid = sample(seed, scale=5.0)
    valid[..., 2] = False  # a channel without a known edge adds nothing
    got, terms = per_channel_bce(logits, targets, valid, balance_group=group)
    want = by_loops(logits, targets, valid, group)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert terms["per_channel"][2] == 0
    np.testing.assert_allclose(terms["per_channel"].sum(), got, rtol=1e-6)


def test_class_weights_by_hand():
    # 24 edges a channel: 3 positives -> 21 / 3 = 7; 1 -> 23, capped to 10; none -> 1;
    # 16 -> 8 / 16 = 0.5: nothing holds it above 1.
    targets = np.zeros((1, 2, 3, 4, 4), bool)
    for channel, positives in enumerate((3, 1, 0, 16)):
        targets[..., channel].reshape(-1)[:positives] = True
    logits = np.zeros(targets.shape, np.float32)
    _, terms = per_channel_bce(logits, targets, np.ones_like(targets))
    np.testing.assert_allclose(terms["pos_weight"], [7, 10, 1, 0.5])
    # At logit 0 every term is log 2: (7 * 3 + 21) / 24 of it for the first channel.
    np.testing.assert_allclose(terms["per_channel"][0], 42 / 24 * np.log(2), rtol=1e-6)


def test_a_logit_counts_no_further_than_its_clamp():
    ones = np.ones((1, 1, 1, 2, 1), bool)
    targets = np.array([True, False]).reshape(ones.shape)
    wrong = np.array([-1000.0, 1000.0], np.float32).reshape(ones.shape)
    # log(sigmoid(-20)) = -20.000000002; 1 positive, 1 negative: (20 + 20) / 2.
    np.testing.assert_allclose(per_channel_bce(wrong, targets, ones)[0], 20, rtol=1e-6)
    loose = per_channel_bce(wrong, targets, ones, logit_clamp=0.0)[0]
    np.testing.assert_allclose(loose, 1000, rtol=1e-6)


def test_the_group_not_the_device_sets_the_balance():
    logits, targets, valid = sample(3)
    halves = [
        per_channel_bce(logits[i : i + 2], targets[i : i + 2], valid[i : i + 2])[0]
        for i in (0, 2)
    ]
    whole = per_channel_bce(logits, targets, valid, balance_group=2)[0]
    np.testing.assert_allclose(whole, np.mean(halves), rtol=1e-6)
    everything = per_channel_bce(logits, targets, valid, balance_group=0)[0]
    np.testing.assert_allclose(
        everything, by_loops(logits, targets, valid, 4), rtol=1e-5
    )
    # Samples that only pad the batch leave the mean of the others as it is.
    valid[2:] = False
    padded = per_channel_bce(logits, targets, valid, balance_group=2)[0]
    np.testing.assert_allclose(padded, halves[0], rtol=1e-6)


def test_unknown_edges_have_no_gradient_and_none_is_ever_nan():
    logits, targets, valid = sample(5, scale=300.0)
    for kind in ("per_channel_bce", "bce"):
        loss = jax.jit(losses.make_loss(kind))
        gradient = jax.grad(lambda x, f=loss: f(x, targets, valid)[0])(logits)
        assert np.isfinite(gradient).all()
        assert not np.asarray(gradient)[~valid].any()
    half = per_channel_bce(jnp.asarray(logits, jnp.bfloat16), targets, valid)[0]
    assert half.dtype == jnp.float32


def test_pooled_mean_is_that_of_banis():
    logits, targets, valid = sample(7, scale=3.0)
    x, t = logits[valid].astype(np.float64), targets[valid]
    want = np.mean(np.log1p(np.exp(-x)) * t + np.log1p(np.exp(x)) * ~t)
    np.testing.assert_allclose(pooled_bce(logits, targets, valid)[0], want, rtol=1e-6)


def test_edge_weights_multiply_their_terms():
    logits, targets, valid = sample(9, batch=2)
    twice = np.full(logits.shape, 2.0, np.float32)
    for kind in ("per_channel_bce", "bce"):
        loss = jax.jit(losses.make_loss(kind))
        plain, weighted = (
            loss(logits, targets, valid),
            loss(logits, targets, valid, twice),
        )
        np.testing.assert_allclose(weighted[0], 2 * plain[0], rtol=1e-6)


def test_coarser_targets_are_means_and_known_where_all_is_known():
    targets = np.zeros((1, 4, 4, 4, 1), bool)
    targets[0, 0, 0, 0] = targets[0, 2:, 2:, 2:] = True
    valid = np.ones_like(targets)
    valid[0, 0, 3, 3] = False
    soft, known = at_scale(targets, valid, (2, 2, 2))
    # Trilinear at half the sides, without aligned corners: the mean of 2 x 2 x 2.
    assert soft[0, 0, 0, 0, 0] == 1 / 8
    assert soft[0, 1, 1, 1, 0] == 1
    assert not known[0, 0, 1, 1, 0]
    assert known.sum() == 7


def test_deep_supervision_halves_the_weight_with_the_scale():
    draw = np.random.default_rng(0)
    fine = draw.normal(size=(2, 4, 4, 4, 2)).astype(np.float32)
    coarse = draw.normal(size=(2, 2, 2, 2, 2)).astype(np.float32)
    targets = draw.random(fine.shape) < 0.5
    valid = np.ones_like(targets)
    loss = losses.make_loss("per_channel_bce")
    both = jax.jit(lambda p, t, v: losses.deep_supervision(p, t, v, loss))
    total, terms = both((fine, coarse), targets, valid)
    first, own = per_channel_bce(fine, targets, valid)
    second, _ = per_channel_bce(coarse, *at_scale(targets, valid, (2, 2, 2)))
    np.testing.assert_allclose(total, first + 0.5 * second, rtol=1e-6)
    np.testing.assert_array_equal(terms["per_channel"], own["per_channel"])


def test_input_errors():
    logits, targets, valid = sample(0, batch=3)
    with pytest.raises(
        InputError, match="a batch of 3 is not a multiple of loss.balance"
    ):
        per_channel_bce(logits, targets, valid, balance_group=2)
    with pytest.raises(
        InputError, match="loss.kind is 'dice'; wanted one of per_channel"
    ):
        losses.make_loss("dice")
