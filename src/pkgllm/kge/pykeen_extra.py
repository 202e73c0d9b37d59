"""Whether PyKEEN is installed, checked before anything that imports it."""

import importlib.util

from pkgllm.errors import ConfigError


def check_pykeen() -> None:
    """Fail where PyKEEN is not installed.

    Raises:
        ConfigError: If it is not.
    """
    if importlib.util.find_spec("pykeen") is None:
        raise ConfigError(
            "embedding: needs the package pykeen, which is not installed; install it with: "
            "pip install pkgllm[kge]"
        )
