"""The project's side of `bench.py`: one part of it, prepared beside others, timed in its turn.

    step        the whole training step of the recipe: augmentation, targets, loss, AdamW, EMA
    forward     the network as it predicts
    operations  candidates of each operation of such a program alone, see `bench_operations`
    predict     `predict_volume` from zarr to zarr, with the network and with a stub for it
    again       the step or forward pass compiled once more, from the cache, and not run

With --timeline a step or forward pass is traced, kernel by kernel, in place of being timed.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import bench_operations
import jax
import numpy as np
import timeline
import turns
from absl import logging

from nisbjax.config import base_config
from nisbjax.data.loader import Batch
from nisbjax.infer.conversion import Conversion
from nisbjax.infer.network import untrained_network
from nisbjax.infer.predict import predict_volume
from nisbjax.infer.windows import Grid
from nisbjax.models import build
from nisbjax.models.kernels import on_device
from nisbjax.models.kernels.choice import Recorder
from nisbjax.parallel import compiler, devices
from nisbjax.parallel.background import end_process
from nisbjax.store.volume import create_zarr
from nisbjax.train import step
from nisbjax.train.recipe import (
    choose_kernels,
    make_recipe,
    record_uses,
    with_kernels,
)

TRACED = 3  # steps of a timeline
CHUNK = (64, 128, 128)


def configuration(a):
    """The recipe's own, with the sizes and words of the command line."""
    config = base_config()
    config.data.patch = (a.side,) * 3
    config.model.size, config.model.channels = a.size, a.channels
    config.model.remat, config.train.precision = a.remat, a.precision
    config.train.batch_per_device = config.predict.batch_per_device = a.batch
    config.predict.precision = "fp16" if a.precision == "fp16" else "fp32"
    config.model.kernels = a.kernels
    return config


def chosen_in_turn(a, choose):
    """What `choose` gives: while all others stand still, where something is measured."""
    if a.kernels == "xla" or not on_device.on_gpu():
        return choose()
    start = time.perf_counter()
    with turns.choosing():
        found = choose()
    a.chosen = {"choose_s": round(time.perf_counter() - start, 1)}
    return found


