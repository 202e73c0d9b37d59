import signal
import subprocess
import sys

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
