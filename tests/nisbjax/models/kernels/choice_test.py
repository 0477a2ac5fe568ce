import functools

import jax
import numpy as np
import pytest
import small_operations as fake
from jax import lax

from nisbjax.models.kernels.choice import Candidate, Kernels, Recorder, use_of


def test_a_use_says_shapes_types_and_what_is_no_array():
    x, weight = fake.arrays(2, 3)
    assert use_of(fake.Scaled(), (x, weight), {"power": 2}) == fake.use(2, 3)
    assert use_of(fake.Scaled(), (x, weight), {"power": 1}) != fake.use(2, 3)


def test_what_was_chosen_runs_and_other_shapes_take_the_first_candidate():
    operation = fake.Scaled(other=lambda x, weight, power: x * 0)
    kernels = Kernels(((fake.use(2, 3), Candidate("other")),))
    np.testing.assert_array_equal(
        kernels.run(operation, *fake.arrays(2, 3), power=2), np.zeros((2, 3))
    )
    # 1 * 3^2
    np.testing.assert_array_equal(
        kernels.run(operation, *fake.arrays(3, 3), power=2), np.full((3, 3), 9)
    )
    assert operation.ran == ["other", "xla"]


def test_equal_choices_are_one_argument_of_a_compiled_function():
    traced = []

    @functools.partial(jax.jit, static_argnums=1)
    def scaled(x, kernels):
        traced.append(kernels)
        return 2 * x

    def chosen(rows):
        other = Candidate("other", (("rows", rows),))
        return Kernels(((fake.use(2, 3), other),))

    for rows in (4, 4, 8):
        scaled(np.ones(3, np.float32), chosen(rows))
    assert traced == [chosen(4), chosen(8)]


@pytest.mark.parametrize("remat", [False, True])
def test_the_recorder_notes_each_use_once_also_of_a_backward_pass(remat):
    operation = fake.Scaled(other=lambda x, weight, power: x * 0)
    recorder = Recorder()

    @jax.custom_vjp
    def layer(x, weight):
        return recorder.run(operation, x, weight, power=2)

    def backward(kept, g):
        return recorder.run(operation, g, kept, power=1), kept

    layer.defvjp(lambda x, w: (layer(x, w), w), backward)
    layer_ = jax.checkpoint(layer) if remat else layer

    def loss(x, weights):
        return lax.scan(lambda x, w: (layer_(x, w), None), x, weights)[0].sum()

    x = jax.ShapeDtypeStruct((2, 3), "float32")
    weights = jax.ShapeDtypeStruct((5, 3), "float32")
    jax.eval_shape(jax.grad(loss), x, weights)
    assert recorder.uses == [fake.use(2, 3), fake.use(2, 3, power=1)]
    assert recorder.operations == {"scaled": operation}
    assert set(operation.ran) == {"xla"}
