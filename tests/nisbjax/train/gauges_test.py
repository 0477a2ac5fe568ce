"""What the clock counts, and what it leaves aside."""

from nisbjax.train import gauges


def test_time_aside_is_no_part_of_a_step(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(gauges.time, "monotonic", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    clock = gauges.Clock()
    for _ in range(4):  # 1 s of waiting, 2 s of work
        with clock.waiting:
            spend(1)
        spend(2)
    with clock.aside:
        spend(50)
    assert clock.scalars(4) == {"time/step_s": 3, "time/data_wait_s": 1}
    assert clock.text == "3.00 s a step (1.00 waiting)"
    spend(5)
    assert clock.scalars(1) == {"time/step_s": 5, "time/data_wait_s": 0}


def test_memory_is_that_of_this_process():
    found = gauges.memory()
    assert 0.05 < found["memory/host_gb"] < 50
    assert found.keys() <= {"memory/host_gb", "memory/device_peak_gb"}
