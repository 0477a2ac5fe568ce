"""What a GPU makes of this project: one command, one table, five minutes.

    make bench-gpu
    python3 tests/gpu/bench.py [--only step,forward,predict] [--budget 300] [--out FILE.json] [--logs FOLDER]
    python3 tests/gpu/bench.py --quick --side 16      a dry run on a CPU, for the program's sake

It installs nothing, needs no network, and of the project no more than the checkout. Parts:

    tests       tests/gpu by pytest
    step        training steps of S (all kept) and L (blocks computed again), fp16, batch 2
    forward     forward passes of S and L, fp16, batch 4
    sizes       steps and forward passes of both at 80^3 (batch 6) and 96^3 (batch 4)
    plain       the same of L without what the project tells XLA (`parallel/compiler.py`)
    remat       the step of L with other choices of what is computed again
    again       a second process of the step and the forward pass of L that were asked for,
                which finds what the first has compiled
    operations  candidates of each operation of --programs (step,forward) beside their floors: the
                largest first, as many as --seconds compiles; which were the fastest goes into --out as
                "kernels", a table like nisbjax/models/kernels/h100.json
    predict     predict_volume from zarr to zarr, and the same path with a stub for the network
    timeline    kernels of a step and of a forward pass of L, by what they are part of
    torch       torch's side of step and forward, eager and compiled; nothing where it is absent

Every part is a process of its own. They prepare side by side, since compilation takes most of
the time, and are timed one at a time, while all others stand still. What fails, or does not end
in time, is a line that says so. compile_s and start_s (since the process began) are beside
other compilations; --jobs 1 --only step,again tells them alone.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARTS = ("tests", "step", "forward", "sizes", "plain", "remat", "again")
PARTS += ("operations", "predict", "timeline", "torch")
READY, CHOOSE = {"ready": True}, {"choose": True}  # see turns.py
TURN_S = 120  # that a process may be timed, or choose its kernels
Row = dict[str, Any]


@dataclasses.dataclass(eq=False)
class Task:
    """A process, and what is to be known of it.

    Attributes:
      row: what its rows have in common, for a row that says why there is none.
      command: the program and its arguments.
      after: a task that has to have ended before, and whose compilations are found again.
      flags: XLA_FLAGS.
      ended: set when its rows are there.
      began: when its process was started.
    """

    row: Row
    command: list[str]
    after: "Task | None" = None
    flags: str = ""
    ended: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    began: float = 0.0


def tasks_of(a: argparse.Namespace) -> list[Task]:
    """What is asked for, the longest and most wanted first."""
    made: list[Task] = []
    chosen = set(a.only.split(",")) if a.only else set(PARTS)
    unknown = chosen - set(PARTS)
    if unknown:
        raise SystemExit(f"--only has {', '.join(unknown)}; wanted {', '.join(PARTS)}")

    def ours(
        part: str, what: str, size: str, side: int, batch: int, **more: Any
    ) -> Task:
        fields = ("after", "flags", "row")
        options = {key: more.pop(key) for key in fields if key in more}
        remat = more.pop("remat", "none" if size == "S" else "block")
        kernels = more.pop("kernels", a.kernels.split(",")[0])
        row = {"what": what, "size": size, "side": side, "batch": batch}
        row |= {"kernels": kernels} | options.pop("row", {})
        words = {"size": size, "side": side, "batch": batch, "kernels": kernels}
        words |= {"remat": remat, "channels": a.channels, "repeat": a.repeat} | more
        words |= {"verbose": True} if a.logs else {}
        script = [str(HERE / "bench_ours.py"), what]
        task = Task(row, [*script, *_flags(words)], **options)
        if part in chosen:
            made.append(task)
        return task

    _, *others = a.kernels.split(",")
    side, large = a.side, a.sizes.split(",")[-1]
    step = ours("step", "step", large, side, 2)
    forward = ours("forward", "forward", large, side, 4)
    if "torch" in chosen:
        made += _torch_tasks(a, large)
    off = "--xla_gpu_enable_command_buffer=" if not a.quick else ""
    for what, batch in (("step", 2), ("forward", 4)):
        named = {"what": f"timeline {what}"}
        ours("timeline", what, large, side, batch, timeline=True, flags=off, row=named)
    volume = {"volume": a.volume, "row": {"what": "predict_volume"}}
    ours("predict", "predict", large, side, 4, **volume)
    limits = {"uses": a.uses, "candidates": a.candidates, "seconds": a.seconds}
    for program, batch in (("step", 2), ("forward", 4)):
        if program in a.programs.split(","):
            words = {"program": program, "kernels": "auto", **limits}
            ours("operations", "operations", large, side, batch, **words)
    for kernels in others:
        ours("step", "step", large, side, 2, kernels=kernels)
        ours("forward", "forward", large, side, 4, kernels=kernels)
    if "S" in a.sizes.split(",") and large != "S":
        for kernels in a.kernels.split(","):
            ours("step", "step", "S", side, 2, kernels=kernels)
            ours("forward", "forward", "S", side, 4, kernels=kernels)
        if "torch" in chosen:
            made += _torch_tasks(a, "S")
    for what, task, batch in (("step", step, 2), ("forward", forward, 4)):
        named = {"what": f"{what}, second start"}
        words = {"program": what, "after": task, "row": named}
        if task in made:
            ours("again", "again", large, side, batch, **words)
    for what, batch in (("step", 2), ("forward", 4)):
        named = {"note": "XLA by its defaults"}
        ours("plain", what, large, side, batch, plain=True, row=named)
    for remat in ("expansion", "none") if large != "S" else ("expansion",):
        ours("remat", "step", large, side, 2, remat=remat, row={"remat": remat})
    for small, batch in ((80 * side // 128, 6), (96 * side // 128, 4)):
        small = max(16, small // 16 * 16)
        for size in a.sizes.split(","):
            ours("sizes", "step", size, small, batch)
            ours("sizes", "forward", size, small, batch)
    if "tests" in chosen:
        made.append(Task({"what": "tests of tests/gpu"}, _tests()))
    return made


def _tests() -> list[str]:
    # A library that deprecates something must not hide what the device computes.
    return ["-m", "pytest", "-q", "-m", "gpu", "-W", "default", str(HERE)]


def _torch_tasks(a: argparse.Namespace, size: str) -> list[Task]:
    made = []
    for what, batch in (("step", 2), ("forward", 4)):
        words = {"size": size, "side": a.side, "batch": batch, "channels": a.channels}
        words |= {"remat": "none" if size == "S" else "block", "repeat": a.repeat}
        row = {"what": f"torch {what}", "size": size, "side": a.side, "batch": batch}
        script = [str(HERE / "bench_torch.py"), what]
        made.append(Task(row, [*script, *_flags(words)]))
    return made


def _flags(words: dict[str, Any]) -> list[str]:
    found = [f"--{k}={v}" for k, v in words.items() if not isinstance(v, bool)]
    return found + [f"--{k}" for k, v in words.items() if v is True]


class Bench:
    """Runs tasks within a budget of seconds, and keeps their rows.

    Args:
      budget: of seconds, from now.
      jobs: processes that prepare at a time.
      folder: for what is compiled and what processes say.
    """

    def __init__(self, budget: float, jobs: int, folder: pathlib.Path):
        self.rows: list[Row] = []
        self.said: list[tuple[Task, pathlib.Path]] = []  # what each task wrote
        self._end = time.monotonic() + budget
        self._budget = budget
        self._slots = asyncio.Semaphore(jobs)
        self._turn = asyncio.Lock()
        self._turns: list[tuple[float, float]] = []  # when all others stood still
        self._folder = folder
        self._running: dict[Task, Any] = {}

    async def run(self, tasks: Sequence[Task]) -> None:
        """Ends when every task has rows; all processes have ended then."""
        await asyncio.gather(*map(self._one, tasks))

    async def _one(self, task: Task) -> None:
        try:
            if task.after:
                await task.after.ended.wait()
            async with self._slots:
                left = self._end - time.monotonic()
                if left < min(10.0, self._budget / 2):
                    self._take(task, {"failed": "not begun: the budget is spent"})
                    return
                prepared = asyncio.Event()
                working = asyncio.create_task(self._work(task, left, prepared))
                await prepared.wait()
            await working
        finally:
            task.ended.set()

    async def _work(self, task: Task, limit: float, prepared: asyncio.Event) -> None:
        """One process, from its start to its end or the budget's."""
        said = self._folder / f"{id(task)}.txt"
        self.said.append((task, said))
        task.began = time.time()
        with said.open("w") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *task.command,
                cwd=ROOT,
                env=self._environment(task),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=1 << 24,
                start_new_session=True,
            )
        self._running[task] = process
        failed = ""
        try:
            await asyncio.wait_for(self._talk(process, task, prepared), limit)
        except TimeoutError:
            failed = f"did not end in {time.time() - task.began:.0f} s"
        finally:
            _signal(process, signal.SIGKILL)
            await process.wait()
            del self._running[task]
            prepared.set()
        if process.returncode and not failed:
            failed = f"failed: {_last_line(said) or process.returncode}"
        if failed:
            self._take(task, {"failed": failed})

    async def _talk(self, process: Any, task: Task, prepared: asyncio.Event) -> None:
        """Takes the rows of a process, which has its turn as often as it asks for it."""
        last = ""
        while line := await process.stdout.readline():
            row = _row(line)
            if row == READY:
                prepared.set()
            if row in (READY, CHOOSE):
                async with self._turn:
                    row = await self._alone(process)
            if row is not None:
                self._take(task, row)
            last = line.decode(errors="replace").strip() or last
        await process.wait()
        if "pytest" in task.command:
            self._take(task, {"note": last})

    async def _alone(self, process: Any) -> Row | None:
        """The next row of a process, made while all others stand still.

        Raises:
          TimeoutError: it takes too long.
        """
        others = [other for other in self._running.values() if other is not process]
        began = time.time()
        try:
            for other in others:
                _signal(other, signal.SIGSTOP)
            await asyncio.sleep(0.2)  # what they had begun on the device ends
            process.stdin.write(b"\n")
            await process.stdin.drain()
            return _row(await asyncio.wait_for(process.stdout.readline(), TURN_S))
        finally:
            self._turns.append((began, time.time()))
            for other in others:
                _signal(other, signal.SIGCONT)

    def _environment(self, task: Task) -> dict[str, str]:
        found = dict(os.environ)
        paths = (str(ROOT), found.get("PYTHONPATH", ""))
        found["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        found["XLA_FLAGS"] = f"{found.get('XLA_FLAGS', '')} {task.flags}".strip()
        # Many processes share a device's memory.
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        # Each compiles all that is its own; only a second start finds what the first left.
        compiled = self._folder / f"{id(task.after or task)}"
        found["JAX_COMPILATION_CACHE_DIR"] = str(compiled)
        found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        found["TORCHINDUCTOR_CACHE_DIR"] = str(self._folder / "inductor")
        if "pytest" in task.command:
            found.setdefault("JAX_PLATFORMS", "cuda,cpu")
        return found

    def _take(self, task: Task, row: Row) -> None:
        if not row:  # only the end of a turn
            return
        row = {**task.row, **row}
        if "compiled" in row:
            start, end = row.pop("compiled")
            row["compile_s"] = self._moving(start, end)
            row["start_s"] = self._moving(task.began, end)
        self.rows.append(row)
        print(json.dumps(row)[:300], file=sys.stderr, flush=True)

    def _moving(self, start: float, end: float) -> float:
        """Seconds from one time to another without turns of others in between."""
        stood = (min(end, b) - max(start, a) for a, b in self._turns)
        return round(end - start - sum(max(0.0, s) for s in stood), 1)


def _signal(process: Any, number: int) -> None:
    """To a process and all that it started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _row(line: bytes) -> Row | None:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return None


def _last_line(path: pathlib.Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else ""


COLUMNS = ("what", "size", "side", "batch", "kernels", "remat", "ms", "windows_per_s")
COLUMNS += (
    "pallas",
    "choose_s",
    "peak_gib",
    "temp_gib",
    "compile_s",
    "start_s",
    "note",
)


OPERATION_COLUMNS = ("operation", "arrays", "floor_ms", "xla_ms", "xla_error")
OPERATION_COLUMNS += ("pallas_ms", "pallas_error", "tile", "fastest", "times_floor")
OPERATION_COLUMNS += ("note",)


def kernels_table(device: str, rows: Sequence[Row]) -> Row:
    """The candidates that were the fastest, as `nisbjax.models.kernels.table.shipped` reads."""
    chosen: dict[str, str] = {}
    for row in rows:
        chosen |= row.get("chosen", {})
    return {"device": device, "chosen": chosen}


def table(rows: Sequence[Row]) -> str:
    """Rows under their columns, then operations and timelines under theirs."""
    plain = [
        row | {"note": row.get("failed") or row.get("note", "")}
        for row in sorted(rows, key=_order)
        if "operations" not in row
    ]
    parts = [_aligned(COLUMNS, plain)]
    for row in rows:
        if "operations" in row:
            found = row["operations"]
            head = f"{len(found)} of {row['uses']} operations of a {row['program']} of {row['size']}, "
            head += f"at {row['copy_tb_per_s']:.2f} TB/s"
            parts.append(f"{head}\n{_aligned(OPERATION_COLUMNS, found)}")
        if "timeline" in row:
            found = row["timeline"]
            head = f"{row['what']}, {row['size']}, {row['kernels']}: "
            head += f"{found['device_ms']} ms in {found['kernels']} kernels"
            sums = [{"part": k, "ms": v} for k, v in found["parts"].items()]
            columns = ("ms", "times", "name", "source")
            longest = _aligned(columns, found["longest"])
            parts.append(f"{head}\n{_aligned(('part', 'ms'), sums)}\n\n{longest}")
    return "\n\n".join(parts)


def _order(row: Row) -> tuple:
    whats = ("step", "torch step", "forward", "torch forward", "predict_volume")
    what = row["what"]
    place = whats.index(what) if what in whats else len(whats)
    return place, what, str(row.get("size", "")), -int(row.get("side", 0))


def _aligned(columns: Sequence[str], rows: Sequence[Row]) -> str:
    used = [c for c in columns if any(str(row.get(c, "")) for row in rows)]
    cells = [used]
    cells += [[_shown(row.get(column, "")) for column in used] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def keep_logs(said: Sequence[tuple[Task, pathlib.Path]], folder: pathlib.Path) -> None:
    """A file for each part, named by number and part: candidates' times and refusals."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (task, path) in enumerate(said):
        name = "_".join([f"{number:02d}", *task.row["what"].split()])
        shutil.copyfile(path, folder / f"{name}.txt")


def device() -> Row:
    """What JAX finds here, asked in a process that gives the device back."""
    program = (
        "import json, jax; d = jax.devices()[0]; "
        "print(json.dumps({'backend': jax.default_backend(), 'device': d.device_kind, "
        "'jax': jax.__version__}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"JAX does not start: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = os.cpu_count() or 2
    parser.add_argument("--only", default="", help="parts, of those above")
    parser.add_argument("--budget", type=float, default=300, help="seconds in all")
    parser.add_argument("--out", default="", help="a file for the rows as JSON")
    parser.add_argument("--logs", default="", help="a folder for what each part said")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--sizes", default="S,L")
    parser.add_argument("--kernels", default="auto,xla", help="auto, xla, pallas")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--volume", type=int, default=512, help="side, with predict")
    parser.add_argument("--programs", default="step", help="of which operations")
    parser.add_argument("--uses", type=int, help="largest operations; 0 for all")
    parser.add_argument("--candidates", type=int, help="of each, first ones; 0 for all")
    parser.add_argument("--seconds", type=float, default=90, help="to compile them")
    parser.add_argument("--repeat", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=max(1, cores // 2))
    parser.add_argument("--quick", action="store_true", help="small, on any device")
    a = parser.parse_args(arguments)
    if a.quick:
        a.sizes, a.channels, a.volume, a.repeat = "S", 8, 24, 2
    # Of a dry run XLA's form alone, since kernels are interpreted there.
    for name, few in (("uses", 6), ("candidates", 1)):
        if getattr(a, name) is None:
            setattr(a, name, few if a.quick else 0)
    return a


def main() -> None:
    a = parse()
    started = time.monotonic()
    facts = device()
    if facts["backend"] == "cpu" and not a.quick:
        raise SystemExit("JAX finds no GPU here; --quick --side 16 is the dry run")
    tasks = tasks_of(a)
    missing = importlib.util.find_spec("torch") is None
    if missing:
        tasks = [task for task in tasks if not task.row["what"].startswith("torch")]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(a.budget, a.jobs, pathlib.Path(folder))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        asyncio.run(bench.run(tasks))
        if a.logs:
            keep_logs(bench.said, pathlib.Path(a.logs))
    rows = bench.rows
    if missing and (not a.only or "torch" in a.only.split(",")):
        rows.append({"what": "torch step", "failed": "torch is not installed"})
    took = round(time.monotonic() - started)
    print(f"{facts['device']}, jax {facts['jax']}, {os.cpu_count()} cores, {took} s")
    print(table(rows))
    if a.out:
        found = {**facts, "kernels": kernels_table(facts["device"], rows), "rows": rows}
        pathlib.Path(a.out).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
