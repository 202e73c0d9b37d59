"""JSON as people and other programs write it, without what Python's reader lets pass.

A key that stands twice in one object loses its first value there, and half of a surrogate pair is
no text. Both are refused with their line.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|\n', re.DOTALL)
# An escape of the first half that the second does not follow, or the second half alone.
_HALF = re.compile(
    r"(?:[^\\]|^)(?:\\\\)*\\u(?:[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB]..\\u)[dD][c-fC-F][0-9a-fA-F]{2})"
)


class JsonError(ValueError):
    """A text is not JSON, or holds what JSON leaves undefined.

    Attributes:
        line: The line, from 1.
    """

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


class _TwiceError(Exception):
    pass


def loads(text: str) -> Any:
    r"""Return the value of a JSON text.

    Raises:
        JsonError: If the text is not JSON, an object has a key twice (RFC 8259, section 4, leaves
            open which value holds), or a string has half of a surrogate pair.

    Example:
        >>> loads('{"a": [1, true]}')
        {'a': [1, True]}
        >>> loads('{"a": 1,\n "a": 2}')
        Traceback (most recent call last):
        pkgllm.json_text.JsonError: the key "a" stands twice in one object; keep one of them
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg} (column {error.colno}); the file may be cut off"
        raise JsonError(error.lineno, what) from error
    except RecursionError as error:
        raise JsonError(1, "not JSON that can be read: nested too deeply") from error
    except _TwiceError as error:
        line, key = next(_twice(text))
        what = f"the key {json.dumps(key, ensure_ascii=False)} stands twice in one object"
        raise JsonError(line, f"{what}; keep one of them") from error
    if "\\u" in text and (half := _HALF.search(text)):
        line = text.count("\n", 0, half.end()) + 1
        raise JsonError(line, "half of a surrogate pair (\\uD800 to \\uDFFF alone) is no text")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _TwiceError
    return value


def _twice(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each key that its object has already."""
    line = 1
    objects: list[set[str] | None] = []
    last = None
    for token in (match[0] for match in _TOKEN.finditer(text)):
        if token == "{":
            objects.append(set())
        elif token == "[":
            objects.append(None)
        elif token in "]}":
            objects.pop()
        elif token == ":":
            assert last is not None
            keys = objects[-1]
            assert keys is not None
            key = json.loads(last)
            if key in keys:
                yield line, key
            keys.add(key)
        line += token.count("\n")
        last = token if token[0] == '"' else last
