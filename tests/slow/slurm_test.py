"""launch/slurm/train.sbatch on a real Slurm: stopped at its limit, queued again, the same.

Slurm's servers run on this machine for the length of the test, as the user who runs it and
from a folder of their own; Debian's packages are installed where they are missing.
"""

import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from nisbjax.artifacts import Run
from nisbjax.checkpoint.checkpoint import find
from nisbjax.train.metric_writer import read_history

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "slurm" / "train.sbatch"
SERVERS = ("munged", "slurmctld", "slurmd")
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
STEPS = 300

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again waits for as long as its old credential holds.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

CONFIG = """
import os, sys, time
from nisbjax.config import base_config
from nisbjax.data.loader import Loader

sys.path.append("{tests}")
import small_networks

read = Loader.batch

def read_slowly(self, step):
    time.sleep({pause})
    return read(self, step)

if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
    Loader.batch = read_slowly

def get_config():
    small_networks.use(small_networks.LINEAR)
    c = base_config()
    c.data.root = "{root}"
    c.data.patch = (8, 8, 8)
    c.data.erosion = (0, 0, 0)
    c.augment.affine = 0.0
    c.model.size = "S"
    c.train.steps = {steps}
    c.train.batch_per_device = 1
    c.train.precision = "fp32"
    c.train.log_every = 1
    c.train.val_every = 0
    c.train.ckpt_every = 0
    c.ema.warmup_steps = 2
    return c
"""


def run(*command, **options):
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, **options
    )


def install():
    """Debian's packages, where they are missing and may be had."""
    path = f"{os.environ['PATH']}:{SYSTEM_PATH}"
    missing = [name for name in SERVERS if not shutil.which(name, path=path)]
    if not missing:
        return
    if os.getuid() or not shutil.which("apt-get"):
        pytest.skip(
            f"no {', '.join(missing)}, and only root installs slurm-wlm (apt-get)"
        )
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    wanted = ["install", "--yes", "--no-install-recommends", "slurm-wlm", "munge"]
    for arguments in (wanted, ["update"], wanted):
        done = run("apt-get", *arguments, env=quiet)
        if arguments == wanted and done.returncode == 0:
            break
    else:
        pytest.skip(f"slurm-wlm was not installed: {done.stderr[-300:]}")
    for service in ("slurmd", "slurmctld", "munge"):  # ours are started below
        run("service", service, "stop")


class Cluster:
    """Slurm's three servers and one node on this machine, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_", "XLA_FLAGS"))
        } | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:{SYSTEM_PATH}",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
        }
        self._servers = []

    def start(self):
        """Starts all, or skips the test and says why."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        host = socket.gethostname().split(".")[0]
        ports = [free_port(), free_port()]
        user = getpass.getuser()
        text = CONF.format(host=host, ports=ports, folder=self.folder, user=user)
        (self.folder / "slurm.conf").write_text(text)
        munge = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munged.seed",
        }
        flags = [f"--{flag}={self.folder / name}" for flag, name in munge.items()]
        self._serve("munged", "--foreground", "--force", *flags)
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self._serve("slurmctld", "-D", "-c")
        self._wait(lambda: self.ask("sinfo").returncode == 0)
        # Without cgroups: `disabled` is what newer versions call it, version 1 does
        # nothing that is not asked for.
        for plugin in ("disabled", "cgroup/v1"):
            (self.folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
            node = self._serve("slurmd", "-D")
            self._wait(lambda node=node: node.poll() is not None or self._idle())
            if node.poll() is None:
                return
            self._servers.remove(node)
        self._give_up()

    def _serve(self, name, *arguments):
        with open(self.folder / f"{name}.out", "a") as out:
            server = subprocess.Popen(
                [shutil.which(name, path=self.environment["PATH"]), *arguments],
                env=self.environment,
                stdout=out,
                stderr=out,
            )
        self._servers.append(server)
        return server

    def _idle(self):
        return "idle" in self.ask("sinfo", "--noheader", "--format=%T").stdout

    def _wait(self, ready, seconds=60):
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                self._give_up()
            time.sleep(0.1)

    def _give_up(self):
        said = "".join(
            path.read_text()[-300:] for path in sorted(self.folder.glob("*.out"))
        )
        pytest.skip(f"Slurm's servers do not start here: {' '.join(said.split())}")

    def ask(self, *command):
        return run(*command, env=self.environment)

    def stop(self):
        """Ends all jobs and servers, and waits for them."""
        if len(self._servers) > 1:
            self.ask("scancel", "--full", "--user", getpass.getuser())
            self.ask("scancel", "--user", getpass.getuser())
            deadline = time.monotonic() + 30
            while self.ask("squeue", "--noheader").stdout.strip():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.2)
        for server in reversed(self._servers):
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def submit(self, *arguments):
        """A job's number."""
        done = self.ask("sbatch", "--parsable", *map(str, arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def facts(self, job):
        """What scontrol says of a job: `JobState`, `Restarts`, ..."""
        words = self.ask("scontrol", "show", "job", job).stdout.split()
        return dict(word.partition("=")[::2] for word in words)

    def finish(self, job, seconds=240):
        deadline = time.monotonic() + seconds
        while True:
            facts = self.facts(job)
            # Also the moment between an end and a new place in the queue passes.
            if facts.get("JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"):
                return facts
            assert time.monotonic() < deadline, facts
            time.sleep(0.5)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def cluster():
    install()
    # Not pytest's folder: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        found = Cluster(pathlib.Path(folder))
        try:
            found.start()
            yield found
        finally:
            found.stop()


def history(folder):
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))}
        for line in read_history(Run(folder).history)
    ]


