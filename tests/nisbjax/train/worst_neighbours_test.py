"""The worst neighbour of each edge: by hand, in plain loops, and where its gradient goes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.train import losses
from nisbjax.train.worst_neighbours import worst_of_class

pytestmark = pytest.mark.usefixtures("strict_promotion")

worst = jax.jit(worst_of_class, static_argnames="window")


def line(values, dtype=np.float32):
    """Edges of one channel along z."""
    return jnp.asarray(values, dtype).reshape(1, 1, 1, -1, 1)


LOGITS = line([2.0, -1.0, 3.0, 0.5, -4.0])
POSITIVE = line([1, 1, 1, 0, 0], bool)
KNOWN = jnp.ones_like(POSITIVE)


def test_the_drawing():
    found = worst(LOGITS, POSITIVE, KNOWN, 3)
    assert found.ravel().tolist() == [-1.0, -1.0, -1.0, 0.5, 0.5]
    # Five voxels across, the first edge sees the third too; no negative sees a positive.
    found = worst(LOGITS, POSITIVE, KNOWN, 5)
    assert found.ravel().tolist() == [-1.0, -1.0, -1.0, 0.5, 0.5]
    assert worst(LOGITS, POSITIVE, KNOWN, 1).ravel().tolist() == LOGITS.ravel().tolist()


def test_unknown_edges_are_no_neighbours():
    known = line([1, 0, 1, 1, 1], bool)
    found = worst(LOGITS, POSITIVE, known, 3)
    assert found.ravel().tolist() == [2.0, -1.0, 3.0, 0.5, 0.5]


def test_the_gradient_goes_to_the_worst():
    def loss(logits):
        return worst_of_class(logits, POSITIVE, KNOWN, 3).sum()

    # -1 answers for three edges, .5 for two; the others for none.
    assert jax.grad(loss)(LOGITS).ravel().tolist() == [0, 3, 0, 2, 0]


@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.sampled_from([3, 5]),
    dtype=st.sampled_from([np.float16, np.float32]),
)
def test_equals_plain_loops(seed, window, dtype):
    draw = np.random.default_rng(seed)
    shape = (2, 3, 2, 4, 2)
    logits = draw.normal(0, 3, shape).astype(dtype)
    targets, known = draw.random(shape) < 0.5, draw.random(shape) < 0.8
    want = logits.astype(np.float32)
    for b, x, y, z, c in zip(*np.nonzero(known), strict=True):
        around = []
        for i, j, k in itertools.product(
            range(-(window // 2), window // 2 + 1), repeat=3
        ):
            at = x + i, y + j, z + k
            if all(0 <= a < n for a, n in zip(at, shape[1:4], strict=True)):
                at = (b, *at, c)
                if known[at] and targets[at] == targets[b, x, y, z, c]:
                    around.append(float(logits[at]))
        want[b, x, y, z, c] = min(around) if targets[b, x, y, z, c] else max(around)
    np.testing.assert_array_equal(worst(logits, targets, known, window), want)


@pytest.mark.parametrize("kind", ["per_channel_bce", "bce"])
def test_losses_take_it(kind):
    loss = losses.make_loss(kind, scnp=3)
    plain = losses.make_loss(kind)
    found = loss(LOGITS, POSITIVE, KNOWN)[0]
    expected = plain(line([-1.0, -1.0, -1.0, 0.5, 0.5]), POSITIVE, KNOWN)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found > plain(LOGITS, POSITIVE, KNOWN)[0]
