"""Candidates that are wrong, slow, failing or hanging, and who is kept beside them."""

import logging
import threading
import time

import jax
import jax.numpy as jnp
import pytest
import small_operations as fake

from nisbjax.models.kernels import measure, races
from nisbjax.models.kernels.choice import Candidate

USE = fake.use(4, 6, 8)
FAST = Candidate("fast")


def choose(operation, *uses, **given):
    return measured(operation, *uses, **given).fastest


def measured(operation, *uses, **given):
    return measure.choose({"scaled": operation}, uses or (USE,), **given)


def raises_when_run(x, weight, power):
    def fail(x):
        raise MemoryError

    return jax.pure_callback(fail, x, x)


def row_wrong(x, weight, power):
    return fake.right(x, weight, power).at[0, 0, 0].multiply(2)


BROKEN = {
    "wrong": (lambda x, weight, power: x + 1, "off, 0.0001 is allowed"),
    "one value": (row_wrong, "off, 0.0001 is allowed"),
    "nan": (lambda x, weight, power: x * jnp.nan, "is nan off"),
    "type": (lambda x, *_: x.astype("bfloat16"), "wanted ShapeDtypeStruct"),
    "shape": (lambda x, *_: x[:1], "gives ShapeDtypeStruct(shape=(1, 6, 8)"),
    "another tree": (lambda x, w, p: (fake.right(x, w, p),), "gives (Shape"),
    "traced": (lambda x, *_: 1 // 0, "ZeroDivisionError"),
    "run": (raises_when_run, "CpuCallback error"),
}


def test_the_fastest_that_is_right_is_kept():
    assert choose(fake.Scaled(fake.slow, slower=fake.slow, fast=fake.right)) == {
        USE: FAST
    }


def test_what_is_no_faster_than_xla_is_not_taken():
    assert choose(fake.Scaled(fake.right, slow=fake.slow)) == {USE: fake.XLA}


def test_broken_candidates_are_dropped_however_fast_and_the_log_says_why(caplog):
    broken = {kind: way for kind, (way, _) in BROKEN.items()}
    with caplog.at_level(logging.DEBUG, logger="absl"):
        assert choose(fake.Scaled(fake.slow, **broken)) == {USE: fake.XLA}
    said = [r.getMessage() for r in caplog.records if r.name == "absl"]
    assert ["Candidate(name='xla', parameters=()) takes " in m for m in said].count(
        True
    )
    dropped = [message for message in said if "is dropped" in message]
    assert len(dropped) == len(BROKEN)
    for message, (kind, (_, why)) in zip(dropped, BROKEN.items()):
        start = f"scaled(float32[4, 6, 8], float32[8]): Candidate(name='{kind}'"
        assert message.startswith(start) and "is dropped: " in message
        assert why in message
    assert choose(fake.Scaled(fake.slow, **broken, fast=fake.right)) == {USE: FAST}


# These wait for time to be over, and leave a busy machine enough of it for what compiles.
@pytest.mark.slow
def test_more_hanging_candidates_than_cores_hold_nobody(monkeypatch):
    monkeypatch.setattr(measure, "_EACH_S", 4.0)
    hanging = {f"hanging {i}": lambda *_: time.sleep(60) for i in range(3)}
    started = time.monotonic()
    operation = fake.Scaled(fake.slow, **hanging, fast=fake.right)
    found = measured(operation, deadline_s=60.0)
    assert found.fastest == found.final == {USE: FAST}  # they took longer than one may
    assert time.monotonic() - started < 30


def test_the_deadline_leaves_out_what_is_undecided(caplog):
    hanging = fake.Scaled(fake.slow, hanging=lambda *_: time.sleep(60))
    started = time.monotonic()
    assert measured(hanging, deadline_s=1.0) == ({}, {})
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_what_won_against_some_of_its_rivals_is_not_final():
    hanging = fake.Scaled(fake.slow, fast=fake.right, last=lambda *_: time.sleep(60))
    assert measured(hanging, deadline_s=12.0) == ({USE: FAST}, {})


def test_nor_is_what_there_was_no_time_to_race():
    operation = fake.Scaled(fake.slow, fast=fake.right, pallas=fake.right)
    race = races.make(operation, USE, fake.XLA, operation.candidates(USE))
    for job in (race.trial, *race.candidates.values()):
        job._call(threading.Event())
    late, in_time = time.monotonic(), time.monotonic() + 60
    assert races.winner(race, until=late) == (fake.XLA, False)  # which ran first
    winner, is_final = races.winner(race, until=in_time)
    assert winner != fake.XLA and is_final


def test_nor_is_xla_where_what_is_right_took_long_to_compile():
    operation = fake.Scaled(fake.slow, fast=fake.right)
    race = races.make(operation, USE, fake.XLA, operation.candidates(USE))
    for job in race.candidates.values():
        job._call(threading.Event())
    race.trial.give_up_after(0.0)
    until = time.monotonic() + 60
    assert races.winner(race, until) == (fake.XLA, False)
    race.trial.is_late = False  # it failed, as it will again
    assert races.winner(race, until) == (fake.XLA, True)


def test_a_use_of_one_candidate_and_a_known_one_that_is_right_are_final():
    alone = fake.Scaled(fake.right)
    assert measured(alone) == ({USE: fake.XLA}, {USE: fake.XLA})
    known = {USE: Candidate("known")}
    assert measured(fake.Scaled(known=fake.right), known=known) == (known, known)


def test_what_there_is_most_of_is_compiled_first():
    """Of 192 + 64 and 8 + 8 values, a sixteenth: two candidates later."""
    operation = fake.Scaled(a=fake.right, b=fake.right)
    candidates = operation.candidates(USE)
    large, small = fake.use(3, 64), fake.use(1, 8)
    due = [races.make(operation, u, fake.XLA, candidates) for u in (large, small)]
    names = {}
    for word, race in zip("LS", due):
        jobs = (race.trial, *race.candidates.values())
        names |= {job: f"{word}{rank}" for rank, job in enumerate(jobs)}
    ordered = [names[job] for job in races.in_order(due)]
    assert ordered == ["L0", "L1", "L2", "S0", "L3", "S1", "S2", "S3"]
    assert races.in_order([]) == []


@pytest.mark.slow
def test_a_kernel_that_does_not_return_ends_the_measuring_with_a_warning(
    monkeypatch, caplog
):
    end = threading.Event()

    def stuck(x, weight, power):
        def wait(x):
            end.wait(120)
            return x

        return jax.pure_callback(wait, x, x)

    monkeypatch.setattr(measure, "_EACH_S", 4.0)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert choose(fake.Scaled(fake.right, stuck=stuck), deadline_s=12.0) == {}
    end.set()
    assert "a kernel does not return; set model.kernels to xla" in caplog.text


def test_equal_uses_are_measured_once_and_one_line_sums_up(caplog):
    operation = fake.Scaled(fake.slow, pallas=fake.right)
    with caplog.at_level(logging.INFO, logger="absl"):
        chosen = choose(operation, USE, fake.use(3, 8), USE)
    pallas = Candidate("pallas")
    assert chosen == {USE: pallas, fake.use(3, 8): pallas}
    assert operation.ran.count("pallas") == 2
    assert len(caplog.messages) == 1
    assert "chose how 2 operations are computed, from 4 candidates, in" in caplog.text
    assert "2 by Pallas kernels, 0 to be measured again" in caplog.text


def test_a_known_candidate_is_compared_and_not_raced():
    operation = fake.Scaled(fake.right, known=fake.slow)
    known = {USE: Candidate("known")}
    assert choose(operation, known=known) == known  # though it is slower
    assert choose(operation, known={USE: fake.XLA}) == {USE: fake.XLA}
    others = {fake.use(9, 9): FAST, USE._replace(operation="another"): FAST}
    assert choose(operation, known=known | others) == known


def test_a_known_candidate_that_is_wrong_or_gone_is_raced_anew():
    operation = fake.Scaled(fake.slow, known=lambda x, *_: x, fast=fake.right)
    for name in ("known", "gone"):
        assert choose(operation, known={USE: Candidate(name)}) == {USE: FAST}


def test_pallas_alone_is_asked_where_there_is_one(caplog):
    operation = fake.Scaled(fake.right, fast=fake.right, pallas_a=fake.slow)
    pallas = Candidate("pallas_a")
    assert choose(operation, pallas=True) == {USE: pallas}
    assert choose(fake.Scaled(fake.slow, fast=fake.right), pallas=True) == {
        USE: fake.XLA
    }
    assert "no Pallas kernel" not in caplog.text
    wrong = fake.Scaled(fake.right, pallas_a=lambda x, *_: x)
    assert choose(wrong, pallas=True) == {}
    assert "no Pallas kernel was found right in time, XLA is taken" in caplog.text
