"""Write docs/configuration.md from the schema: each key, its type, default and meaning.

Example:
    python -m tools.make_configuration_docs
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from pkgllm.config.choices import documentation, is_part, keys, listed, parts, tag
from pkgllm.config.documents import write_yaml
from pkgllm.config.fields import describe
from pkgllm.config.schema import EmbeddingExperiment, Experiment

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

TOPS: dict[str, type[Any]] = {
    "Top level of a run that tunes a language model": Experiment,
    "Top level of a run that trains an embedding": EmbeddingExperiment,
}

HEAD = """\
# Configuration

One YAML file describes a whole run; the shipped ones are in `configs/`. A run tunes a language
model, or, where its file has the key `embedding`, trains a knowledge graph embedding to compare
with; that one has its own top level. Unknown keys, duplicate keys and values of another type are
errors. Sections with a `name` are choices: the name decides which keys the section takes.

A single value is set from the command line with `--set`, for example
`--set training.learning_rate=5e-5`; another choice is best given as a whole,
`--set 'objective={name: dpo, beta: 0.2}'`. The run folder keeps the whole tree, defaults included,
as `config.yaml`.

`python -m tools.make_configuration_docs` writes this page from `src/pkgllm/config/schema.py`.
"""


def render() -> str:
    """Return the page."""
    seen: set[tuple[tuple[str, ...], type[Any]]] = set()
    lines = [HEAD]
    for heading, kind in TOPS.items():
        lines += [*_table(heading, kind, "##"), *_below(kind, (), "##", seen)]
    return "\n".join(lines)


def _below(
    section: type[Any],
    path: tuple[str, ...],
    level: str,
    seen: set[tuple[tuple[str, ...], type[Any]]],
) -> Iterator[str]:
    """Yield the tables of all sections below one, each once."""
    for key, field in keys(section).items():
        for inner in parts(field):
            if ((*path, key), inner) in seen:
                continue
            seen.add(((*path, key), inner))
            name = tag(inner)
            heading = f"`{'.'.join((*path, key))}`{f', name `{name}`' if name else ''}"
            yield from _table(heading, inner, level)
            yield from _below(inner, (*path, key), level, seen)


def _table(heading: str, section: type[Any], level: str) -> Iterator[str]:
    yield f"{level} {heading}\n"
    yield f"{_markdown(_summary(section))}\n"
    yield "| key | takes | default | meaning |"
    yield "|---|---|---|---|"
    for key, field in keys(section).items():
        meaning = " ".join((documentation(section, key) or _meaning(key, field)).split())
        yield f"| `{key}` | {describe(field)} | {_default(key, section)} | {_markdown(meaning)} |"
    yield ""


def _summary(section: type[Any]) -> str:
    """Return what a section is, without the equations and errors with which a choice goes on."""
    paragraphs = (inspect.getdoc(section) or "").split("\n\n")
    words = takewhile(
        lambda text: not re.search(r":math:|^\.\. |^(Raises|Source):", text), paragraphs
    )
    return "\n\n".join(words)


def _meaning(key: str, field: FieldInfo) -> str:
    return "Below." if parts(field) else f"The {key} of this choice."


def _default(key: str, section: type[Any]) -> str:
    field = keys(section)[key]
    if field.is_required() or (key == "name" and tag(section) is not None):
        return "must be given"
    if listed(field):
        return f"`[{', '.join(part.name for part in field.default)}]`"
    if is_part(type(field.default)):
        name = tag(type(field.default))
        return f"`{name}`" if name else _set_keys(field.default)
    return f"`{write_yaml({'': field.default}).split(':', 1)[1].strip()}`"


def _set_keys(default: Any) -> str:
    """Return the keys of a section that its owner sets, where there are any."""
    set_keys = {
        key: getattr(default, key)
        for key, field in keys(type(default)).items()
        if getattr(default, key) != field.default
    }
    shown = ", ".join(f"{key}: {write_yaml(value).split()[0]}" for key, value in set_keys.items())
    return f"`{{{shown}}}`" if shown else "its keys' defaults"


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def main() -> int:
    """Write the page, or with ``--check`` only say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if out of date")
    if parser.parse_args().check:
        current = PAGE.read_text(encoding="utf-8") == render()
        print(f"{PAGE.name} is {'up to date' if current else 'out of date; run this script'}")
        return 0 if current else 1
    PAGE.write_text(render(), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
