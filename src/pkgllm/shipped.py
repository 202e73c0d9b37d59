"""Where the files that come with the package lie: in the wheel, or in a source checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parents[1]


def _shipped(in_wheel: str, in_checkout: str) -> Path:
    installed = _PACKAGE / in_wheel
    return installed if installed.is_dir() else _CHECKOUT / in_checkout


def presets_folder() -> Path:
    """Return the folder of the shipped configurations."""
    return _shipped("presets", "configs")


def small_world_folder() -> Path:
    """Return the folder of the shipped small world: its corpus and its base model."""
    return _shipped("small_world_data", "data/small_world")


def domains_folder() -> Path:
    """Return the folder of the two tiny shipped domains, which are not about films."""
    return _shipped("domains_data", "data/domains")
