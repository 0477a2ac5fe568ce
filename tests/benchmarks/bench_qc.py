"""QC scan of a prediction: seconds, memory, and the same figures as the reference's.

    python tests/benchmarks/bench_qc.py [--shape 512 512 256] [--repeats 5] [--keep DIR]

The file is a 3-channel float16 HDF5 volume with gzip level 4 and h5py's own chunks, of
smooth noise through a sigmoid. Timed in turns, each in a process of its own: our scan,
reading the file once with h5py, and the reference's scan (PyTC `scan_prediction`, written
by us: blocks of planes through h5py, means of every tenth plane in float32). The best of
each counts. Targets for the default shape: 2.0 s on 2 cores, 0.5 GB, figures equal to 1e-6.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from scipy import ndimage

# Each is run as `python -c program file`; it prints one JSON line. Peak memory counts the
# interpreter and its libraries.
_TAIL = r"""
import json, re
# Not getrusage: a process inherits the peak of the one that starts it.
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1e6
print(json.dumps({"seconds": seconds, "gb": peak, "mean": mean, "std": std}))
"""
OURS = """
import sys, time
from nisbjax.qc import statistics
from nisbjax.store.volume import open_affinities
import numpy as np
statistics.measure(np.zeros((1, 1, 1, 8), np.float16), (0, 0, 0), None, (1, 1, 8))
started = time.perf_counter()
planes = statistics.scan(open_affinities(sys.argv[1])).planes
mean, std = planes.mean[:, ::10].tolist(), planes.std[:, ::10].tolist()
seconds = time.perf_counter() - started
"""
READ = """
import sys, time
import h5py
started = time.perf_counter()
with h5py.File(sys.argv[1]) as file:
    main = file["main"]
    for z in range(0, main.shape[3], main.chunks[3]):
        main[..., z : z + main.chunks[3]]
seconds, mean, std = time.perf_counter() - started, [], []
"""
REFERENCE = """
import sys, time
import h5py, numpy as np
started = time.perf_counter()
mean, std = [], []
with h5py.File(sys.argv[1]) as file:
    main = file["main"]
    block = max(main.chunks[3], 10)
    for first in range(0, main.shape[3], block):
        values = main[..., first : first + block]
        np.isnan(values).sum(), np.isinf(values).sum()
        for z in range(first, min(first + block, main.shape[3])):
            if z % 10 == 0:
                plane = values[..., z - first].astype(np.float32)
                mean.append(plane.mean((1, 2)).tolist())
                std.append(plane.std((1, 2)).tolist())
mean, std = np.transpose(mean).tolist(), np.transpose(std).tolist()
seconds = time.perf_counter() - started
"""


def make(path: pathlib.Path, shape: tuple[int, int, int]) -> None:
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        main = file.create_dataset(
            "main",
            shape=(3, *shape),
            dtype=np.float16,
            chunks=True,
            compression="gzip",
            compression_opts=4,
        )
        for channel in range(3):
            for x in range(0, shape[0], 64):
                size = min(64, shape[0] - x), *shape[1:]
                noise = draw.standard_normal(size, np.float32)
                smooth = 20 * ndimage.gaussian_filter(noise, 2)
                main[channel, x : x + 64] = 1 / (1 + np.exp(-smooth))


def timed(program: str, path: pathlib.Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", program + _TAIL, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 256))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", default="", help="folder for the file, used again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(arguments.keep or temporary)
        path = folder / ("x".join(map(str, arguments.shape)) + ".h5")
        if not path.exists():
            make(path, tuple(arguments.shape))
        programs = {"ours": OURS, "h5py read": READ, "reference": REFERENCE}
        best: dict[str, dict] = {}
        for _ in range(arguments.repeats):
            for name, program in programs.items():
                found = timed(program, path)
                if name not in best or found["seconds"] < best[name]["seconds"]:
                    best[name] = found
        size = path.stat().st_size / 1e6
    print(f"3 x {arguments.shape} float16, {size:.0f} MB gzip 4")
    for name, found in best.items():
        ratio = found["seconds"] / best["ours"]["seconds"]
        print(
            f"{name:>10}: {found['seconds']:6.2f} s ({ratio:4.1f}x), {found['gb']:.2f} GB"
        )
    for figure in ("mean", "std"):
        ours, theirs = (np.array(best[n][figure]) for n in ("ours", "reference"))
        print(f"{figure}: differs by at most {np.abs(ours - theirs).max():.1e}")


if __name__ == "__main__":
    main()
