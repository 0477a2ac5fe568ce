import subprocess
import sys
import threading
import time

from nisbjax.parallel.background import Job, run_all


def test_a_job_has_a_result_or_a_reason():
    jobs = [Job(lambda: 7), Job(lambda: int("x"))]
    run_all(jobs, each_s=5.0, until=time.monotonic() + 5)
    assert [(job.result, job.refused) for job in jobs] == [
        (7, ""),
        (None, "ValueError: invalid literal for int() with base 10: 'x'"),
    ]


def test_a_process_that_ends_says_its_status_whatever_is_still_running():
    program = """
import atexit, threading, time
from nisbjax.parallel import background
atexit.register(print, "bye")
background.end_process(4)
job = background.Job(lambda: time.sleep(60))
job.start(threading.Event())
background.end_process(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "bye\n"), done.stderr


def test_a_process_that_a_signal_stops_waits_for_nobody_to_tidy_up():
    """As XLA's client, which waits for a compilation when the interpreter ends."""
    program = """
import atexit, time
from nisbjax.parallel import background
class Client:
    def __del__(self):
        time.sleep(60)
client = Client()
atexit.register(print, "bye")
background.end_process(130, stopped=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "bye\n"), done.stderr


def test_a_program_that_does_not_know_waits_a_little_for_what_is_running():
    program = """
import threading, time
from nisbjax.parallel import background
background.Job(lambda: (time.sleep(0.3), print("done", flush=True))).start(threading.Event())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_what_takes_too_long_is_given_up_and_its_result_not_taken():
    end = threading.Event()
    jobs = [Job(lambda: end.wait(30)) for _ in range(5)] + [Job(lambda: 7)]
    run_all(jobs, each_s=0.05, until=time.monotonic() + 20)
    end.set()
    time.sleep(0.1)
    assert [job.result for job in jobs] == [None] * 5 + [7]
    assert {job.refused for job in jobs[:5]} == {"took more than 0.05 s"}


def test_at_the_deadline_jobs_are_undecided_begun_or_not():
    end = threading.Event()
    jobs = [Job(lambda: end.wait(30)) for _ in range(50)]
    started = time.monotonic()
    run_all(jobs, each_s=60.0, until=started + 0.1)
    assert time.monotonic() - started < 5
    assert not any(job.is_decided for job in jobs)
    # A process waits at its end for other threads than daemons.
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    assert others and all(thread.daemon for thread in others)
    end.set()
