"""MedNeXt against torch on this machine: forward pass, training step, memory, compiling.

python tests/benchmarks/bench_mednext.py                       (all of it: tens of minutes)
python tests/benchmarks/bench_mednext.py --what forward --size S --side 64
python tests/benchmarks/bench_mednext.py --what step --size L --contender ours,compiled

Every contender is a process of its own on the same cores, under the same malloc settings;
they take turns, so that what else the machine does hits all alike. torch runs eagerly and
compiled, each in both memory layouts, with the twin of `tests/parity`; it is left out where
it is not installed. A part prints one line of JSON: medians of wall and CPU seconds, and
the ratio of torch's best to ours in each.

  forward   logits of one cube (128^3); torch under inference_mode
  step      loss, gradient and SGD update (64^3), everything kept for the backward pass
  memory    the same with each block computed again, and the peak of resident memory:
            of the process, and (own_mb) beyond what it held before the step, parameters
            and libraries
  compile   our training step traced, lowered and compiled, without and with a cache
"""

import argparse
import ctypes
import importlib.util
import itertools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve()
SIDES = {"forward": 128, "step": 64, "memory": 64, "compile": 64}
TORCH = ("eager", "eager_last", "compiled", "compiled_last")
# Memory-bound loops run 1.5 to 3 times as fast on large pages, under either library.
PAGES = "glibc.malloc.hugetlb=1"


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def our_program(a):
    """A function without arguments that runs once, compiled; and seconds of compiling."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from nisbjax.models.mednext import MedNeXt

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
    state = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)
    image = jax.random.uniform(jax.random.key(0), (1, *(a.side,) * 3, 1))

    def forward(state, image):
        return nnx.merge(graph, state)(image)

    def loss(state, image):
        logits = forward(state, image)
        return (jax.nn.softplus(logits) - logits * (image > 0.5)).mean()

    def step(state, image):
        gradient = jax.grad(loss)(state, image)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, state, gradient)

    trained = a.program != "forward"
    jitted = jax.jit(step, donate_argnums=0) if trained else jax.jit(forward)
    times = [time.perf_counter()]
    traced = jitted.trace(state, image)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    seconds = [b - a for a, b in itertools.pairwise(times)]
    box = [state]

    def once():
        result = jax.block_until_ready(compiled(box[0], image))
        if trained:
            box[0] = result

    return once, dict(zip(("trace_s", "lower_s", "compile_s"), seconds))


def torch_program(a):
    """The same of torch's twin."""
    sys.path.append(str(HERE.parents[1] / "parity"))
    import torch
    from torch_mednext import MedNeXt

    torch.set_num_threads(a.threads)
    network = MedNeXt(a.size, a.kernel, channels=a.channels, remat=bool(a.remat))
    layout = torch.contiguous_format
    if a.contender.endswith("_last"):
        layout = torch.channels_last_3d
    network = network.to(memory_format=layout)
    image = torch.rand(1, 1, *(a.side,) * 3).to(memory_format=layout)
    parameters = [p for n, p in network.named_parameters() if n != "dummy_tensor"]
    run = network
    if a.contender.startswith("compiled"):
        run = torch.compile(network, dynamic=False)

    def forward():
        with torch.inference_mode():
            run(image)

    def step():
        logits = run(image)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, (image > 0.5).float().expand_as(logits)
        )
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-1e-3)

    return forward if a.program == "forward" else step, {}


