"""Twenty steps of the tutorial's optimisation beside torch 2.13, from equal weights.

Per-channel balanced loss, AdamW with its decay groups, clip, cosine and EMA, all through
the config's keys; in torch written out with its own optimizer, schedule and loss. Measured:
losses within 8e-7, gradient norms within 3e-6, weights and their average within 0.5 % of
the farthest that the leaf has moved (Adam divides small gradients by small numbers).
conv1's bias is left out: the norm behind it makes its gradient zero, which torch's
rounding turns into a walk.
"""

import jax
import numpy as np
import pytest
from flax import nnx

from nisbjax.config import base_config
from nisbjax.data.loader import Batch
from nisbjax.models.foreign import torch_import
from nisbjax.parallel import devices
from nisbjax.train import step
from nisbjax.train.recipe import make_recipe

twin = pytest.importorskip("torch_mednext")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STEPS, BATCH, SIDE = 20, 2, 32
CROP = SIDE + 10  # the longest offset
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@pytest.fixture
def config():
    c = base_config().unlock()
    c.data.patch = (SIDE,) * 3
    c.data.erosion = (0, 0, 0)
    c.augment.profile = "none"
    c.model.size, c.model.channels, c.model.remat = "S", 4, "none"
    c.train.precision = "fp32"
    c.train.steps = STEPS
    c.ema.warmup_steps, c.ema.decay = 5, 0.9
    return c


def crops(number):
    """Boxes of random size as neurons, their walls dark, and noise."""
    draw = np.random.default_rng(number)
    labels = np.empty((BATCH, CROP, CROP, CROP), np.int32)
    for sample in labels:
        cuts = [np.sort(draw.choice(np.arange(4, CROP), 4, False)) for _ in range(3)]
        parts = [np.searchsorted(c, np.arange(CROP), side="right") for c in cuts]
        x, y, z = np.meshgrid(*parts, indexing="ij")
        sample[:] = 1 + 25 * x + 5 * y + z
        for axis, cut in enumerate(cuts):
            np.moveaxis(sample, axis, 0)[cut] = 0
    grey = np.where(labels > 0, 180, 60) + draw.normal(0, 30, labels.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)[..., None], labels


def run_ours(config, params):
    """Losses, weights and their average after each step."""
    recipe = make_recipe(config)
    mesh = devices.make_mesh((("data", 1),), jax.devices()[:1])
    state = step.initial_state(params, recipe.optimizer, "fp32")
    state = jax.device_put(state, devices.replicated(mesh))

    def batch(number):
        images, labels = crops(number)
        scales = np.array([[0, 255, 0, 1]] * BATCH, np.float32)
        samples = np.arange(BATCH, dtype=np.int32)
        made = Batch(images, labels, scales, samples, np.ones(BATCH, bool))
        return jax.device_put(made, devices.split_batch(mesh))

    lowered = step.make_train_step(recipe, mesh).lower(state, batch(0))
    train_step = lowered.compile(compiler_options=QUICK)
    losses, norms = [], []
    for number in range(STEPS):
        state, scalars = train_step(state, batch(number))
        losses.append(float(scalars["loss"]))
        norms.append(float(scalars["grad_norm"]))
    return losses, norms, jax.device_get(state.params), jax.device_get(state.ema)


def affinities(labels, offsets):
    """1 where source and end of an edge are one neuron; [b c x y z], all edges known."""
    found = []
    near = labels[:, :SIDE, :SIDE, :SIDE]
    for x, y, z in offsets:
        far = labels[:, x : x + SIDE, y : y + SIDE, z : z + SIDE]
        found.append((near == far) & (near > 0))
    return torch.from_numpy(np.stack(found, 1).astype(np.float32))


def run_torch(config, network):
    groups = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[".norm." in name].append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[False], "weight_decay": 0.01},
            {"params": groups[True], "weight_decay": 0.0},
        ],
        lr=1e-3,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    average = {n: p.detach().clone() for n, p in network.named_parameters()}
    losses, norms = [], []
    for number in range(STEPS):
        images, labels = crops(number)
        inside = images[:, :SIDE, :SIDE, :SIDE].astype(np.float32) / 255
        logits = network(torch.from_numpy(inside.transpose(0, 4, 1, 2, 3).copy()))
        logits = logits.clamp(-20, 20)
        loss = torch.zeros(())
        targets = affinities(labels, config.data.offsets)
        for channel in range(6):
            wanted = targets[:, channel]
            positive = wanted.sum()
            weight = torch.clamp((wanted.numel() - positive) / positive, max=10)
            loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(
                logits[:, channel], wanted, pos_weight=weight
            )
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)))
        optimizer.step()
        schedule.step()
        decay = 0.0 if number + 1 <= 5 else 0.9
        for name, parameter in network.named_parameters():
            average[name].mul_(decay).add_(parameter.detach(), alpha=1 - decay)
        losses.append(float(loss))
    return losses, norms, average


def in_our_axes(tensors):
    # Copies: torch's optimizer writes into its parameters.
    arrays = {name: value.detach().numpy().copy() for name, value in tensors.items()}
    return nnx.to_pure_dict(nnx.state(torch_import.to_model(arrays)))


def test_a_trajectory_stays_on_torchs(config):
    network = twin.fill(twin.MedNeXt("S", 3, channels=4))
    start = in_our_axes(network.state_dict())
    losses, norms, params, ema = run_ours(config, start)
    their_losses, their_norms, average = run_torch(config, network)

    of_losses = np.abs(np.divide(losses, their_losses) - 1)
    of_norms = np.abs(np.divide(norms, their_norms) - 1)
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
    print(f"of the losses {of_losses.max():.1e}, gradient norms {of_norms.max():.1e}")
    assert losses[-1] < 0.9 * losses[0] and max(norms) > 1  # it learns, and clips
    # As shares of the farthest that any value of the leaf has moved.
    for title, ours, theirs in (
        ("weights", params, in_our_axes(network.state_dict())),
        ("average", ema, in_our_axes(average)),
    ):
        shares = jax.tree_util.tree_map_with_path(
            lambda path, a, b, s: (
                0.0
                if [key.key for key in path[-2:]] == ["conv1", "bias"]
                else float(np.abs(a - b).max() / np.abs(b - s).max())
            ),
            ours,
            theirs,
            start,
        )
        found = jax.tree_util.tree_leaves_with_path(shares)
        worst = max(found, key=lambda leaf: leaf[1])
        print(f"{title}: {worst[1]:.1e} ({jax.tree_util.keystr(worst[0])})")
        assert worst[1] < 0.02, worst
    assert of_losses.max() < 1e-5
    assert of_norms.max() < 1e-4