def weights(folder):
    """The bytes of the newest checkpoint's weights and of their average."""
    import jax
    import numpy as np

    from nisbjax.checkpoint import restore

    values = np.zeros((1, 6), np.float32)
    like = {
        "head": {"weight": values, "bias": values[0]},
        "norm": {"weight": values[0]},
    }
    found = find(folder)
    assert found.name == str(STEPS)
    items = [restore.weights(found, which, like) for which in ("raw", "ema")]
    return [np.asarray(a).tobytes() for a in jax.tree.leaves(items)]


def test_a_job_at_its_limit_is_queued_again_and_ends_the_same(
    cluster, object_grid, tmp_path
):

    def submit(name, *limit, pause=0.0):
        config = tmp_path / f"{name}.py"
        text = CONFIG.format(
            tests=ROOT / "tests", root=object_grid, steps=STEPS, pause=pause
        )
        config.write_text(text)
        output = f"--output={tmp_path}/{name}.out"
        two = ("--ntasks-per-node=2", "--cpus-per-task=1", *limit)
        return cluster.submit(output, *two, SCRIPT, config, tmp_path / name)

    # Four threads read: 300 steps take 150 seconds, and Slurm warns after 60 to 90.
    limited = submit("limited", "--time=2", "--signal=B:USR1@30", pause=2.0)
    job = submit("stopped", "--time=10")
    deadline = time.monotonic() + 240
    while len(history(tmp_path / "stopped")) < 5:
        facts = cluster.facts(job)
        said = tmp_path / "stopped.out"
        text = said.read_text()[-3000:] if said.exists() else ""
        assert time.monotonic() < deadline and facts["JobState"] in (
            "PENDING",
            "RUNNING",
            "CONFIGURING",
        ), (facts, text)
        time.sleep(0.2)
    # What Slurm does before the limit (--signal=B:USR1), at once: to the script alone.
    done = cluster.ask("scancel", "--batch", "--signal=USR1", job)
    assert done.returncode == 0, done.stderr
    facts = cluster.finish(job)
    text = (tmp_path / "stopped.out").read_text()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), text
    assert "stopped by signal at step" in text
    assert "2 hosts" in text  # SLURM's variables were enough
    assert len(Run(tmp_path / "stopped").command.read_text().splitlines()) == 2
    assert not Run(tmp_path / "stopped").lock.exists()

    facts = cluster.finish(submit("undisturbed", "--time=10"))
    text = (tmp_path / "undisturbed.out").read_text()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "0"), text
    facts = cluster.finish(limited)
    said = (tmp_path / "limited.out").read_text()
    assert facts["JobState"] == "COMPLETED" and int(facts["Restarts"]) > 0, said
    assert "stopped by signal at step" in said
    for name in ("stopped", "limited"):
        assert history(tmp_path / name) == history(tmp_path / "undisturbed")
        assert weights(tmp_path / name) == weights(tmp_path / "undisturbed")
