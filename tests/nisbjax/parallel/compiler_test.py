import jax
import pytest

from nisbjax.parallel import compiler, hosts

# An option of XLA's that a CPU takes, and one that no XLA has.
TAKEN = {"xla_backend_optimization_level": 1}
UNHEARD = {"xla_never_heard_of": True}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(compiler, "_BY_LIBRARIES", TAKEN)
    monkeypatch.setattr(compiler, "_FUSIONS_AS_THEY_ARE", UNHEARD)
    monkeypatch.setattr(compiler, "_UNTUNED", {"xla_gpu_autotune_level": 0})
    monkeypatch.setattr(compiler, "_ALONE", {"xla_gpu_shard_autotuning": False})


def test_a_cpu_is_told_nothing():
    assert compiler.network() is compiler.alone() is compiler.untuned() is None


def test_an_option_that_this_xla_does_not_know_is_left_out(as_on_a_gpu):
    assert compiler.network() == compiler.alone() == TAKEN
    assert compiler.untuned() == TAKEN | {"xla_gpu_autotune_level": 0}


def test_a_process_of_several_tunes_what_it_compiles_alone(as_on_a_gpu, monkeypatch):
    monkeypatch.setattr(hosts, "several", lambda: True)
    assert compiler.network() == TAKEN
    assert compiler.alone() == TAKEN | {"xla_gpu_shard_autotuning": False}


def test_what_is_known_by_name_is_known_here():
    """Of this JAX's XLA all four are; of a later one those that are left do their part."""
    named = compiler._FUSIONS_AS_THEY_ARE | compiler._BY_LIBRARIES
    named |= compiler._UNTUNED | compiler._ALONE
    assert [
        name for name, value in named.items() if not compiler._takes(name, value)
    ] == []
