"""A study in memory, and trials that other processes have begun in it."""

import socket
import subprocess

import optuna
import pytest
from optuna.distributions import FloatDistribution


@pytest.fixture
def opened() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


@pytest.fixture
def gone():
    """The attributes of a trial whose process has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return {"process": process.pid, "started": 1, "host": socket.gethostname()}


@pytest.fixture
def running(opened):
    """Begins a trial in the name of a process: it is asked for and has drawn."""

    def begin(threshold, attributes) -> None:
        opened.enqueue_trial({"threshold": threshold})
        trial = opened.ask({"threshold": FloatDistribution(0.0, 1.0)})
        for name, value in attributes.items():
            trial.set_user_attr(name, value)

    return begin
