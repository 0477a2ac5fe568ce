"""A signal ends in one line and status 143, wherever it falls."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nisbjax.parallel import signals

# The main thread is inside C for minutes, as while XLA compiles: Python cannot answer.
STUCK = """
import hashlib
from nisbjax.parallel import signals
signals._GRACE_SECONDS = 0.2
with signals.ending():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
"""
FORKED = """
import os, signal, time
from nisbjax.parallel import signals
signals._GRACE_SECONDS = 0.1
with signals.ending():
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    time.sleep(0.3)
    print(os.WTERMSIG(status))
"""
# A module that gets a signal while it is imported, as in the middle of an extension's.
IMPORTED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGTERM)
    sum(range(100))
except SystemExit:
    print("unwound", flush=True)
    raise
"""


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_unwinds_with_one_line(number, capfd):
    before = [signal.getsignal(n) for n in signals.NUMBERS]
    unwound = []
    with pytest.raises(SystemExit) as ended, signals.ending(), signals.ending():
        try:
            send(number)
            raise AssertionError("not reached")
        finally:
            unwound.append(number)
    assert ended.value.code == 143 and unwound == [number]
    assert capfd.readouterr().err == (
        f"nisbjax: stopped by {signal.Signals(number).name}; start the same command "
        "again to go on\n"
    )
    assert [signal.getsignal(n) for n in signals.NUMBERS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_a_library_makes_of_the_end_is_still_the_end():
    with pytest.raises(SystemExit) as ended, signals.ending():
        try:
            send(signal.SIGTERM)
        except SystemExit:
            raise RuntimeError("in a compiler's callback") from None
    assert ended.value.code == 143
    # Without a signal an error is itself.
    with pytest.raises(RuntimeError, match="of its own"), signals.ending():
        raise RuntimeError("of its own")


def test_an_import_is_not_unwound(tmp_path):
    (tmp_path / "imported.py").write_text(IMPORTED)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from nisbjax.parallel import signals\n"
        "with signals.ending():\n    import imported"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True
    )
    assert (done.returncode, done.stdout) == (143, b"")
    assert done.stderr == (
        b"nisbjax: stopped by SIGTERM; start the same command again to go on\n"
    )


def test_ctrl_c_is_an_interrupt_whatever_a_library_makes_of_it(capfd):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), signals.ending(), signals.ending():
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("in a compiler's callback") from None
    assert signal.getsignal(signal.SIGINT) == before
    assert capfd.readouterr().err == ""  # whoever catches it says so


def test_ctrl_c_while_the_command_is_loaded(tmp_path):
    (tmp_path / "ml_collections.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsum(range(100))\n"
    )
    places = (str(tmp_path), os.getcwd())
    done = subprocess.run(
        [sys.executable, "-m", "nisbjax.launch", "--help"],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        130,
        b"",
        b"nisbjax: stopped by the keyboard; start again to resume\n",
    )


def test_a_loop_notes_signals_instead(capfd):
    with signals.ending():
        with signals.Noted() as noted:
            assert not noted.received
            send(signal.SIGUSR1)
            assert noted.received
        with pytest.raises(SystemExit):
            send(signal.SIGUSR1)
    assert capfd.readouterr().err.count("\n") == 1


def test_a_second_ctrl_c_does_not_wait(capfd):
    program = (
        "import os, signal\nfrom nisbjax.parallel import signals\n"
        "with signals.ending(), signals.Noted() as noted:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(noted.received, noted.status, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('saved')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, "True 130\n")
    assert done.stderr == "nisbjax: stopped by the keyboard; start again to resume\n"


def test_a_process_stuck_in_c_ends_all_the_same():
    child = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        assert child.stdout and child.stderr
        child.stdout.readline()
        time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 143
        assert child.stderr.read() == (
            b"nisbjax: stopped by SIGTERM; start the same command again to go on\n"
        )


def test_a_fork_dies_of_its_own_signals():
    """And its parent, which shares the pipe that wakes the thread, does not."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED], check=False, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"15\n", b"")
