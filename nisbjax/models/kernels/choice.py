"""Which way each operation of a network is computed: one of several candidates.

An operation is XLA's by itself, or XLA's otherwise, or a Pallas kernel with one of several
block sizes; a network asks `Kernels`, which knows what was chosen for the shapes and types at
hand. Source: the autotuning of XLA and of Triton. We differ in what is believed: candidates are
compared with a float32 result before they are timed (`races`), and the choice is kept with
the run (`table`), since its bytes depend on it.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jax import Array


class Candidate(NamedTuple):
    """One way to compute an operation.

    Attributes:
      name: "xla", "pallas" ...
      parameters: block sizes by name, sorted.
    """

    name: str
    parameters: tuple[tuple[str, int], ...] = ()


class Use(NamedTuple):
    """One call of an operation in a network.

    Attributes:
      operation: its name.
      shapes: of its arrays.
      dtypes: of its arrays.
      static: its other arguments by name, sorted; numbers, words and tuples of them.
    """

    operation: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    static: tuple[tuple[str, Any], ...] = ()


@runtime_checkable
class Operation(Protocol):
    """What a network computes through `Kernels.run`."""

    @property
    def name(self) -> str:
        """Its name, one of a kind."""
        ...

    def candidates(self, use: Use) -> list[Candidate]:
        """Ways to compute it; the first is XLA as it is, which is always right."""
        ...

    def run(self, candidate: Candidate, *arrays: Array, **static: Any) -> Any:
        """A pytree of arrays, the same in shape and type whatever the candidate."""
        ...

    def example(self, use: Use, key: Array) -> tuple[Array, ...]:
        """Random arrays of a use's shapes and types, sized as in a network."""
        ...


def use_of(operation: Operation, arrays: tuple[Array, ...], static: dict) -> Use:
    """What a call is looked up by.

    Args:
      operation: that is called.
      arrays: traced or not.
      static: its other arguments, hashable.
    """
    return Use(
        operation.name,
        tuple(tuple(array.shape) for array in arrays),
        tuple(str(array.dtype) for array in arrays),
        tuple(sorted(static.items())),
    )


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The choice for a network; equal ones trace and compile once.

    Attributes:
      chosen: a candidate for each use; a use that is not here takes XLA as it is.
    """

    chosen: tuple[tuple[Use, Candidate], ...] = ()

    @functools.cached_property
    def _by_use(self) -> Mapping[Use, Candidate]:
        return dict(self.chosen)

    def run(self, operation: Operation, *arrays: Array, **static: Any) -> Any:
        """An operation's result, by the candidate that was chosen for such arrays."""
        use = use_of(operation, arrays, static)
        candidate = self._by_use.get(use) or operation.candidates(use)[0]
        return operation.run(candidate, *arrays, **static)


class Recorder:
    """Stands in for `Kernels` under `jax.eval_shape`, and notes what a network uses.

    A new one for each trace: what JAX has traced already is not run again for an equal one.

    Attributes:
      uses: in the order of their first call.
      operations: by name.
    """

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.operations: dict[str, Operation] = {}

    def run(self, operation: Operation, *arrays: Array, **static: Any) -> Any:
        """As `Kernels.run`, by XLA as it is."""
        use = use_of(operation, arrays, static)
        if use not in self.uses:
            self.uses.append(use)
        self.operations[operation.name] = operation
        return operation.run(operation.candidates(use)[0], *arrays, **static)
