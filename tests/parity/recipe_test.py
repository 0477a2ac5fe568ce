"""`configs/liconn.py` beside torch: the loss curves of one short run, on the same crops.

Ours are the command line's runs with sizes overridden, in fp32 and in the recipe's fp16.
torch gets the same initial weights, and every augmented crop with its targets, made again
from the run's own (seed, step, sample); its optimizer, schedule, clipping and loss are put
together as PyTC trains on two GPUs, the average is written out, all in float32.

Measured over 48 steps: losses within 3.4e-6 (of 5.6), gradient norms within 4e-6,
validation losses of the averaged weights within 1.6e-6; in fp16 losses within 4.1e-4 of
their size and validation losses within 1.6e-5. `-s` prints them and where the picture is.
"""

import json
import pathlib

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.data import targets
from nisbjax.models import build
from nisbjax.models.foreign import torch_export
from nisbjax.parallel import devices
from nisbjax.train import loss_scale
from nisbjax.train.metric_writer import read_history
from nisbjax.train.recipe import make_recipe, training_loader, validation_loader

twin = pytest.importorskip("torch_mednext")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = pathlib.Path(__file__).parents[2]
STEPS, WARMUP, VAL_EVERY = 48, 12, 16
SIZES = {
    "synth.shape": "(64, 64, 56)",
    "data.patch": "(32, 32, 32)",
    "model.size": "S",
    "model.channels": "4",
    "train.steps": str(STEPS),
    "train.accumulate": "2",  # micro-batches of two crops, for two GPUs
    "train.val_every": str(VAL_EVERY),
    "train.val_crops": "6",
    "train.log_every": "1",
    "ema.warmup_steps": str(WARMUP),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, launched):
    folder = tmp_path_factory.mktemp("cubes")
    launched("synth", folder, SIZES, config="liconn")
    return Run(folder).synthetic


@pytest.fixture(scope="module")
def in_fp32(tmp_path_factory, launched, data):
    folder = tmp_path_factory.mktemp("fp32")
    keys = SIZES | {"data.root": data, "train.precision": "fp32"}
    launched("train", folder, keys, config="liconn")
    return Run(folder)


@pytest.fixture(scope="module")
def theirs(in_fp32):
    return train_torch(Crops(in_fp32))


def curve(run, name):
    return np.array([x[name] for x in read_history(run.history) if name in x])


class Crops:
    """What a run's network saw: images, targets and which of them are known.

    Channels first, as torch has them, one micro-batch of two samples at a time.
    """

    def __init__(self, run):
        self.config = base_config()
        self.config.update_from_flattened_dict(json.loads(run.config.read_text()))
        self._recipe = make_recipe(self.config)
        self._mesh = devices.make_mesh((("data", 1),), jax.devices()[:1])

    def _loader(self, make):
        return make(self.config, self._recipe.examples.crop, self._mesh, 2)

    def of_training(self):
        loader = self._loader(training_loader)
        made = jax.jit(
            lambda batch, step: targets.examples(
                batch,
                self._recipe.examples,
                seed=self.config.seed,
                step=step,
                training=True,
            )
        )
        for step in range(STEPS):
            both = as_torch(made(loader.batch(step), step))
            yield [[field[i : i + 2] for field in both] for i in (0, 2)]

    def of_validation(self):
        made = jax.jit(
            lambda batch: targets.examples(batch, self._recipe.examples, training=False)
        )
        return [as_torch(made(b)) for b in self._loader(validation_loader).batches()]


def as_torch(made):
    fields = jax.device_get((made.images, made.targets, made.valid))
    return [torch.from_numpy(np.moveaxis(f, -1, 1).copy()) for f in fields]


def network_of(config):
    """torch's network with our initial weights, as `--mode=export` hands them out."""
    network = twin.MedNeXt(config.model.size, 3, channels=config.model.channels)
    params = build.initial_params(config.model.to_dict(), config.seed)
    state = torch_export.state_dict(params)
    network.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()})
    del network.dummy_tensor
    return network


def loss_of(logits, wanted, known):
    """Six balanced cross entropies, each a mean over its known edges, summed."""
    total = torch.zeros(())
    for channel in range(6):
        here = known[:, channel]
        edges = wanted[:, channel][here].float()
        positive = edges.sum()
        weight = ((len(edges) - positive) / positive).clamp(max=10)
        total = total + torch.nn.functional.binary_cross_entropy_with_logits(
            logits[:, channel][here].clamp(-20, 20),
            edges,
            pos_weight=weight if positive else None,
        )
    return total


