"""Checkpoints of a few numbers, for tests of what is written and believed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

MODEL = {"size": "S", "kernel_size": 3, "in_channels": 1, "out_channels": 6}
MODEL |= {"channels": 4, "deep_supervision": False}
SAID = {
    "step": {"step": 3},
    "loader": {"seed": 42, "global_batch": 2, "accumulate": 1},
    "model": MODEL,
    "config": {"seed": 42},
}


def arrays(value=0.0, width=3):
    params = {"stem": {"weight": jnp.full((2, width), value), "bias": jnp.ones(width)}}
    ema = jax.tree.map(lambda p: p + 0.5, params)
    optimizer = {"optax": optax.adam(0.1).init(params), "scale": jnp.float32(65536)}
    return {"params": params, "ema": ema, "optimizer": optimizer}


def small():
    return {name: {"w": jnp.ones(1)} for name in ("params", "ema", "optimizer")}


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def flip(path):
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def unseal(folder):
    (folder / "SHA256SUMS").unlink()
