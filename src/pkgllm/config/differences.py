"""Where two configurations differ."""

from collections.abc import Iterator, Mapping
from typing import Any

from pkgllm.config.schema import AnyExperiment


def differences(one: AnyExperiment, other: AnyExperiment) -> list[str]:
    """Say for each key that differs what both hold; ``output`` is no part of what a run does.

    Example:
        >>> from pkgllm.config.load import load_config
        >>> one = load_config("quickstart.yaml")
        >>> other = load_config("quickstart.yaml", ["seed=1", "objective={name: dpo}"])
        >>> differences(one, other)[:2]
        ['seed: 0 there, 1 given', "objective.name: 'kto' there, 'dpo' given"]
    """
    lines = tree_differences(one.model_dump(mode="json"), other.model_dump(mode="json"))
    return [line for key, line in lines.items() if key != "output"]


def tree_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """Return a line for each key of two trees of plain values that differs, by key."""
    there, given = (dict(_leaves((), tree)) for tree in (one, other))
    return {
        key: f"{key}: {_shown(there, key)} there, {_shown(given, key)} given"
        for key in dict.fromkeys((*there, *given))
        if _shown(there, key) != _shown(given, key)
    }


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    else:
        yield ".".join(path), value


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "absent"