def work(a):
    """One contender: prepares, then runs once for each line that it is sent."""
    os.sched_setaffinity(0, range(a.threads))
    started = time.perf_counter()
    once, facts = (our_program if a.contender == "ours" else torch_program)(a)
    facts["whole_peak_mb"] = 0.0
    if a.program != "compile":
        once()
        facts["prepared_s"] = time.perf_counter() - started
    facts["whole_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    forget_peak()
    facts["held_mb"] = resident_mb("VmRSS")
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        wall, used = time.perf_counter(), processor_seconds()
        once()
        wall, used = time.perf_counter() - wall, processor_seconds() - used
        print(
            json.dumps({"wall": wall, "cpu": used, "peak": resident_mb("VmHWM")}),
            flush=True,
        )


def forget_peak() -> None:
    """Starts the peak of resident memory again, so that compiling does not count."""
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def resident_mb(field: str) -> float:
    """VmRSS: now; VmHWM: at most, since `forget_peak`."""
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


class Contender:
    """A process that runs the program when it is asked."""

    def __init__(self, a, name, program, size, side, remat, cache=None):
        command = [sys.executable, str(HERE), "--worker", "--contender", name]
        command += ["--program", program, "--size", size, "--side", str(side)]
        command += ["--kernel", str(a.kernel), "--channels", str(a.channels)]
        command += ["--threads", str(a.threads), "--remat", str(remat)]
        command += ["--dtype", a.dtype]
        environment = {**os.environ, "GLIBC_TUNABLES": a.malloc, "JAX_PLATFORMS": "cpu"}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        if cache:
            environment["JAX_COMPILATION_CACHE_DIR"] = cache
            environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        self.name, self.runs = name, []
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if a.verbose else subprocess.DEVNULL,
            text=True,
        )
        self.facts = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early; --verbose shows why")
        return json.loads(line)

    def run(self):
        print("go", file=self.process.stdin, flush=True)
        self.runs.append(self.answer())

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def summary(self):
        found = {
            "wall_s": statistics.median(r["wall"] for r in self.runs),
            "best_wall_s": min(r["wall"] for r in self.runs),
            "cpu_s": statistics.median(r["cpu"] for r in self.runs),
            "peak_mb": max(r["peak"] for r in self.runs),
        }
        found["own_mb"] = found["peak_mb"] - self.facts["held_mb"]
        return {k: round(v, 3) for k, v in {**found, **self.facts}.items()}


def compare(a, what, size):
    """One part: all contenders in turn, `repeat` times."""
    side = a.side or SIDES[what]
    program = "forward" if what == "forward" else "step"
    contenders = []
    for name in a.contender.split(","):
        begun = Contender(a, name, program, size, side, int(what == "memory"))
        contenders.append(begun)
    for _ in range(a.repeat):
        for contender in contenders:
            time.sleep(0.5)  # OpenMP's threads spin on for a while
            contender.run()
    for contender in contenders:
        contender.close()
    found = {c.name: c.summary() for c in contenders}
    line = {"what": what, "size": size, "kernel": a.kernel, "side": side}
    line |= {"channels": a.channels, "threads": a.threads, "repeat": a.repeat}
    line |= found
    rivals = [c for name, c in found.items() if name != "ours"]
    if rivals and "ours" in found:
        ours = found["ours"]
        for kind in ("eager", "compiled"):
            group = [c for n, c in found.items() if n.startswith(kind)]
            if group:
                line[f"torch_{kind}_over_ours"] = {
                    key: round(min(c[key] for c in group) / ours[key], 2)
                    for key in ("wall_s", "cpu_s", "peak_mb", "own_mb")
                }
    print(json.dumps(line), flush=True)


def compile_times(a, size):
    """Seconds to the executable, in fresh processes: no cache, then a warm one."""
    side = a.side or SIDES["compile"]
    line = {"what": "compile", "size": size, "kernel": a.kernel, "side": side}
    with tempfile.TemporaryDirectory() as cache:
        for state in ("cold", "warm"):
            worker = Contender(a, "ours", "compile", size, side, 1, cache)
            worker.close()
            steps = {k: v for k, v in worker.facts.items() if k.endswith("_s")}
            line[state] = {k: round(v, 2) for k, v in steps.items()}
            line[state]["sum_s"] = round(sum(steps.values()), 2)
    print(json.dumps(line), flush=True)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", default="forward,step,memory,compile")
    parser.add_argument("--size", default="S,L")
    parser.add_argument("--side", type=int, default=0, help="0: see above")
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--dtype", default="float32", help="compute type of ours")
    parser.add_argument("--contender", default="")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--malloc", default=PAGES, help="GLIBC_TUNABLES of either side")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--program", default="", help=argparse.SUPPRESS)
    parser.add_argument("--remat", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    a = parse()
    if a.worker:
        work(a)
        return
    if not a.contender:
        present = importlib.util.find_spec("torch") is not None
        a.contender = ",".join(("ours", *(TORCH if present else ())))
        if not present:
            print("torch is not installed: ours alone", file=sys.stderr)
    for what in a.what.split(","):
        for size in a.size.split(","):
            if what == "compile":
                compile_times(a, size)
            else:
                compare(a, what, size)


if __name__ == "__main__":
    main()
