import signal
import subprocess
import sys

import pytest

from pkgllm.interrupts import after_this_round

LOSING = """
import sys, time
from pkgllm.interrupts import keep_interrupts

class Slow:
    def __del__(self):
        print("now", flush=True)
        time.sleep(1)

{hook}
try:
    Slow()
    time.sleep(1)
except KeyboardInterrupt:
    sys.exit(7)
sys.exit(0)
"""


def interrupted_in_a_finaliser(hook: str) -> int:
    """The exit code of a process that got SIGINT while a finaliser slept."""
    with subprocess.Popen(
        [sys.executable, "-c", LOSING.format(hook=hook)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        return process.wait(timeout=30)


def test_ctrl_c_in_a_finaliser_is_asked_again() -> None:
    assert interrupted_in_a_finaliser("keep_interrupts()") == 7


def test_python_itself_would_lose_it() -> None:
    assert interrupted_in_a_finaliser("") == 0


def test_other_exceptions_of_finalisers_are_still_shown() -> None:
    code = (
        "from pkgllm.interrupts import keep_interrupts\nkeep_interrupts()\n"
        "class Bad:\n    def __del__(self):\n        raise ValueError('seen')\nBad()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ValueError: seen" in found.stderr


def test_what_is_asked_inside_is_asked_around_it_and_told_once() -> None:
    told: list[str] = []
    earlier = signal.getsignal(signal.SIGINT)
    with after_this_round(lambda: told.append("sweep")) as asked_around:
        with after_this_round(lambda: told.append("run")) as asked_inside:
            signal.raise_signal(signal.SIGINT)
            assert (asked_inside(), asked_around()) == (True, True)
        assert told == ["run"]
        with after_this_round(lambda: told.append("next")) as asked_next:
            assert asked_next()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    assert told == ["run"]
    assert signal.getsignal(signal.SIGINT) is earlier


def test_a_block_that_was_left_asks_nobody() -> None:
    told: list[str] = []
    with after_this_round(lambda: told.append("around")) as asked:
        with after_this_round(lambda: told.append("inside")):
            pass
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
    assert told == ["around"]


EARLY = """
import signal, sys
from pkgllm.__main__ import main

signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, {seconds})
sys.argv = ["pkgllm", "config", "check", "quickstart.yaml"]
main()
"""


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.2])
def test_ctrl_c_while_a_command_is_imported_is_clean(seconds: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY.format(seconds=seconds)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == "pkgllm: stopped; what was written stays\n"
    assert done.returncode == 1
