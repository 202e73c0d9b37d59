"""YAML in and out: the core schema of YAML 1.2; duplicate keys are reported, tags refused.

PyYAML follows YAML 1.1, which reads ``5e-5`` as text and ``no`` as false, and silently keeps the
last of two equal keys. ``docs/decisions/0012-yaml.md`` compares it with ruamel.yaml.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from pkgllm.config.fields import KeyPath
from pkgllm.config.problems import Problem
from pkgllm.errors import ConfigError

_PATTERN_BY_TAG = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": (
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
_MOST_VALUES = 100_000
"""Values of a document, each alias counted with all that it repeats."""

_ANY_FIRST_LETTER: Any = None
_RESOLVERS = {
    _ANY_FIRST_LETTER: [
        (f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{pattern})\Z"))
        for name, pattern in _PATTERN_BY_TAG.items()
    ]
}


class _Loader(yaml.SafeLoader):
    """Reads plain values only; sequences become tuples."""

    yaml_implicit_resolvers = _RESOLVERS

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, f"a tag ({event.tag}) is not allowed", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_whole_sequence(self, node: yaml.SequenceNode) -> tuple[Any, ...]:
        return tuple(self.construct_sequence(node, deep=True))

    def construct_whole_mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        return self.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.construct_whole_sequence)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_whole_mapping)


class _Dumper(yaml.SafeDumper):
    """Quotes a text that :class:`_Loader` would read as another type."""

    yaml_implicit_resolvers = _RESOLVERS

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Without quotes PyYAML turns these Unicode line ends into spaces.
        style = '"' if re.search("[\x85\u2028\u2029]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)


def read_yaml(text: str, place: str) -> tuple[object, list[Problem]]:
    """Read one YAML document.

    Returns:
        The value, with the last of equal keys, and a problem for every duplicate key.

    Raises:
        ConfigError: If it is not YAML, or aliases expand it to too many values.

    Example:
        >>> read_yaml("{learning_rate: 5e-5, order: [2, no]}", "here")[0]
        {'learning_rate': 5e-05, 'order': (2, 'no')}
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, []
            value = loader.construct_document(node)
            if _num_values(node, {}) > _MOST_VALUES:
                raise ConfigError(
                    f"{place}: aliases repeat more than {_MOST_VALUES} values; write fewer of them"
                )
            return value, list(_duplicates(node, ()))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{place}: {where}this is not YAML: {reason}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{place}: line {line}: a character that YAML forbids") from error
    except RecursionError as error:
        raise ConfigError(f"{place}: this is nested too deeply") from error
    except ValueError as error:
        # Python refuses to read thousands of digits as one whole number.
        raise ConfigError(f"{place}: {error}") from error


def write_yaml(tree: object) -> str:
    """Return plain values as YAML, which :func:`read_yaml` reads back equal."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _num_values(node: yaml.Node, num_by_node: dict[int, int]) -> int:
    if id(node) not in num_by_node:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [value for _, value in node.value]
        num_by_node[id(node)] = 1 + sum(_num_values(child, num_by_node) for child in inner)
    return num_by_node[id(node)]


def _duplicates(node: yaml.Node, path: KeyPath) -> Iterator[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from _duplicates(entry, path)
    if not isinstance(node, yaml.MappingNode):
        return
    line_by_key: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in line_by_key:
            first = line_by_key[name]
            message = f"is on line {first} and again on line {line}; keep one"
            yield Problem((*path, name), message)
        line_by_key.setdefault(name, line)
        yield from _duplicates(value, (*path, name))
