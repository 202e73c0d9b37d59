"""Rank ReDial's test likes with two entries of one film as one, and as two.

Both rows of a model are of one process. Example:
PKGLLM_DATA=../shared/data .venv/bin/python scripts/compare_same_items.py
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.config.load import load_config
from pkgllm.errors import PkgllmError
from pkgllm.evaluation.metrics import hits_at_k, reciprocal_rank
from pkgllm.evaluation.protocol import evaluate
from pkgllm.pipeline.build import make_queries, populate, read_corpus

OVERRIDES = ["evaluation.baselines=[{name: popularity}, {name: item_knn}, {name: ease}]"]


def rows(config: str, same_items: str) -> Sequence[str]:
    """Return a line of the table for each model, unseen people first."""
    tree = load_config(config, [*OVERRIDES, f"corpus.same_items={same_items}"])
    population = populate(tree, read_corpus(tree))
    queries, catalogue = make_queries(tree, population, everybody=True), population.corpus.catalogue
    likes = TrainingLikes.within(catalogue, population.liked_in_training())
    models = [choice.fit(likes, seed=tree.seed) for choice in tree.evaluation.baselines]
    ranked = evaluate(models, queries, catalogue, resamples=1, seed=0).ranked
    in_training = {split.client for split in population.in_training}
    unseen = np.array([query.client not in in_training for query in queries])
    lines = []
    for model in models:
        cells = []
        for group in (unseen, ~unseen):
            clients = [c for c, inside in zip(ranked[model.name], group, strict=True) if inside]
            ranks = np.concatenate([client.ranks.realistic for client in clients])
            mrr, hits = reciprocal_rank(ranks).mean(), hits_at_k(ranks, k=10).mean()
            cells += [str(len(ranks)), f"{mrr:.4f}", f"{hits:.4f}"]
        cells = [model.name, same_items, str(len(catalogue)), *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def merged_facts(config: str) -> str:
    """Return how many facts are about the other entry of a film that its person spoke of."""
    counts = []
    for same_items in ("apart", "one"):
        corpus = read_corpus(load_config(config, [f"corpus.same_items={same_items}"]))
        counts.append({graph.owner: len(graph.facts) for graph in corpus.graphs})
    fewer = [counts[0][owner] - counts[1][owner] for owner in counts[0]]
    digest = corpus.digests["train_data.jsonl"][:12]
    return f"\n{sum(fewer)} facts of {sum(map(bool, fewer))} people; train_data.jsonl {digest}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", default="fedkto.yaml", help="a configuration of ReDial")
    config = parser.parse_args(arguments).config
    print(
        "| model | same_items | items | unseen likes | MRR | Hits@10 | seen likes | MRR | Hits@10 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    try:
        tables = [rows(config, same_items) for same_items in ("apart", "one")]
    except PkgllmError as error:
        print(f"compare_same_items: {error}", file=sys.stderr)
        return 1
    for pair in zip(*tables, strict=True):
        print("\n".join(pair))
    print(merged_facts(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
