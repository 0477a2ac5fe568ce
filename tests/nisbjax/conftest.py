"""State dicts of the original network, filled by a rule that anyone can repeat.

And a second process, for what two of them must not do together.
"""

import math
import subprocess
import sys
import zlib

import numpy as np
import pytest

SIZES = {  # expansions and block counts, enc0-3, bottleneck, dec3-0
    "S": ((2,) * 9, (2,) * 9),
    "B": ((2, 3, 4, 4, 4, 4, 4, 3, 2), (2,) * 9),
    "M": ((2, 3, 4, 4, 4, 4, 4, 3, 2), (3, 4, 4, 4, 4, 4, 4, 4, 3)),
    "L": ((3, 4, 8, 8, 8, 8, 8, 4, 3), (3, 4, 8, 8, 8, 8, 8, 4, 3)),
}


def original_shapes(size, kernel, inputs, outputs, heads=1, width=32, kernels=None):
    """Names and shapes of `nnunet_mednext`'s state dict; `kernels` are those of levels."""
    expansion, count = SIZES[size]
    kernels = kernels or [(kernel,) * 3] * 5
    shapes = {"dummy_tensor": (1,)}

    def affine(name, shape, n):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (n,)

    def block(name, c, r, out, level, residual=None):
        affine(f"{name}.conv1", (c, 1, *kernels[level]), c)
        affine(f"{name}.norm", (c,), c)
        affine(f"{name}.conv2", (r * c, c, 1, 1, 1), r * c)
        affine(f"{name}.conv3", (out, r * c, 1, 1, 1), out)
        if residual:
            affine(f"{name}.res_conv", (*residual, 1, 1, 1), out)

    affine("stem", (width, inputs, 1, 1, 1), width)
    for i in range(4):
        c = width << i
        for j in range(count[i]):
            block(f"enc_block_{i}.{j}", c, expansion[i], c, i)
        block(f"down_{i}", c, expansion[i + 1], 2 * c, i, (2 * c, c))
        block(f"up_{i}", 2 * c, expansion[8 - i], c, i, (2 * c, c))
        for j in range(count[8 - i]):
            block(f"dec_block_{i}.{j}", c, expansion[8 - i], c, i)
    for j in range(count[4]):
        block(f"bottleneck.{j}", width << 4, expansion[4], width << 4, 4)
    for i in range(heads):
        affine(f"out_{i}.conv_out", (width << i, outputs, 1, 1, 1), outputs)
    return shapes


def fill(shapes):
    """Random weights that depend on the name alone."""
    weights = {}
    for name, shape in shapes.items():
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        v = generator.standard_normal(math.prod(shape), np.float32).reshape(shape)
        if name.endswith("norm.weight"):
            weights[name] = 1 + np.float32(0.3) * v
        elif len(shape) == 1:
            weights[name] = np.float32(0.1) * v
        else:
            weights[name] = v / np.float32(math.sqrt(math.prod(shape[1:])))
    return weights


@pytest.fixture
def original_weights():
    """Function of (size, kernel, inputs, outputs, heads, width) to a state dict."""
    return lambda *args, **kwargs: fill(original_shapes(*args, **kwargs))


_HOLD = """
import pathlib, sys, time
from nisbjax.store import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held_elsewhere():
    """Function of a lock's path to the id of another process that holds it from then on."""
    children = []

    def hold(path):
        child = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True
        )
        children.append(child)
        assert child.stdout.readline() == "held\n"
        return child.pid

    yield hold
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()
