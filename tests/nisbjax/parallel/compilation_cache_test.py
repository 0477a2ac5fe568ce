"""Which folder keeps compiled programs, on what device, and what is said of it."""

import logging

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as of_jax

from nisbjax.parallel import compilation_cache

FOLDER, LEAST = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """A process that has not begun, without the cache of the tests."""
    before = {name: getattr(jax.config, name) for name in (FOLDER, LEAST)}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compilation_cache, "_begun", [])
    monkeypatch.setattr(compilation_cache, "_asked", [None])
    jax.config.update(FOLDER, None)
    of_jax.reset_cache()

    def begin(asked=None, backend="cpu"):
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        compilation_cache.ask(asked)
        compilation_cache.begin()
        return jax.config.jax_compilation_cache_dir

    yield begin
    for name, value in before.items():
        jax.config.update(name, value)
    of_jax.reset_cache()


def test_a_gpu_has_a_folder_of_the_users_alone(begun, tmp_path):
    found = begun(backend="gpu")
    assert found.startswith(str(tmp_path / "home" / "nisbjax" / "xla"))
    assert (tmp_path / "home/nisbjax/xla").stat().st_mode & 0o777 == 0o700
    assert getattr(jax.config, LEAST) == 0.1


def test_a_cpu_has_one_where_it_is_named(begun, tmp_path):
    assert begun() is None
    compilation_cache._begun.clear()
    assert begun(str(tmp_path / "own")) == str(tmp_path / "own")
    assert (tmp_path / "own").is_dir() and not list((tmp_path / "own").iterdir())


def test_the_environment_wins_over_the_default_and_nothing_over_the_word(
    begun, tmp_path
):
    jax.config.update(FOLDER, str(tmp_path / "environment"))
    assert begun(backend="gpu") == str(tmp_path / "environment")
    compilation_cache._begun.clear()
    assert begun("", backend="gpu") is None


def test_a_folder_that_cannot_be_written_is_a_warning(begun, tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert begun(str(tmp_path / "file" / "below")) is None
    assert "compiled programs are not kept: " in caplog.text
    assert caplog.text.count("\n") == 1 and "(Not a directory)" in caplog.text


def test_a_second_start_says_what_it_saved(begun, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(compilation_cache, "_TOLD_S", 0.0)
    begun(str(tmp_path / "own"))
    jax.config.update(LEAST, 0.0)

    @jax.jit
    def twice(x):
        return 2 * x

    with caplog.at_level(logging.INFO):
        twice(jnp.zeros(3))
        jax.clear_caches()
        twice(jnp.zeros(3))
    said = [line for line in caplog.messages if "twice" in line]
    assert said[0].startswith("compiled twice in 0.")
    assert said[1].startswith("loaded twice in 0.")
    assert said[1].endswith(" s") and "; compiling it had taken 0." in said[1]


def test_what_nobody_loads_for_a_month_is_removed(begun, tmp_path, monkeypatch):
    folder = tmp_path / "home" / "nisbjax" / "xla" / compilation_cache._machine()
    folder.mkdir(parents=True)
    (folder / "old-cache").touch()
    assert begun(backend="gpu") == str(folder) and list(folder.iterdir())
    compilation_cache._begun.clear()
    jax.config.update(FOLDER, None)
    now = compilation_cache.time.time()
    monkeypatch.setattr(compilation_cache.time, "time", lambda: now + 31 * 86400)
    assert begun(backend="gpu") == str(folder) and not list(folder.iterdir())
