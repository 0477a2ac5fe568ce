"""The batch scripts, with an `srun` and a `python` that only say how they were called."""

import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "launch" / "slurm"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
TRAINING = ("train", "seeds")

# Ends as training does on USR1, or with the status that the test asks for.
PYTHON = """#!/usr/bin/env bash
trap 'exit "${ON_SIGNAL:-143}"' USR1
echo "$*" > "$FAKES/python.partial" && mv "$FAKES/python.partial" "$FAKES/python.log"
[[ $WAITS ]] || exit "${STATUS:-0}"
for _ in {1..200}; do [[ -e $FAKES/scontrol.log ]] && exit; sleep 0.05; done
"""
SRUN = """#!/usr/bin/env bash
trap 'kill -USR1 $task' USR1
echo "$*" > "$FAKES/srun.log"
while [[ $1 == --* ]]; do shift; done
"$@" &
task=$!
wait $task
status=$?
while kill -0 $task 2>/dev/null; do wait $task; status=$?; done
exit $status
"""
SCONTROL = """#!/usr/bin/env bash
echo "$*" >> "$FAKES/scontrol.log"
"""


@pytest.fixture
def environment(tmp_path):
    for name, text in (("python", PYTHON), ("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    return kept | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "FAKES": str(tmp_path),
        "PYTHON": str(tmp_path / "python"),
        "SLURM_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "1",
    }


def said(environment, name):
    path = pathlib.Path(environment["FAKES"]) / f"{name}.log"
    return path.read_text().strip() if path.exists() else ""


def submit(name, environment, *arguments):
    script = ["bash", str(FOLDER / f"{name}.sbatch"), *arguments]
    return subprocess.run(
        script, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_sound_and_of_no_site(script, environment):
    text = script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert not re.search(r"--(partition|account|qos|reservation|mail-user|chdir)", text)
    assert not re.search(r"(?<![\w./$}*])/(?!dev/null|usr/bin/env|tmp\b)\w", text)
    assert "--workdir=" in text and "module load" not in text
    assert re.search(r"#SBATCH --signal=B:USR1@\d+\n", text)
    assert "#SBATCH --requeue\n" in text and "#SBATCH --open-mode=append\n" in text
    assert 'scontrol requeue "$SLURM_JOB_ID"' in text
    for arguments in ((), ("configs/liconn.py",)):
        done = submit(script.stem, environment, *arguments)
        assert done.returncode and f"usage: sbatch {script.name}" in done.stderr
    assert not said(environment, "python")


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("train", "train --config=c.py --workdir=a b"),
        ("seeds", "train --config=c.py --workdir=a b/seed=1 --config.seed=1"),
        ("test", "test --config=c.py --workdir=a b"),
        ("tune", "tune-test --config=c.py --workdir=a b"),
    ],
)
def test_what_a_script_runs(environment, name, wanted):
    given = ("c.py", "a b", "--config.x=1", "--config.y=2")
    done = submit(name, environment, *given)
    assert done.returncode == 0, done.stderr
    flags = "--config.x=1 --config.y=2"
    assert said(environment, "python") == f"-m nisbjax.launch --mode={wanted} {flags}"
    started = said(environment, "srun")
    assert started.startswith("--kill-on-bad-exit=1") == (name in TRAINING)
    failed = submit(name, environment | {"STATUS": "2"}, *given)
    assert failed.returncode == 2 and not said(environment, "scontrol")


@pytest.mark.parametrize("name", ["train", "seeds", "test", "tune"])
def test_flags_may_follow_two_dashes(environment, name):
    done = submit(name, environment, "c.py", "run", "--", "--config.x=1")
    assert done.returncode == 0, done.stderr
    assert said(environment, "python").endswith(" --config.x=1")
    assert " -- " not in said(environment, "python")