def train_torch(crops):
    """Curves by name, as our history names them."""
    config = crops.config
    network = network_of(config)
    groups = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[".norm." in name].append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[False], "weight_decay": 0.01},
            {"params": groups[True], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    average = {n: p.detach().clone() for n, p in network.named_parameters()}
    fixed = crops.of_validation()
    found = {"train/loss": [], "train/grad_norm": [], "train/lr": [], "val/loss": []}

    for step, parts in enumerate(crops.of_training()):
        optimizer.zero_grad()
        losses = []
        for images, wanted, known in parts:
            loss = loss_of(network(images), wanted, known)
            losses.append(loss.item())
            (loss / len(parts)).backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        found["train/loss"].append(np.mean(losses))
        found["train/grad_norm"].append(norm.item())
        found["train/lr"].append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        decay = 0.0 if step + 1 <= WARMUP else 0.999
        for name, parameter in network.named_parameters():
            average[name].mul_(decay).add_(parameter.detach(), alpha=1 - decay)
        if (step + 1) % VAL_EVERY == 0:
            own = {n: p.detach().clone() for n, p in network.named_parameters()}
            network.load_state_dict(average)
            with torch.no_grad():
                values = [loss_of(network(i), w, k) for i, w, k in fixed]
            network.load_state_dict(own)
            found["val/loss"].append(np.mean([v.item() for v in values]))
    return {name: np.array(values) for name, values in found.items()}


def draw(path, ours, theirs):
    """Both curves over one another, and their difference on an axis of its own."""
    figure = Figure(figsize=(7, 3.2), dpi=80, layout="constrained")
    losses = figure.subplots()
    steps = np.arange(1, STEPS + 1)
    losses.plot(steps, theirs, color="tab:orange", lw=4, label="torch")
    losses.plot(steps, ours, color="black", lw=1.2, label="nisbjax")
    losses.set(xlabel="step", ylabel="training loss", xlim=(0, STEPS + 1))
    losses.margins(y=0.35)
    apart = losses.twinx()
    apart.bar(steps, np.abs(ours - theirs) * 1e6, color="tab:blue", alpha=0.35)
    apart.set_ylabel("difference, 1e-6", color="tab:blue")
    apart.set_ylim(0, 4 * np.abs(ours - theirs).max() * 1e6)
    losses.set_zorder(1)  # before the bars
    losses.patch.set_visible(False)
    losses.legend(loc="upper right", ncols=2, frameon=False)
    figure.savefig(path)


@pytest.mark.long
def test_the_loss_curve_lies_on_torchs(in_fp32, theirs, tmp_path):
    ours = {name: curve(in_fp32, name) for name in theirs}
    for name, values in theirs.items():
        apart = np.abs(ours[name] - values)
        print(f"{name}: {apart.max():.1e} apart at {apart.argmax()} of {len(values)}")
    draw(tmp_path / "curves.png", ours["train/loss"], theirs["train/loss"])
    print(f"drawn in {tmp_path / 'curves.png'}")

    losses = theirs["train/loss"]
    assert len(losses) == STEPS and len(theirs["val/loss"]) == STEPS // VAL_EVERY
    assert losses[-12:].mean() < 0.95 * losses[:12].mean()  # it learns, and clips
    assert theirs["train/grad_norm"].max() > 1
    # One rounding of a loss of 5 is 5e-7. Once weights differ by roundings the losses
    # differ by them too, and Adam makes much of those of small gradients. Decaying the
    # norms as well, the least of changes, is 1e-5 apart after 15 steps.
    np.testing.assert_allclose(ours["train/loss"][:1], losses[:1], atol=2e-6)
    np.testing.assert_allclose(ours["train/loss"], losses, atol=1e-5)
    np.testing.assert_allclose(ours["train/grad_norm"], theirs["train/grad_norm"], 4e-5)
    np.testing.assert_allclose(ours["val/loss"], theirs["val/loss"], atol=5e-6)
    # Our schedule counts in float32.
    np.testing.assert_allclose(ours["train/lr"], theirs["train/lr"], atol=1e-9)


@pytest.mark.long
def test_half_precision_stays_near_the_curve(theirs, launched, data, tmp_path):
    run = Run(tmp_path / "fp16")
    launched("train", run.path, SIZES | {"data.root": data}, config="liconn")
    assert not curve(run, "train/skipped").any()  # steps correspond
    assert set(curve(run, "train/loss_scale")) == {65536}
    for name, bound in (("train/loss", 4e-3), ("val/loss", 2e-4)):
        apart = np.abs(curve(run, name) / theirs[name] - 1)
        print(f"{name} in fp16: {apart.max():.1e} of it apart")
        assert apart.max() < bound


def test_the_loss_scale_is_that_of_torchs_scaler():
    """After each of 4,200 steps, of which five overflow."""
    finite = np.ones(4200, bool)
    finite[[0, 1, 2100, 2101, 4101]] = False
    _, ours = jax.lax.scan(
        lambda state, good: (loss_scale.next_scale(state, good),) * 2,
        loss_scale.initial_scale("fp16"),
        jax.numpy.asarray(finite),
    )
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 1.0)
    scaler = torch.amp.GradScaler("cpu")
    theirs = []
    for good in finite:
        scaler.scale(torch.zeros(1))
        weight.grad = torch.tensor([1.0 if good else np.inf])
        scaler.step(optimizer)
        scaler.update()
        theirs.append(scaler.get_scale())
    np.testing.assert_array_equal(ours.scale, theirs)
