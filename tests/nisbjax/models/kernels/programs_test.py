import jax
import jax.numpy as jnp
import pytest
import small_operations as fake

from nisbjax.models.kernels import programs
from nisbjax.models.kernels.choice import Candidate


def problem(use, way):
    operation = fake.Scaled(other=way)
    trial = programs.compiled_trial(operation, fake.XLA, use)()
    return trial.problem(programs.compiled(operation, Candidate("other"), use))


@pytest.mark.parametrize("kind, most", programs.ALLOWED.items())
def test_each_type_has_its_bound(kind, most):
    def off(share):
        def way(x, weight, power):
            product = fake.right(x.astype("float32"), weight.astype("float32"), power)
            return (product * (1 + share)).astype(x.dtype)

        return way

    use = fake.use(4, 6, 8, dtype=kind)
    # Rounding to the type adds at most half a unit in the last place: an eighth of it.
    assert not problem(use, off(0.5 * most))
    assert problem(use, off(1.5 * most)).endswith(f" off, {most:g} is allowed")


def test_the_widest_type_among_arguments_and_results_counts():
    use = fake.use(4, 6, 8)
    use = use._replace(dtypes=("float32", "float16"))
    assert not problem(use, lambda x, w, p: fake.right(x, w, p) * 1.003)


def test_what_is_compared_with_is_computed_in_float32():
    """Here XLA itself is off in float16, where a candidate need not be."""

    def coarse(x, weight, power):
        off = 1.1 if x.dtype == "float16" else 1
        return fake.right(x, weight, power) * off

    use = fake.use(4, 6, 8, dtype="float16")
    operation = fake.Scaled(coarse, other=fake.right)
    trial = programs.compiled_trial(operation, fake.XLA, use)()
    compiled = [programs.compiled(operation, c, use) for c in operation.candidates(use)]
    assert list(map(bool, map(trial.problem, compiled))) == [True, False]


def test_a_value_alone_is_looked_at_too():
    def last_wrong(x, weight, power):
        return fake.right(x, weight, power).at[-1, -1, -1].add(0.1)

    # Of 20,000 values of size .4, one is off by .1: by .002 in the norm of all, which would
    # pass, and by a quarter of their size, of which 20 times .004 is allowed.
    use = fake.use(100, 25, 8, dtype="float16")
    assert "off" in problem(use, last_wrong)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_what_is_not_finite_never_passes(value):
    use = fake.use(4, 6, 8)
    broken = lambda x, w, p: fake.right(x, w, p).at[0, 0, 0].set(value)
    assert problem(use, broken)
    # Nor where the right result is not finite either.
    assert problem(use, lambda x, w, p: x * value)


def test_float32_is_computed_in_float32():
    # The CPU has no TF32: what is asked for is looked at instead.
    asked = []

    def way(x, weight, power):
        asked.append(jax.config.jax_default_matmul_precision)
        return fake.right(x, weight, power)

    for dtype in ("float32", "float16"):
        programs.compiled(
            fake.Scaled(other=way), Candidate("other"), fake.use(2, 3, dtype=dtype)
        )
    assert asked == ["float32", None]
