"""What one use of an operation is measured with: its candidates' programs, and what is right.

Source: the checks of Triton's and XLA's autotuners, which compare candidates with one another.
We differ: what they are compared with is computed in float32 from the same random arrays, and
a bound for each type says what is right.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from nisbjax.models.kernels.choice import Candidate, Operation, Use
from nisbjax.parallel import compiler

# How far a result may be from float32's: the norm of the difference, relative to the result's.
# Half a unit in the last place is 5e-4 in float16 and 4e-3 in bfloat16, and values are rounded
# a few times on the way; TF32 (3e-4) does not pass for float32.
ALLOWED = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
# The same for the worst value, relative to the root of the mean square: an edge that is wrong
# is lost in the norm of all.
_WORST = 20
_REPEATS, _REPEAT_S = 5, 3e-3
_HOPELESS = 5  # times as slow as another


class Program(NamedTuple):
    """A compiled function of a use's arrays.

    Attributes:
      run: the function.
      result: shapes and types of what it gives.
    """

    run: Any
    result: Any


class Trial(NamedTuple):
    """What the candidates of a use are given, and compared with.

    Attributes:
      arrays: random ones.
      expected: the result, computed in float32.
      errors: (expected, a candidate's result) -> how far it is off, see `_errors`.
      result: shapes and types of XLA's.
      allowed: how far it may be off.
    """

    arrays: Sequence[Array]
    expected: Any
    errors: Any
    result: Any
    allowed: float

    def error(self, program: Program) -> float:
        """How far the result of a program is off, relative."""
        return float(self.errors(self.expected, program.run(*self.arrays)))

    def problem(self, program: Program) -> str:
        """Why a program is not right; "" where it is.

        Raises:
          Exception: whatever running it does.
        """
        if program.result != self.result:
            return f"gives {program.result}, wanted {self.result}"
        error = self.error(program)
        if error <= self.allowed:  # not so if it is NaN
            return ""
        return f"is {error:.1e} off, {self.allowed:g} is allowed"


def compiled(operation: Operation, candidate: Candidate, use: Use) -> Program:
    """A candidate for a use, compiled for this process's first device."""
    run = functools.partial(operation.run, candidate, **dict(use.static))
    with _precision(use):
        lowered = jax.jit(run).lower(*_arguments(use))
    program = lowered.compile(compiler_options=compiler.alone())
    return Program(program, _looks(lowered.out_info))


def compiled_trial(
    operation: Operation, xla: Candidate, use: Use
) -> Callable[[], Trial]:
    """Compiles what a trial needs; its arrays are made when the result is called.

    Args:
      operation, use: theirs.
      xla: the candidate that is right.
    """
    run = functools.partial(operation.run, xla, **dict(use.static))

    def reference(*arrays: Array) -> Any:
        return jax.tree.map(_widened, run(*map(_widened, arrays)))

    with jax.default_matmul_precision("float32"):
        lowered = jax.jit(reference).lower(*_arguments(use))
    with _precision(use):
        result = _looks(jax.eval_shape(run, *_arguments(use)))
    example = jax.jit(functools.partial(operation.example, use))
    untuned = compiler.untuned()
    made = example.lower(jax.eval_shape(_key)).compile(compiler_options=untuned)
    right = lowered.compile(compiler_options=untuned)
    leaves = map(jax.tree.leaves, (_looks(lowered.out_info), result))
    errors = _compiled_errors(*map(tuple, leaves))

    def begin() -> Trial:
        arrays = made(_key())
        return Trial(arrays, right(*arrays), errors, result, _allowed(use, result))

    return begin


def seconds(program: Program, arrays: Sequence[Array], fastest: float) -> float:
    """Of one call, the shortest of a few repeats, each long enough for the clock.

    Args:
      program: that ran before.
      arrays: what it is called with.
      fastest: seconds of another; what is far slower is not repeated.
    """

    def repeat(calls: int) -> float:
        result, started = None, time.perf_counter()
        for _ in range(calls):
            result = program.run(*arrays)
        jax.block_until_ready(result)
        return (time.perf_counter() - started) / calls

    once = repeat(1)
    if once > _HOPELESS * fastest:
        return once
    calls = min(1000, math.ceil(_REPEAT_S / once))
    return min(repeat(calls) for _ in range(_REPEATS))


def _allowed(use: Use, result: Any) -> float:
    kinds = [*use.dtypes, *(str(leaf.dtype) for leaf in jax.tree.leaves(result))]
    return max(ALLOWED.get(kind, ALLOWED["float32"]) for kind in kinds)


def _key() -> Array:
    """A key whose numbers compile at once, as those of the default ones do not."""
    return jax.random.key(0, impl="unsafe_rbg")


@functools.lru_cache(maxsize=256)  # many uses have results of one shape
def _compiled_errors(
    expected: tuple[jax.ShapeDtypeStruct, ...], found: tuple[jax.ShapeDtypeStruct, ...]
) -> Callable[[Any, Any], Float32[Array, ""]]:
    lowered = jax.jit(_errors).lower(expected, found)
    program = lowered.compile(compiler_options=compiler.untuned())

    def errors(expected: Any, found: Any) -> Float32[Array, ""]:
        return program(*(tuple(jax.tree.leaves(tree)) for tree in (expected, found)))

    return errors


def _arguments(use: Use) -> list[jax.ShapeDtypeStruct]:
    return [
        jax.ShapeDtypeStruct(*a) for a in zip(use.shapes, map(jnp.dtype, use.dtypes))
    ]


def _looks(result: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), result
    )


def _precision(use: Use) -> contextlib.AbstractContextManager:
    """As in a network: float32 is all of float32, see `build.make_apply`."""
    full = set(use.dtypes) == {"float32"}
    return jax.default_matmul_precision("float32") if full else contextlib.nullcontext()


def _widened(values: Array) -> Array:
    floating = jnp.issubdtype(values.dtype, jnp.floating)
    return values.astype(jnp.float32) if floating else values


def _errors(expected: Any, found: Any) -> Float32[Array, ""]:
    """How far a result is off at most, relative, of all its arrays; NaN where one has any."""
    largest = []
    for right, values in zip(jax.tree.leaves(expected), jax.tree.leaves(found)):
        right = right.astype(jnp.float32)
        difference = jnp.abs(values.astype(jnp.float32) - right)
        size = jnp.sqrt((right * right).mean())
        size = jnp.maximum(size, jnp.finfo(jnp.float32).tiny)
        largest.append(jnp.sqrt((difference * difference).mean()) / size)
        largest.append(difference.max() / size / _WORST)
    return jnp.stack(largest).max()