# `sbatch` as far as the examples go: options first, then a script and its arguments.
SBATCH = 'sbatch() { while [[ $1 == -* ]]; do shift; done; bash "$@"; }\n'


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("train", "--config=liconn --workdir=WORKDIR --config.data.root=DIR"),
        ("seeds", "--workdir=PARENT/seed=0 --config.seed=0 --config.data.root=DIR"),
        ("test", "--config=RUN/config.json --workdir=RUN --config.decode.method=aff"),
        ("tune", "--config=RUN/config.json --workdir=RUN --config.tune.sampler=tpe"),
        (
            "predict_array",
            "input=ROOT/test/seed*/data.zarr/img --config.predict.batch_per_device=16",
        ),
    ],
)
def test_the_example_of_a_script_runs_as_it_is_written(environment, name, wanted):
    lines = (FOLDER / f"{name}.sbatch").read_text().splitlines()
    example = [line[6:] for line in lines if line.startswith("#     ")]
    done = subprocess.run(
        ["bash", "-c", SBATCH + "\n".join(example)],
        env=environment | {"SLURM_ARRAY_TASK_ID": "0"},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert wanted in said(environment, "python")


@pytest.mark.parametrize("name", ["train", "predict_array"])
def test_the_interpreter_is_that_of_the_checkout(environment, tmp_path, name):
    """The first that has nisbjax; one that has not is passed over."""
    del environment["PYTHON"]
    here = tmp_path / "here"
    (here / ".venv" / "bin").mkdir(parents=True)
    own = here / ".venv" / "bin" / "python"
    arguments = ["bash", str(FOLDER / f"{name}.sbatch"), "c.py", "run", "0", "1"]

    def start():
        return subprocess.run(
            arguments,
            env=environment,
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    none = "#!/usr/bin/env bash\nexit 1\n"
    for found in ("python", "python3"):
        (tmp_path / found).write_text(none)
        (tmp_path / found).chmod(0o755)
    done = start()
    assert (
        done.returncode and "no interpreter here has nisbjax; name one" in done.stderr
    )
    own.write_text(PYTHON)
    own.chmod(0o755)
    assert start().returncode == 0
    assert f"--mode={name.partition('_')[0]}" in said(environment, "python")


def test_flags_of_all_tasks_of_an_array(environment):
    flags = ("c.py", "run", "0", "1", "--", "--config.x=1", "--config.y=2")
    assert submit("predict_array", environment, *flags).returncode == 0
    wanted = "--config.predict.input=1 --config.x=1 --config.y=2"
    assert said(environment, "python").endswith(wanted)


def test_a_task_predicts_its_own_volume(environment):
    assert submit("predict_array", environment, "c.py", "run", "0", "1").returncode == 0
    flags = "--mode=predict --config=c.py --workdir=run --config.predict.input=1"
    assert said(environment, "python") == f"-m nisbjax.launch {flags}"


def test_an_array_beyond_the_volumes_is_refused(environment):
    done = submit("predict_array", environment, "c.py", "run", "only.zarr")
    assert done.returncode and "--array goes beyond the volumes" in done.stderr


def warned(name, environment):
    """Status of a script that gets USR1, as before its time limit."""
    script = ["bash", str(FOLDER / f"{name}.sbatch"), "c.py", "run", "a", "b"]
    job = subprocess.Popen(script, env=environment | {"WAITS": "1"})
    while not said(environment, "python"):
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    return job.wait(60)


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize(
    "status, queued",
    [
        ("143", "requeue 7"),  # saved and stopped
        ("138", "requeue 7"),  # died of the signal, before there was anything to save
        ("0", ""),  # was finished just then
        ("2", ""),  # failed
    ],
)
def test_training_is_queued_again_where_it_stopped(environment, name, status, queued):
    assert warned(name, environment | {"ON_SIGNAL": status}) == int(status)
    assert said(environment, "scontrol") == queued


@pytest.mark.parametrize("name", ["test", "tune", "predict_array"])
def test_other_jobs_are_queued_again_at_once(environment, name):
    warned(name, environment)
    assert said(environment, "scontrol") == "requeue 7"
