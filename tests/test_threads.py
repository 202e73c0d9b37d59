import os
import subprocess
import sys

import pytest

from pkgllm.threads import SPINS, wait_briefly

SHOWN = """
import sys
from pkgllm.cli.app import main
sys.argv = ["pkgllm", "--version"]
try:
    main()
finally:
    import os
    print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


def test_a_command_says_how_long_threads_spin_before_torch_is_there() -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    found = subprocess.run(
        [sys.executable, "-c", SHOWN], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == f"{SPINS} False"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {"GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_what_the_environment_says_holds(
    given: dict[str, str], kept: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    found = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.pop("GOMP_SPINCOUNT", None)
    assert found == kept