def training(a):
    """A compiled step, a function that runs it, and when its compilation began and ended."""
    config = configuration(a)
    mesh = devices.make_mesh((("data", 1), ("space", 1)), jax.devices()[:1])
    kernels = chosen_in_turn(a, lambda: choose_kernels(mesh, config, a.batch, None))
    recipe = with_kernels(make_recipe(config), mesh, config, kernels)
    if kernels is not None:
        a.chosen |= said_of(kernels)
    params = build.initial_params(config.model.to_dict(), 0)
    state = step.initial_state(params, recipe.optimizer, a.precision)
    state = jax.device_put(state, devices.replicated(mesh))
    crop = recipe.examples.crop
    draw = np.random.default_rng(0)
    coarse = (a.batch, *(-(-n // 16) for n in crop))
    labels = draw.integers(1, 200, coarse, dtype=np.int32)
    for axis in (1, 2, 3):
        labels = labels.repeat(16, axis)
    labels = labels[:, : crop[0], : crop[1], : crop[2]]
    images = draw.integers(0, 255, (*labels.shape, 1), dtype=np.uint8)
    scales, real = (
        np.array([[0, 255, 0, 1]] * a.batch, np.float32),
        np.ones(a.batch, bool),
    )
    batch = Batch(images, labels, scales, np.arange(a.batch, dtype=np.int32), real)
    batch = jax.device_put(batch, devices.split_batch(mesh))
    compiled, when = compiled_of(step.make_train_step(recipe, mesh), state, batch)
    held = [state]

    def once():
        held[0], scalars = compiled(held[0], batch)
        return jax.block_until_ready(scalars)

    return compiled, once, when


def said_of(kernels):
    """How many uses Pallas won, and which."""
    names = {
        f"{use.operation} {use.shapes} {use.dtypes[0]} {dict(use.static)}": (
            f"{candidate.name} {dict(candidate.parameters)}"
        )
        for use, candidate in kernels.chosen
    }
    won = sum("pallas" in name for name in names.values())
    return {"pallas": f"{won} of {len(names)}", "candidates": names}


def network(a):
    """Apply and parameters, as a prediction takes them."""
    config = configuration(a)
    found = untrained_network(config.predict, config.model.to_dict(), 0)
    window = (a.side,) * 3
    return chosen_in_turn(a, lambda: found.apply_to(a.batch, window)), found.params


def prediction(a):
    """As `training`, of the forward pass."""
    apply, params = network(a)
    params = jax.device_put(params)
    images = jax.random.uniform(jax.random.key(0), (a.batch, *(a.side,) * 3, 1))
    run = jax.jit(apply, compiler_options=compiler.network())
    compiled, when = compiled_of(run, params, images)
    return compiled, lambda: jax.block_until_ready(compiled(params, images)), when


def compiled_of(function, *arguments):
    start = time.time()
    compiled = function.lower(*arguments).compile()
    return compiled, (start, time.time())


def program(a):
    return training(a) if a.what == "step" else prediction(a)


def row_of(a, **facts):
    row = {"what": a.what, "size": a.size, "side": a.side, "batch": a.batch}
    row |= {"kernels": a.kernels, "remat": a.remat if a.what == "step" else ""}
    return row | a.chosen | facts


def whole_program(a):
    """A step or a forward pass: compiled, then timed or traced."""
    compiled, once, when = program(a)
    turns.wait()
    if a.timeline:
        turns.say(**traced(a, once))
        return
    found = turns.milliseconds(once, a.repeat)
    memory = compiled.memory_analysis()
    facts = {
        **found,
        "windows_per_s": round(1e3 * a.batch / found["ms"], 2),
        "temp_gib": round(memory.temp_size_in_bytes / 2**30, 2),
    }
    if a.what == "step":
        facts["loss"] = float(once()["loss"])
    turns.say(**row_of(a, compiled=when, **facts, peak_gib=peak_gib()))


def traced(a, once):
    once()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(TRACED):
                once()
        turns.say()  # the turn is over
        ran = timeline.kernels(timeline.load(folder))
    row = row_of(a) | {"what": f"timeline {a.what}"}
    if not ran:
        return row | {"failed": "the trace holds no kernel of a GPU"}
    found = timeline.summary(ran, TRACED)
    return row | {"ms": found["device_ms"], "timeline": found}


def compiled_again(a):
    """Seconds until a second process of the same program could run."""
    a.what = a.program
    _, _, when = program(a)
    row = row_of(a, compiled=when)
    turns.say(**row | {"what": f"{a.program}, second start"})


def peak_gib():
    facts = jax.local_devices()[0].memory_stats() or {}
    return round(facts.get("peak_bytes_in_use", 0) / 2**30, 2)


def operations(a):
    """Every use of a training step or a forward pass: its candidates beside its floor."""
    config = configuration(a)
    recorder = Recorder()
    if a.program == "step":
        mesh = devices.make_mesh((("data", 1), ("space", 1)), jax.devices()[:1])
        record_uses(mesh, config, a.batch, recorder)
    else:
        found = untrained_network(config.predict, config.model.to_dict(), 0)
        images = jax.ShapeDtypeStruct((a.batch, *(a.side,) * 3, 1), np.float32)
        jax.eval_shape(found.make_apply(recorder), found.params, images)
    limits = {"uses": a.uses, "candidates": a.candidates, "seconds": a.seconds}
    facts = bench_operations.rows(recorder, **limits, repeat=a.repeat)
    turns.say(**row_of(a) | {"program": a.program} | facts)
    end_process(0)  # for a kernel that does not return


def predict(a):
    """Rows of the stub and of the network, each run once before it is timed."""
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "benchmarks"))
    from bench_predict import make_image, stub

    apply, params = network(a)
    grid = Grid((a.volume,) * 3, (a.side,) * 3)
    with tempfile.TemporaryDirectory() as folder:
        image = make_image(pathlib.Path(folder) / "image", grid.shape)
        output = create_zarr(
            pathlib.Path(folder) / "raw",
            shape=(3, *grid.shape),
            dtype="float16",
            chunks=(1, *(min(c, a.volume) for c in CHUNK)),
            axes="cxyz",
        )
        ways = {"stub": (stub, np.float32(0.5)), a.size: (apply, params)}
        for name, way in ways.items():

            def once(way=way):
                predict_volume(
                    *way,
                    image,
                    output,
                    grid,
                    batch_per_device=a.batch,
                    conversion=Conversion(channels=(0, 1, 2)),
                )

            once()
            turns.wait()
            before, start = time.process_time(), time.perf_counter()
            once()
            seconds = time.perf_counter() - start
            used = time.process_time() - before
            turns.say(
                **row_of(a) | {"size": name, "what": "predict_volume"},
                ms=round(1e3 * seconds),
                windows_per_s=round(grid.count / seconds, 1),
                cpu_ms_per_window=round(1e3 * used / grid.count, 1),
                note=f"{grid.count} windows of {a.volume}^3",
                peak_gib=peak_gib(),
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"step": whole_program, "forward": whole_program, "again": compiled_again}
    parts |= {"operations": operations, "predict": predict}
    parser.add_argument("what", choices=parts)
    parser.add_argument("--program", default="step", help="with again and operations")
    parser.add_argument("--size", default="L")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--volume", type=int, default=512, help="side, with predict")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--uses", type=int, default=0, help="with operations")
    parser.add_argument("--candidates", type=int, default=0, help="with operations")
    parser.add_argument("--seconds", type=float, default=90, help="with operations")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--remat", default="block")
    parser.add_argument("--repeat", type=int, default=8)
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--plain", action="store_true", help="XLA by its defaults")
    parser.add_argument("--verbose", action="store_true", help="candidates, one by one")
    a = parser.parse_args()
    if a.plain:
        compiler.network = lambda: None
    if a.verbose:
        logging.set_verbosity(logging.DEBUG)
    a.chosen = {}
    parts[a.what](a)


if __name__ == "__main__":
    main()
