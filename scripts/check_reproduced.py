"""Run the commands behind two tables of docs/results.md, and compare their values with the page.

Takes about ten minutes on two cores; ends with 1 where a value differs.

    python scripts/check_reproduced.py
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
SAME = 0.03
"""Another processor rounds otherwise, and training carries that on; measured below .01."""
METRICS = {"Hits@10": "hits@10", "MRR": "mrr"}

Table = Mapping[str, Mapping[str, float]]
"""Values by row and column."""


def on_the_page(section: str, table: str) -> Table:
    """Return the values of a table in the docs, without their intervals."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = text.partition(f"**{table}")[2].partition("\n\n")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    headings, _, *rows = cells
    return {
        row[0]: {
            heading: float(number[0])
            for heading, cell in zip(headings[1:], row[1:], strict=True)
            if (number := re.match(r"-?[\d.]+", cell))
        }
        for row in rows
    }


def all_models() -> Table:
    """Return the table of all models on the small world."""
    return on_the_page("All models, small world", "Every row")


def differences(page: Table, measured: Table) -> Iterator[str]:
    """Yield a line for each measured value that is not the one on the page."""
    for row, values in measured.items():
        for column, value in values.items():
            expected = page.get(row, {}).get(column)
            if expected is None:
                yield f"{row}, {column}: not on the page, measured {value:.4f}"
            elif not abs(value - expected) <= SAME:
                yield f"{row}, {column}: {expected:.4f} on the page, measured {value:.4f}"


def measured_models(results: Mapping[str, Any]) -> Table:
    """Return the values of ``results.json`` of a comparison of models."""
    return {
        row["name"]: {column: row["metrics"][name]["value"] for column, name in METRICS.items()}
        for row in results["rows"]
    }


def check_models(folder: Path) -> list[str]:
    """Run the table of all models, and return what differs."""
    _reproduce("table2", "--seeds", "1", "-o", str(folder))
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    page, measured = all_models(), measured_models(results)
    lines = list(differences(page, measured))
    if list(measured) != list(page):
        lines.append(f"rows: {', '.join(page)} on the page, measured {', '.join(measured)}")
    lines += [
        f"{row['name']}: {row['failures']} failed" for row in results["rows"] if row["failures"]
    ]
    if (results["clients"], results["queries"]) != (120, 591):
        lines.append(f"{results['clients']} clients and {results['queries']} queries, not 120, 591")
    return lines


def check_bubbles(folder: Path) -> list[str]:
    """Run the table of leaving a bubble, and return what differs."""
    _reproduce("pie", "-o", str(folder))
    results = json.loads((folder / "pie.json").read_text(encoding="utf-8"))
    measured = {
        strategy: {"invalid": found["invalid"]["value"], "out-PIE": found["out_pie"]["value"]}
        for strategy, found in results["cases"]["small world"]["strategies"].items()
    }
    return list(
        differences(on_the_page("Leaving a bubble, small world", "small world: 1"), measured)
    )


def _reproduce(table: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "pkgllm", "reproduce", table, "--scale", "small-world"]
    subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check both tables; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines = [*check_models(Path(folder) / "models"), *check_bubbles(Path(folder) / "pie")]
        except subprocess.CalledProcessError as error:
            print(f"check_reproduced: {error}", file=sys.stderr)
            return 1
    for line in lines:
        print(line)
    print(f"{len(lines)} differences from {PAGE.name}" if lines else f"as {PAGE.name} says")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
