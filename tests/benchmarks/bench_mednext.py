"""Seconds and memory of MedNeXt's forward pass and training step on this machine.

python tests/benchmarks/bench_mednext.py --size S --side 64 --channels 32
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 (huge pages for XLA's buffers) halves what the
memory-bound parts cost on Linux.
"""

import argparse
import itertools
import resource
import statistics
import time

import jax
import jax.numpy as jnp
from flax import nnx

from nisbjax.models.mednext import MedNeXt


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(name, function, *arguments, repeat):
    """Times tracing, lowering, compiling, and the median of several runs."""
    times = [time.perf_counter()]
    traced = jax.jit(function).trace(*arguments)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    trace, lower, build = (b - a for a, b in itertools.pairwise(times))
    jax.block_until_ready(compiled(*arguments))
    wall, processor = [], []
    for _ in range(repeat):
        start, used = time.perf_counter(), processor_seconds()
        jax.block_until_ready(compiled(*arguments))
        wall.append(time.perf_counter() - start)
        processor.append(processor_seconds() - used)
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    print(
        f"{name}: {statistics.median(wall):.3f} s (best {min(wall):.3f}), processor "
        f"{statistics.median(processor):.3f} s, {memory:.0f} MB of temporaries; trace "
        f"{trace:.1f} lower {lower:.1f} compile {build:.1f} s",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="S")
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--remat", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeat", type=int, default=5)
    a = parser.parse_args()
    abstract = nnx.eval_shape(
        lambda: MedNeXt(
            a.size,
            a.kernel,
            channels=a.channels,
            remat=bool(a.remat),
            dtype=a.dtype,
            rngs=nnx.Rngs(0),
        )
    )
    graph, shapes = nnx.split(abstract)
    # Speed does not depend on the values, as long as none is subnormal.
    state = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), shapes)
    image = jax.random.uniform(jax.random.key(0), (1, *(a.side,) * 3, 1))
    target = (image > 0.5).astype(jnp.float32)

    def forward(state, image):
        return nnx.merge(graph, state)(image)

    def loss(state):
        logits = forward(state, image)
        return (jax.nn.softplus(logits) - logits * target).mean()

    def step(state):
        value, gradient = jax.value_and_grad(loss)(state)
        return value, jax.tree.map(lambda p, g: p - 1e-3 * g, state, gradient)

    title = f"{a.size} k{a.kernel} {a.side}^3 width {a.channels} {a.dtype}"
    measure(f"{title} forward", forward, state, image, repeat=a.repeat)
    measure(f"{title} remat {a.remat} step", step, state, repeat=a.repeat)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak resident {peak:.0f} MB, compilation included")


if __name__ == "__main__":
    main()
