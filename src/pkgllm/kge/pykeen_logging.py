"""Settings before PyKEEN is imported, so that it writes nothing to the home folder.

PyKEEN makes its folders while it is imported, below a place that this variable names. The package
imports this module before any of its own. A value that the environment already has is left alone.
"""

import atexit
import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path


def _set() -> None:
    if "PYSTOW_HOME" not in os.environ:
        home = Path(tempfile.gettempdir()) / f"pkgllm-pykeen-{secrets.token_hex(8)}"
        os.environ["PYSTOW_HOME"] = str(home)
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    # They warn of settings that modules of this package make.
    for name in ("pykeen", "torch_max_mem"):
        logging.getLogger(name).setLevel(logging.ERROR)


_set()
