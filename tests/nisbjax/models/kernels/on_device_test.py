"""Who chooses, what is kept, and what a run that goes on takes; a GPU is pretended."""

import json
import logging

import jax
import pytest
import small_operations as fake

from nisbjax.errors import InputError
from nisbjax.models.kernels import measure, on_device, table
from nisbjax.models.kernels.choice import Candidate
from nisbjax.parallel import hosts

USE, OTHER = fake.use(4, 6), fake.use(2, 6)
FAST, PALLAS = Candidate("fast"), Candidate("pallas")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "nisbjax" / "kernels"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(on_device, "on_gpu", lambda: True)


@pytest.fixture
def measured(monkeypatch):
    """What `choose` was asked, in place of measuring; it answers with the second candidate."""
    asked = []

    def choose(operations, uses, known, *, pallas):
        asked.append((list(uses), dict(known), pallas))
        last = {use: operations[use.operation].candidates(use)[-1] for use in uses}
        return measure.Measured(last, last)

    monkeypatch.setattr(measure, "choose", choose)
    return asked


OPERATION = fake.Scaled(fake.slow, pallas=fake.right, fast=fake.right)


def record(*uses):
    def trace(recorder):
        for use in uses:
            arrays = [jax.ShapeDtypeStruct(*a) for a in zip(use.shapes, use.dtypes)]
            run = lambda *a: recorder.run(OPERATION, *a, power=2)
            jax.eval_shape(run, *arrays)

    return trace


def kernels_for(word="auto", uses=(USE, OTHER), recorded=None):
    kernels = on_device.kernels_for(word, record(*uses), recorded)
    return kernels and dict(kernels.chosen)


@pytest.mark.parametrize("word", ["auto", "xla"])
def test_on_a_cpu_nothing_is_traced_measured_or_kept(word, cache, measured):
    assert on_device.kernels_for(word, lambda recorder: 1 // 0) is None
    assert on_device.noted(word, None) == {}
    assert not measured and not cache.exists()


def test_pallas_on_a_cpu_says_what_to_do():
    with pytest.raises(
        InputError,
        match=r"^model.kernels is 'pallas', but the devices are cpu \(cpu\); set it to auto$",
    ):
        on_device.kernels_for("pallas", lambda recorder: 1 // 0)


def test_xla_on_a_gpu_is_xla_without_a_table(gpu, measured):
    assert kernels_for("xla") is None and not measured


def test_what_was_measured_is_kept_for_the_next_start(gpu, measured, cache):
    assert kernels_for() == {USE: FAST, OTHER: FAST}
    assert measured == [([USE, OTHER], {}, False)]
    assert kernels_for() == {USE: FAST, OTHER: FAST}
    assert len(measured) == 1
    (path,) = cache.iterdir()
    assert table.read(path, table.facts("auto")) == {USE: FAST, OTHER: FAST}
    # Another shape is added to the table; another word has one of its own.
    third = fake.use(3, 6)
    assert kernels_for(uses=(USE, third)) == {USE: FAST, third: FAST}
    assert measured[1:] == [([third], {}, False)]
    assert len(table.read(path, table.facts("auto"))) == 3
    kernels_for("pallas")
    assert measured[2:] == [([USE, OTHER], {}, True)]
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_table_is_made_again(gpu, measured, cache, caplog):
    kernels_for()
    (path,) = cache.iterdir()
    good = path.read_bytes()
    path.write_bytes(good[:40])
    assert kernels_for() == {USE: FAST, OTHER: FAST}
    assert "kernels are measured again" in caplog.text
    assert path.read_bytes() == good
    # Nor is a candidate taken that there is none of.
    path.write_bytes(good.replace(b'"fast"', b'"gone"'))
    assert kernels_for() == {USE: FAST, OTHER: FAST} and len(measured) == 3


def test_the_real_thing_from_the_trace_to_the_result(gpu):
    kernels = on_device.kernels_for("auto", record(USE))
    assert dict(kernels.chosen)[USE] in (FAST, PALLAS)
    assert kernels.run(OPERATION, *fake.arrays(4, 6), power=2)[0, 0] == 9


def test_a_shipped_table_is_handed_on_to_be_looked_at(gpu, measured, monkeypatch):
    monkeypatch.setattr(table, "shipped", lambda device: {USE: PALLAS})
    kernels_for()
    assert measured == [([USE, OTHER], {USE: PALLAS}, False)]


def test_a_run_goes_on_with_what_it_began_with(gpu, measured, tmp_path):
    kernels_for()
    began = {USE: PALLAS, OTHER: fake.XLA}
    noted = {on_device.NOTED: table.noted(table.facts("auto"), began)}
    path = tmp_path / "environment.json"
    path.write_text(json.dumps({"python": "3", **noted}))
    assert kernels_for(recorded=on_device.recorded_in(path)) == began
    # What it did not use before is looked up, or measured.
    third = fake.use(3, 6)
    found = kernels_for(uses=(USE, third), recorded=on_device.recorded_in(path))
    assert found == {USE: PALLAS, third: FAST}


@pytest.mark.parametrize("name", ["device", "jaxlib", "sources", "kernels"])
def test_a_run_of_another_place_is_measured_anew_and_says_so(
    gpu, measured, caplog, name
):
    facts = table.facts("auto")
    noted = table.noted(facts | {name: "another"}, {USE: PALLAS})
    assert kernels_for(uses=(USE,), recorded=noted) == {USE: FAST}
    (line,) = caplog.messages
    assert line == (
        f"the run's kernels are measured anew (it is of {name} 'another', here is "
        f"{facts[name]!r}); its last bits may change"
    )


def test_what_the_deadline_left_undecided_is_xla_in_this_run_alone(
    gpu, monkeypatch, cache
):
    """Of a third use one candidate won that another was not compiled in time to race."""
    third = fake.use(3, 6)
    found = measure.Measured({USE: FAST, third: PALLAS}, {USE: FAST})
    monkeypatch.setattr(measure, "choose", lambda *_, pallas: found)
    kernels = on_device.kernels_for("auto", record(USE, OTHER, third))
    assert dict(kernels.chosen) == {USE: FAST, OTHER: fake.XLA, third: PALLAS}
    (path,) = cache.iterdir()
    assert table.read(path, table.facts("auto")) == {USE: FAST}
    noted = on_device.noted("auto", kernels)[on_device.NOTED]
    assert table.of_these(noted, table.facts("auto")) == dict(kernels.chosen)


def test_process_0_chooses_for_all(gpu, measured, monkeypatch, cache):
    sent = []

    def as_first(decide):
        sent.append(decide())
        return sent[0]

    monkeypatch.setattr(hosts, "first_decides", as_first)
    first = on_device.kernels_for("auto", record(USE, OTHER))
    monkeypatch.setattr(hosts, "first_decides", lambda decide: sent[0])
    monkeypatch.setattr(measure, "choose", lambda *_, **given: 1 // 0)
    for path in cache.iterdir():
        path.unlink()
    assert on_device.kernels_for("auto", record(USE, OTHER)) == first
    assert len(sent) == 1


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"kernels": 7}', "[" * 100_000, None]
)
def test_an_environment_that_says_nothing_of_kernels_is_none(tmp_path, content, caplog):
    path = tmp_path / "environment.json"
    if content is not None:
        path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert on_device.recorded_in(path) is None
    assert len(caplog.messages) == (content in ("{", "[" * 100_000))
