"""Depthwise convolutions on a GPU: fused shifted sums against cuDNN's grouped ones.

JAX_PLATFORMS=cuda,cpu python tests/gpu/bench_depthwise.py       (make bench-gpu)

The table says, for each shape of MedNeXt at 128^3 and each type, the milliseconds of the
convolution, of its gradient by the image and of that by the kernel. Where cuDNN is faster,
`models/depthwise.py` should choose it for that shape; until a table from a GPU is there,
it uses the fused sums everywhere.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
from jax import lax

from nisbjax.models import build
from nisbjax.models.depthwise import depthwise


def grouped(x, weight, strides):
    pads = [(k // 2, k // 2) for k in weight.shape[:3]]
    return lax.conv_general_dilated(
        x,
        weight[:, :, :, None].astype(x.dtype),
        strides,
        pads,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=x.shape[-1],
    )


def milliseconds(function, *arguments, repeat):
    compiled = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(times), 3)


def convolutions(a, dtype):
    for kernel in a.kernels:
        for level in range(5):
            side, channels = a.side >> level, 32 << level
            x = jax.random.normal(jax.random.key(0), (1, *(side,) * 3, channels), dtype)
            weight = jax.random.normal(jax.random.key(1), (*(kernel,) * 3, channels))
            for stride in (1, 2) if level < 4 else (1,):
                line = {"side": side, "channels": channels, "kernel": kernel}
                line |= {"stride": stride, "dtype": dtype}
                for name, function in (("fused", depthwise), ("grouped", grouped)):
                    line[name] = times(function, x, weight, (stride,) * 3, a.repeat)
                print(json.dumps(line), flush=True)


def times(function, x, weight, strides, repeat):
    def forward(x, weight):
        return function(x, weight, strides)

    def by_x(x, weight):
        return jax.grad(lambda x: forward(x, weight).astype(jnp.float32).sum())(x)

    def by_weight(x, weight):
        loss = lambda w: (forward(x, w).astype(jnp.float32) ** 2).sum()
        return jax.grad(loss)(weight)

    parts = {"forward": forward, "by_x": by_x, "by_weight": by_weight}
    return {
        name: milliseconds(part, x, weight, repeat=repeat)
        for name, part in parts.items()
    }


def networks(a, dtype):
    for size in ("S", "L"):
        arguments = {"size": size, "kernel_size": 3, "in_channels": 1}
        arguments |= {"out_channels": 6, "channels": 32, "deep_supervision": False}
        params = jax.device_put(build.initial_params(arguments, 0))
        images = jax.random.uniform(jax.random.key(0), (2, *(a.side,) * 3, 1))
        for remat in (False, True):
            apply = build.make_apply(arguments, jnp.dtype(dtype), remat=remat)

            def loss(params, images, apply=apply):
                return (apply(params, images) ** 2).mean()

            line = {"network": size, "side": a.side, "batch": 2, "dtype": dtype}
            line |= {"remat": remat}
            if not remat:
                line["forward_ms"] = milliseconds(
                    apply, params, images, repeat=a.repeat
                )
            if remat or size == "S":
                line["gradient_ms"] = milliseconds(
                    jax.grad(loss), params, images, repeat=a.repeat
                )
            print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeat", type=int, default=10)
    a = parser.parse_args()
    print(json.dumps({"device": str(jax.devices()[0]), "jax": jax.__version__}))
    for dtype in a.dtypes:
        convolutions(a, dtype)
        networks(a, dtype)


if __name__ == "__main__":
    main()
