import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT_WITHOUT_NETWORK = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError(f"phones out: {args}")

socket.socket.connect = socket.getaddrinfo = refuse
import pkgllm.federation.flower
assert "flwr" not in sys.modules
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore import telemetry
from flwr.supercore.utils import get_flwr_home
FedAvg(fraction_evaluate=0.0)
telemetry.event(telemetry.EventType.PING)
print(telemetry.FLWR_TELEMETRY_ENABLED, get_flwr_home())
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLWR_", "RAY_", "HF_"))
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.mark.slow
def test_flower_imports_silently_without_network_or_traces_in_the_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = run_python(IMPORT_WITHOUT_NETWORK, HOME=str(home), TMPDIR=str(tmp_path))
    telemetry, flower_home = done.stdout.split()
    assert telemetry == "0"
    assert Path(flower_home).parent == tmp_path
    assert done.stderr == ""
    assert list(home.iterdir()) == []


def test_what_the_environment_says_already_is_left_alone(tmp_path: Path) -> None:
    done = run_python(
        "from os import environ; import pkgllm.federation.flower\n"
        "print(environ['FLWR_HOME'], environ['FLWR_LOG_LEVEL'])",
        FLWR_HOME=str(tmp_path),
        FLWR_LOG_LEVEL="INFO",
    )
    assert done.stdout.split() == [str(tmp_path), "INFO"]


@pytest.mark.slow
def test_loggers_of_others_and_hub_downloads_are_not_touched() -> None:
    code = (
        "import logging, os; before = (logging.root.level, list(logging.root.handlers))\n"
        "import pkgllm.federation, flwr.serverapp\n"
        "assert before == (logging.root.level, list(logging.root.handlers))\n"
        "assert not logging.root.filters and 'HF_HUB_OFFLINE' not in os.environ\n"
    )
    run_python(code)
