"""Whether two commits write the same: a tiny run of every mode at each, file by file.

python tests/same_bytes.py BEFORE [AFTER]        (AFTER: the working tree)

Not a test: run it before and after code has moved. A file is `same` where its bytes are, or
where they are but for the commit's own words: times, versions, fingerprints of the
configuration.
"""

import argparse
import csv
import itertools
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
TINY = ROOT / "tests" / "slow" / "tiny_config.py"
# Written by the clock, or about the process.
_SKIPPED = re.compile(
    r"events\.out|environment\.json|command\.txt|\.lock$|\.manifest\.jsonl|\.db$"
    r"|checkpoints/.*/(d|_|ocdbt|manifest|array_metadatas)|SHA256SUMS|\.count$"
)
_TIMES = re.compile(
    rb'(?i)("?(timestamp|seconds|since|[a-z_]*fingerprint|config|software)"?: *)'
    rb'("[^"]*"|[^,\n]*)|time/[a-z_]*": [^,}]*|memory/[a-z_]*": [^,}]*'
)


def run_of(checkout: pathlib.Path, folder: pathlib.Path) -> None:
    """Every mode once, one after the other, in one run."""
    data = f"--config.data.root={folder}/data"
    raw = next(iter(sorted(folder.glob("test_step=*/seed6/raw*.zarr"))), None)

    def launch(mode: str, *flags: str) -> None:
        command = [sys.executable, "-m", "nisbjax.launch", f"--mode={mode}", *flags]
        done = subprocess.run(
            command,
            cwd=checkout,
            env=_environment(checkout),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{mode} at {checkout}: {done.stderr[-1500:]}")

    tiny = f"--config={TINY}", f"--workdir={folder}"
    launch("demo", *tiny)
    raw = next(folder.glob("test_step=*/seed6/raw*.zarr"))
    alone = folder / "alone"
    alone.mkdir()
    launch("export", *tiny, data)
    launch("validate", *tiny, data)
    launch(
        "predict",
        *tiny,
        data,
        f"--config.predict.output={alone}/raw.h5",
        "--config.predict.format=h5",
        "--config.predict.roi=0:32,0:32,0:32",
    )
    qc = f"--config.qc.input={raw}", f"--config.qc.report={alone}/report.md"
    launch("qc", *tiny, data, *qc, f"--config.mask.output={alone}/mask.h5")
    launch("mask", *tiny, data, f"--config.mask.report={alone}/report.md")
    for method in ("affinity_cc", "grow"):
        launch(
            "decode",
            *tiny,
            data,
            f"--config.decode.input={raw}",
            f"--config.decode.method={method}",
            f"--config.decode.output={alone}/{method}.zarr",
            f"--config.decode.affinity_mask={alone}/mask.h5",
            "--config.decode.threshold=0.5",
            "--config.decode.low_threshold=0.45",
        )
    launch(
        "evaluate",
        *tiny,
        data,
        f"--config.evaluate.segmentation={alone}/affinity_cc.zarr",
        f"--config.evaluate.skeleton={folder}/data/test/seed6/skeleton.pkl",
        f"--config.evaluate.label={folder}/data/test/seed6/data.zarr/seg",
        "--config.evaluate.metrics=('nerl','voi','adapted_rand')",
    )
    subprocess.run(
        [sys.executable, "-m", "nisbjax.launch", "--mode=summarize", str(folder)],
        cwd=checkout,
        env=_environment(checkout),
        capture_output=True,
        check=True,
    )


def _environment(checkout: pathlib.Path) -> dict[str, str]:
    import os

    return {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": f"{tempfile.gettempdir()}/nisbjax-same-bytes",
    }


def content(folder: pathlib.Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not _SKIPPED.search(name):
            data = path.read_bytes()
            if path.suffix == ".csv":
                data = _without_seconds(data.decode()).encode()
            found[name] = _TIMES.sub(rb"\1", data) if _is_text(path) else data
    return found


def _without_seconds(text: str) -> str:
    rows = csv.DictReader(text.splitlines())
    return "".join(
        f"{ {k: v for k, v in r.items() if k != 'seconds'} }\n" for r in rows
    )


def _is_text(path: pathlib.Path) -> bool:
    return path.suffix in {".json", ".jsonl", ".txt", ".md", ".yaml", ".csv"} or (
        path.name in (".zattrs", ".zarray", "metadata")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = []
        for side, commit in (("a", given.before), ("b", given.after)):
            checkout = ROOT
            if commit:
                checkout = pathlib.Path(temporary) / f"checkout_{side}"
                subprocess.run(
                    ["git", "worktree", "add", "--detach", "-q", checkout, commit],
                    cwd=ROOT,
                    check=True,
                )
            # One after the other in one place: paths are in attributes and fingerprints.
            run = pathlib.Path(temporary) / "run"
            run_of(checkout, run)
            runs.append(content(run))
            shutil.rmtree(run)
            if commit:
                subprocess.run(
                    ["git", "worktree", "remove", "--force", checkout],
                    cwd=ROOT,
                    check=True,
                )
    before, after = runs
    same = [n for n in before if before[n] == after.get(n)]
    for name in sorted(before.keys() | after.keys()):
        if name not in same:
            word = "gone" if name not in after else "new" if name not in before else ""
            print(f"{word or 'differs':>8}  {name}")
            if not word and _is_text(pathlib.Path(name)):
                pairs = zip(before[name].splitlines(), after[name].splitlines())
                for old, new in itertools.islice(
                    ((o, n) for o, n in pairs if o != n), 3
                ):
                    print(
                        f"          - {old.decode()[:200]}\n          + {new.decode()[:200]}"
                    )
    print(f"{len(same)} of {len(before)} files are the same")
    sys.exit(len(same) != len(before) or len(after) != len(before))


if __name__ == "__main__":
    main()
