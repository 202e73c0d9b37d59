"""What is set before Flower is imported, so that nothing phones out and nothing lands in the home.

Flower reads these variables while it is imported, and the package imports this module before any
of its own. A value that the environment already has is left alone.
"""

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

QUIET_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    # A SuperLink would otherwise install an app's dependencies at the start of every run.
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Level of Flower's own console handler; its records still reach the root logger.
    "FLWR_LOG_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Values that are set where the environment says nothing."""


def _set() -> None:
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "FLWR_HOME" not in os.environ:
        # Flower makes the folder only when it writes; a simulation does.
        home = Path(tempfile.gettempdir()) / f"pkgllm-flower-{secrets.token_hex(8)}"
        os.environ["FLWR_HOME"] = str(home)
        atexit.register(shutil.rmtree, home, ignore_errors=True)


_set()
