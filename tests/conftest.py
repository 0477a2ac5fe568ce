"""What every test runs under: four virtual devices, no rank promotion, real types.

Warnings are errors and jaxtyping's shapes are checked by beartype (pyproject.toml).
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Compiled programs are kept between runs of the tests, in a folder of this user alone.
_CACHE = pathlib.Path(tempfile.gettempdir()) / f"nisbjax-tests-{os.getuid()}"
_CACHE.mkdir(mode=0o700, exist_ok=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE / "jax"))

import hypothesis
import jax
import pytest
import small_networks

# What a shell starts in the background ignores Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    max_examples=20,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The real volumes beside the project; the test is skipped where they are absent."""
    folder = pathlib.Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real volumes (../shared/data) are not on this machine")
    return folder


@pytest.fixture
def strict_promotion():
    """Mixed dtypes raise, for tests of our own numerics (optax's internals mix them)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def linear_network(monkeypatch):
    """Every network is linear: compiling takes a second."""
    small_networks.use(small_networks.LINEAR, monkeypatch.setattr)


@pytest.fixture
def one_block_network(monkeypatch):
    """Every network is one MedNeXt block between stem and head."""
    small_networks.use(small_networks.ONE_BLOCK, monkeypatch.setattr)


@pytest.fixture(scope="session")
def launched():
    """Runs a mode of the command line in a process of its own, on one device.

    Returns a function of the mode, the folder of the run, the keys to set, and the name of
    a config; it returns what was logged.
    """
    root = pathlib.Path(__file__).parents[1]

    def run(mode, workdir, keys, *flags, config="demo"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "nisbjax.launch"),
                *(f"--config=configs/{config}.py", f"--mode={mode}"),
                f"--workdir={workdir}",
                *(f"--config.{key}={value}" for key, value in keys.items()),
                *flags,
            ],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": ""},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    return run
