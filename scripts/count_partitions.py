"""Count what each partition leaves of a configuration's groups; nothing is trained.

Example: .venv/bin/python scripts/count_partitions.py --config quickstart.yaml
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.corpora.population import Population
from pkgllm.errors import PkgllmError
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline.build import make_writer, partition_groups, populate, read_corpus
from pkgllm.progress import Silent
from pkgllm.prompts.prompts import PromptWriter

PARTITIONS = (
    "{name: by_client}",
    "{name: redistributed}",
    "{name: paired}",
    "{name: dirichlet, concentration: 100}",
    "{name: dirichlet, concentration: 1}",
    "{name: dirichlet, concentration: 0.1}",
    "{name: one_sided, one_sided_share: 0.5}",
    "{name: one_sided}",
)
COLUMNS = (
    "partition",
    "clients",
    "dropped",
    "groups",
    "desirable",
    "undesirable",
    "least undesirable share",
    "median",
    "largest",
)


def row(name: str, config: Experiment, population: Population, writer: PromptWriter) -> str:
    """Return a partition's line of the table."""
    with TemporaryDirectory() as folder:
        _, counts = partition_groups(
            config, population, writer, Path(folder) / "groups.arrow", Silent()
        )
    keys = ("clients", "clients_dropped", "groups", "desirable", "undesirable")
    shares = counts["undesirable_share"].values()
    cells = [f"`{name}`", *(str(counts[key]) for key in keys), *(f"{s:.2f}" for s in shares)]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", default="quickstart.yaml", help="names corpus and groups")
    name = parser.parse_args(arguments).config
    try:
        # Nothing is trained, so any objective and mode will do that go with every partition.
        others = ("objective={name: kto}", "mode={name: centralized, rounds: 1}")
        configs = {
            partition: load_config(name, [f"partition={partition}", *others])
            for partition in PARTITIONS
        }
        natural = configs[PARTITIONS[0]]
        population = populate(natural, read_corpus(natural))
        writer = make_writer(natural.prompt, load_base_model(natural.base_model.name, device="cpu"))
        print(f"| {' | '.join(COLUMNS)} |")
        print("|---" * len(COLUMNS) + "|")
        for partition, config in configs.items():
            print(row(partition, config, population, writer), flush=True)
    except PkgllmError as error:
        print(f"count_partitions: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
