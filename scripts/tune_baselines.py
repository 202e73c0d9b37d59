"""Rank validation likes with ItemKNN, EASE^R and SLIM in many settings; the test is never used.

Example: PKGLLM_DATA=../shared/data .venv/bin/python scripts/tune_baselines.py
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from pkgllm.baselines import ScorerChoice
from pkgllm.baselines.ease import Ease
from pkgllm.baselines.item_knn import ItemKnn
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.baselines.popularity import Popularity
from pkgllm.baselines.slim import Slim
from pkgllm.config.load import load_config
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import PkgllmError
from pkgllm.evaluation.metrics import hits_at_k, reciprocal_rank
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.pipeline.build import make_queries, populate, read_corpus

GRIDS: Mapping[type[ScorerChoice], Mapping[str, Sequence[float]]] = {
    ItemKnn: {
        "neighbours": (5, 10, 20, 50, 100, 200, 500),
        "shrinkage": (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
    },
    Ease: {"l2": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)},
    Slim: {"l1": (0.0, 0.3, 1.0, 3.0), "l2": (1.0, 3.0, 10.0, 30.0, 100.0)},
}

Setting = Mapping[str, float]


def scorers(likes: TrainingLikes) -> Iterator[tuple[Setting, Scorer]]:
    """Yield every setting with its model."""
    yield {}, Popularity().fit(likes)
    for choice, grid in GRIDS.items():
        for values in product(*grid.values()):
            setting: Any = dict(zip(grid, values, strict=True))
            yield setting, choice(**setting).fit(likes)


def hits_and_mrr(
    scorer: Scorer, queries: Sequence[ClientQueries], catalogue: Catalogue
) -> tuple[float, float]:
    """Return Hits@10 and MRR, each query alike."""
    ranked = evaluate([scorer], queries, catalogue, resamples=1, seed=0).ranked[scorer.name]
    ranks = np.concatenate([client.ranks.realistic for client in ranked])
    return float(hits_at_k(ranks, k=10).mean()), float(reciprocal_rank(ranks).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table, and for each model the setting with the highest MRR."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", default="redial-mini.yaml", help="names corpus and split")
    try:
        config = load_config(parser.parse_args(arguments).config, ["evaluation.part=validation"])
        population = populate(config, read_corpus(config))
    except PkgllmError as error:
        print(f"tune_baselines: {error}", file=sys.stderr)
        return error.exit_code
    catalogue = population.corpus.catalogue
    queries = make_queries(config, population, everybody=True)
    likes = TrainingLikes(catalogue, population.liked_in_training())
    asked = sum(len(query.held_out) for query in queries)
    print(f"{population.corpus.name}, validation: {len(queries)} clients, {asked} queries\n")
    print("| model | setting | Hits@10 | MRR |\n|---|---|---|---|")
    best: dict[str, tuple[float, str]] = {}
    for setting, scorer in scorers(likes):
        hits, mrr = hits_and_mrr(scorer, queries, catalogue)
        shown = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        print(f"| {scorer.name} | {shown} | {hits:.4f} | {mrr:.4f} |")
        if setting:
            best[scorer.name] = max(best.get(scorer.name, (0.0, "")), (mrr, shown))
    print()
    for name, (mrr, shown) in best.items():
        print(f"{name}: {shown} has the highest MRR, {mrr:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
