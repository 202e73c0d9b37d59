"""Measure recommending to one person, and saying why, on the whole ReDial catalogue.

Both in seconds as a clock counts them, and as the processor worked for this process: the second
figure says less of what a person waits, but hardly changes with what else the machine does. The
person's graph fills its prompt. The adapter of qwen3-mini is fresh, which takes as long as a
trained one. Loading is left out, and the first answer as well. Needs ReDial in $PKGLLM_DATA and
qwen3-mini in $PKGLLM_MODELS.

usage: python scripts/bench_recommend.py [--json] [--top K] [--repeats N]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pkgllm.assistant.reasons import give_reasons
from pkgllm.assistant.recommend import Recommender
from pkgllm.config.load import load_config
from pkgllm.pipeline.build import make_policy, make_writer, populate, read_corpus
from pkgllm.pipeline.run_record import load_base

CONFIG = "redial-mini.yaml"
REQUEST = "something from the 90s"
AIMS = {"recommend": 3.0, "why": 6.0}


class Taken(NamedTuple):
    """Medians over the answers timed."""

    seconds: float
    cpu_seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--top", type=int, default=10, help="recommendations (default: 10)")
    parser.add_argument("--repeats", type=int, default=5, help="answers timed (default: 5)")
    options = parser.parse_args(arguments)
    config = load_config(CONFIG)
    population = populate(config, read_corpus(config))
    catalogue = population.corpus.catalogue
    base = load_base(config)
    writer = make_writer(config.prompt, base)
    recommender = Recommender(
        make_policy(config, base), writer, catalogue, max_positions=base.max_positions
    )
    # Whoever has most to say fills the prompt.
    graph = max((split.graph for split in population.splits), key=lambda graph: len(graph.facts))
    found = recommender.recommend(graph, REQUEST, k=options.top)

    taken = {
        "recommend": _measure(
            lambda: recommender.recommend(graph, REQUEST, k=options.top), options.repeats
        ),
        "why": _measure(lambda: give_reasons(recommender, graph, found, REQUEST), options.repeats),
    }
    prompt = recommender.prompt(graph, REQUEST)
    measured = {
        "seconds": {name: measured.seconds for name, measured in taken.items()},
        "cpu_seconds": {name: measured.cpu_seconds for name, measured in taken.items()},
        "catalogue": len(catalogue),
        "prompt_tokens": len(prompt.token_ids),
        "prompt_facts": len(prompt.tails),
        "recommendations": len(found),
    }
    if options.json:
        print(json.dumps(measured, indent=2))
        return
    for name, value in measured.items():
        if not isinstance(value, dict):
            print(f"{name.replace('_', ' ')}: {value}")
    for name, (seconds, cpu_seconds) in taken.items():
        print(f"{name}: {seconds:.2f} s (aim: {AIMS[name]:g}), {cpu_seconds:.2f} s of CPU")


def _measure(answer: Callable[[], object], repeats: int) -> Taken:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        answer()
        taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    seconds, cpu_seconds = zip(*taken, strict=True)
    return Taken(statistics.median(seconds), statistics.median(cpu_seconds))


if __name__ == "__main__":
    main()
