"""A run whose checkpoints are validated, as far as tests need one."""

import jax.numpy as jnp

from nisbjax import launch
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.models import build


def save(folder, settings, weights):
    """Checkpoints of {step: weight}; 10 decodes well at .75, -10 joins what is dark."""
    kept = Checkpoints(folder / "checkpoints", best=0, every=1)
    facts = {"step": {}, "loader": {}, "config": {}}
    facts["model"] = build.describe(settings.model.to_dict())
    for step, weight in weights.items():
        ones = jnp.ones((1, settings.model.out_channels))
        head = {"weight": weight * ones, "bias": -0.5 * weight * ones[0]}
        ema = {"head": head, "norm": {"weight": ones[0]}}  # weight * (image - 0.5)
        arrays = {"params": {"w": jnp.ones(1)}, "ema": ema}
        arrays["optimizer"] = {"w": jnp.ones(1)}
        kept.save(step, arrays, facts)
    kept.close()


def run(settings, folder, checkpoint="", **extras):
    return launch.run_mode("validate", settings, str(folder), checkpoint, **extras)


def snapshot(folder):
    """Every file of the run but those of validation, with its content's size and time."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "validate" not in path.relative_to(folder).parts
    }
