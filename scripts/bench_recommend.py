"""Measure recommending to one person, and saying why, on the whole ReDial catalogue.

The person's graph fills its prompt. The adapter of qwen3-mini is fresh, which takes as long as a
trained one. Loading is left out, and the first answer as well. Needs ReDial in $PKGLLM_DATA and
qwen3-mini in $PKGLLM_MODELS.

usage: python scripts/bench_recommend.py [--json] [--top K] [--repeats N]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

from pkgllm.assistant.reasons import give_reasons
from pkgllm.assistant.recommend import Recommender
from pkgllm.config.load import load_config
from pkgllm.experiment.assembly import make_policy, make_writer, populate, read_corpus
from pkgllm.experiment.run_record import load_base

CONFIG = "redial-mini.yaml"
REQUEST = "something from the 90s"
AIMS = {"recommend": 3.0, "why": 6.0}


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

    seconds = {
        "recommend": _median(
            lambda: recommender.recommend(graph, REQUEST, k=options.top), options.repeats
        ),
        "why": _median(lambda: give_reasons(recommender, graph, found, REQUEST), options.repeats),
    }
    prompt = recommender.prompt(graph, REQUEST)
    measured = {
        "seconds": seconds,
        "catalogue": len(catalogue),
        "prompt_tokens": len(prompt.token_ids),
        "prompt_facts": len(prompt.tails),
        "recommendations": len(found),
    }
    if options.json:
        print(json.dumps(measured, indent=2))
        return
    for name, value in measured.items():
        if name != "seconds":
            print(f"{name.replace('_', ' ')}: {value}")
    for name, value in seconds.items():
        print(f"{name}: {value:.2f} s (aim: {AIMS[name]:g})")


def _median(answer: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
