"""Pretrain a small base model from a folder of text: a byte-level BPE tokenizer and a small Qwen3.

Every .txt file below the folder is one document; every line of a .jsonl file is one JSON object
whose "text" is a document. <|im_start|>, <|im_end|> and <|endoftext|> inside a document become the
special tokens.

The same command continues an interrupted run from its last checkpoint, and ends with the parameters
of an uninterrupted run. The output folder appears only when the model is complete; until then all
files are in OUTPUT.partial.

Example:
  python -m tools.make_small_world --public-text build/public_text
  python -m tools.pretrain_base --text build/public_text --output data/models/base-tiny --steps 1000
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pkgllm.errors import DataError, PkgllmError
from tools.pretraining import Options, pretrain


def read_documents(folder: Path) -> list[str]:
    """Return the documents of a folder, in the order of their paths and lines.

    Raises:
        DataError: If the folder is missing or contains fewer than two documents, or a file or a
            line has another form.
    """
    if not folder.is_dir():
        raise DataError(f"--text must be a folder of documents, got {folder}")
    documents: list[str] = []
    for path in sorted(folder.rglob("*")):
        try:
            if path.suffix == ".txt":
                documents.append(path.read_text(encoding="utf-8"))
            elif path.suffix == ".jsonl":
                documents.extend(_read_lines(path))
        except UnicodeDecodeError as error:
            raise DataError(f"{path} must be UTF-8 text: {error.reason}") from error
    documents = [document for document in documents if document.strip()]
    if len(documents) < 2:
        raise DataError(
            f"{folder} must contain at least two documents in .txt or .jsonl files, "
            f"got {len(documents)}"
        )
    return documents


def _read_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = json.loads(line)["text"]
            except (json.JSONDecodeError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise DataError(
                    f"{path}, line {number}: every line must be a JSON object whose 'text' is a "
                    f"string, got {line.strip()[:60]!r}"
                )
            yield text


def parse(arguments: Sequence[str] | None = None) -> tuple[Path, Path, Options]:
    """Return the text folder, the output folder and the options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True, help="folder of documents")
    parser.add_argument("--output", type=Path, required=True, help="folder of the finished model")
    for option in fields(Options):
        parser.add_argument(
            "--" + option.name.replace("_", "-"),
            type=type(option.default),
            default=option.default,
            help=f"{option.metadata['help']} (default: {option.default})",
        )
    values = vars(parser.parse_args(arguments))
    text, output = values.pop("text"), values.pop("output")
    try:
        return text, output, Options(**values)
    except ValueError as error:
        parser.error(str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    text, output, options = parse(arguments)
    console = Console()
    progress = Progress(
        TextColumn("pretraining"),
        BarColumn(),
        TextColumn("step {task.completed}/{task.total}, loss {task.fields[loss]:.3f} nats a token"),
        TimeRemainingColumn(),
        console=console,
    )
    try:
        documents = read_documents(text)
        with progress:
            task = progress.add_task("", total=options.steps, loss=math.nan)
            pretrain(
                documents,
                output,
                options,
                on_step=lambda step, loss: progress.update(task, completed=step, loss=loss),
                on_held_out=lambda step, loss: console.print(
                    f"step {step}: held-out loss {loss:.3f} nats a token"
                ),
            )
    except PkgllmError as error:
        print(f"pretrain_base: {error}", file=sys.stderr)
        return error.exit_code
    console.print(f"the base model is in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
