"""Measure exact ranking: brute force, the whole trie, and the pruned trie, on the same queries.

A query is one held-out like of a client whose graph fills its prompt. Brute force reads the prompt
once and expands its keys and values over batches of titles, as one would with transformers alone.
Needs ReDial in $PKGLLM_DATA, and trains a model on it unless one is given.

usage: python scripts/bench_ranking.py [--json] [--queries N] [--run RUN] [--all-clients]
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from pkgllm.config.load import load_config
from pkgllm.evaluation.ranking.language_model import GIBIBYTE, LanguageModelScorer
from pkgllm.evaluation.ranking.trie import make_trie
from pkgllm.evaluation.ranking.trie_search import TIE_NATS
from pkgllm.evaluation.ranks import Ranks, best_columns, rank_gold
from pkgllm.evaluation.results import TOP_K
from pkgllm.evaluation.scorer import ClientQueries, RankedClient, candidate_mask, gold_columns
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.lm.adapter import load_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline.build import make_queries, make_writer, populate, read_corpus
from pkgllm.randomness import stream

PKGLLM = str(Path(sys.executable).parent / "pkgllm")
PROMPT_TOKENS = 400
TITLES_AT_ONCE = 64
TOP = 50
TRAINING = ("--set", "mode.rounds=20", "--set", "evaluation.max_clients=1")
WAYS = (
    "brute force",
    "whole trie",
    "pruned trie, one like",
    "pruned trie, all likes of the client",
    "pruned trie, exact top 50",
)

Found = TypeVar("Found")


@dataclass
class Way:
    """One way of ranking, over all queries."""

    seconds: float = 0.0
    tokens: int = 0
    nodes: int = 0
    peak_bytes: int = 0

    def time(self, run: Callable[[], Found]) -> Found:
        """Do what is measured."""
        # Linux then looks for the most memory anew.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        start = time.perf_counter()
        found = run()
        self.seconds += time.perf_counter() - start
        status = Path("/proc/self/status").read_text(encoding="ascii")
        self.peak_bytes = max(self.peak_bytes, int(status.split("VmHWM:")[1].split()[0]) * 1024)
        return found


class Workload:
    """The tuned model, the catalogue and the clients of the benchmark.

    Args:
        run: A finished run on ReDial.
        max_tokens: Of a prompt; the run's own when absent.
    """

    def __init__(self, run: Path, *, max_tokens: int | None) -> None:
        settings = ["evaluation.max_clients=null", "base_model.device=cpu"]
        if max_tokens is not None:
            settings.append(f"prompt.max_tokens={max_tokens}")
        self.config = load_config(str(run / "config.yaml"), settings)
        population = populate(self.config, read_corpus(self.config))
        self.catalogue = population.corpus.catalogue
        base = load_base_model(self.config.base_model.name, device="cpu")
        self.policy = load_adapter(base.model, run / "adapter")
        self.writer = make_writer(self.config.prompt, base)
        self.trie = make_trie(self.writer, self.catalogue)
        self.clients = make_queries(self.config, population)
        self.scorer = LanguageModelScorer(
            "tuned",
            self.policy,
            lambda graph: self.prompt(graph),
            self.trie,
            max_positions=base.max_positions,
            longest_prompt=self.config.prompt.max_tokens,
            memory_budget=int(self.config.evaluation.memory_gib * GIBIBYTE),
        )

    def prompt(self, graph: PersonalGraph) -> Sequence[int]:
        """Return the token ids of a graph's prompt."""
        return self.writer.write(graph).token_ids

    def draw(self, count: int) -> list[tuple[ClientQueries, str]]:
        """Draw held-out likes of clients whose graphs fill the prompt, each like alike."""
        room = self.config.prompt.max_tokens - 20
        full = [
            (query, item)
            for query in self.clients
            if len(self.prompt(query.graph)) > room
            for item in query.held_out
        ]
        drawn = stream(self.config.seed, "bench").permutation(len(full))[:count]
        return [full[index] for index in drawn]

    def rank(self, queries: Sequence[ClientQueries], *, top_k: int) -> list[RankedClient]:
        """Rank some clients' held-out items; without any, only find the best candidates."""
        candidates = np.stack([candidate_mask(self.catalogue, query) for query in queries])
        gold = [gold_columns(self.catalogue, query) for query in queries]
        found = self.scorer.rank(queries, candidates, gold, top_k=top_k)
        assert all(isinstance(ranked, RankedClient) for ranked in found)
        return [ranked for ranked in found if isinstance(ranked, RankedClient)]

    def best(self, query: ClientQueries) -> RankedClient:
        """Find the exact best candidates of a client, and no rank."""
        candidates = candidate_mask(self.catalogue, query)[None]
        (found,) = self.scorer.rank([query], candidates, [np.empty(0, np.int64)], top_k=TOP)
        assert isinstance(found, RankedClient)
        return found


class BruteForce:
    """Score every title by itself, with the prompt's keys and values expanded over a batch."""

    def __init__(self, workload: Workload) -> None:
        merged = copy.deepcopy(workload.policy).merge_and_unload()
        merged.train(False)
        self.model = merged
        self.sequences = [workload.writer.completion_ids(n) for n in workload.catalogue.names]
        self.order = sorted(range(len(self.sequences)), key=lambda at: len(self.sequences[at]))
        self.tokens = 0

    @torch.inference_mode()
    def scores(self, prompt: Sequence[int]) -> NDArray[np.float64]:
        """Return every title's log-probability after a prompt."""
        cache = DynamicCache()
        read = self.model(input_ids=torch.tensor([prompt]), past_key_values=cache)
        first = read.logits[0, -1].float().log_softmax(dim=-1)
        self.tokens += len(prompt)
        found = np.empty(len(self.sequences))
        for start in range(0, len(self.order), TITLES_AT_ONCE):
            columns = self.order[start : start + TITLES_AT_ONCE]
            titles = [torch.tensor(self.sequences[column]) for column in columns]
            # The terminator is predicted, never fed; padding stands behind and is not looked at.
            ids, targets = _padded([t[:-1] for t in titles]), _padded([t[1:] for t in titles])
            real = _padded([torch.ones(len(title) - 1) for title in titles])
            expanded = copy.deepcopy(cache)
            expanded.batch_repeat_interleave(len(columns))
            logits = self.model(input_ids=ids, past_key_values=expanded).logits.float()
            each = logits.log_softmax(dim=-1).gather(-1, targets[..., None])[..., 0]
            begun = first[torch.stack([title[0] for title in titles])]
            found[columns] = (begun.double() + (each * real).double().sum(dim=1)).numpy()
            self.tokens += ids.numel()
        return found


def _padded(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def bench(workload: Workload, count: int) -> dict[str, object]:
    """Rank every query in every way, and return what was measured."""
    brute, whole, pruned, together, top = ways = [Way() for _ in range(5)]
    forced = BruteForce(workload)
    drawn = workload.draw(count)
    largest_rank = largest_score = 0.0
    same_lists = True
    num_likes = 0
    workload.best(drawn[0][0])  # the first pass of all is not measured
    for number, (client, item) in enumerate(drawn, start=1):
        query = replace(client, held_out=(item,))
        prompt = workload.prompt(query.graph)
        by_force = brute.time(partial(forced.scores, prompt))
        scores = whole.time(partial(workload.scorer.scores, [query]))[0]
        (alone,) = pruned.time(partial(workload.rank, [query], top_k=TOP_K))
        (of_client,) = together.time(partial(workload.rank, [client], top_k=TOP_K))
        best = top.time(partial(workload.best, query))
        fed = (len(workload.trie.inputs), alone.num_fed, of_client.num_fed, best.num_fed)
        for way, nodes in zip(ways[1:], fed, strict=True):
            way.nodes += nodes
            way.tokens += nodes + len(prompt)
        num_likes += len(client.held_out)
        candidates = candidate_mask(workload.catalogue, client)
        rounding = float(np.abs(scores - by_force).max())
        for asked, found in ((query, alone.ranks), (client, of_client.ranks)):
            gold = gold_columns(workload.catalogue, asked)
            of_all = rank_gold(scores, candidates, gold, tolerance=TIE_NATS)
            for ranks in (of_all, found):
                away = rank_difference(by_force, candidates, gold, ranks, rounding)
                largest_rank = max(largest_rank, away)
        largest_score = max(largest_score, rounding)
        same_lists &= same_list(by_force, candidates, best.top)
        print(f"query {number} of {len(drawn)}", file=sys.stderr)
    brute.tokens = forced.tokens
    seconds = [way.seconds / len(drawn) for way in ways]
    return {
        "ratios": {
            "trie_vs_brute": seconds[0] / seconds[1],
            "pruned_vs_trie": seconds[1] / seconds[2],
            "pruned_all_likes_of_a_client_vs_trie": seconds[1] / seconds[3],
            "top50_vs_trie": seconds[1] / seconds[4],
        },
        "max_rank_difference": largest_rank,
        "nodes_visited_share": pruned.nodes / whole.nodes,
        "nodes_visited_share_all_likes_of_a_client": together.nodes / whole.nodes,
        "nodes_visited_share_top50": top.nodes / whole.nodes,
        "max_score_difference_nats": largest_score,
        "top50_lists_equal": same_lists,
        "queries": len(drawn),
        "likes_of_a_client": num_likes / len(drawn),
        "trie_nodes": len(workload.trie),
        "trie_inputs": len(workload.trie.inputs),
        "ways": {
            name: {
                "seconds": way.seconds / len(drawn),
                "tokens": way.tokens / len(drawn),
                "peak_gigabytes": way.peak_bytes / 1e9,
            }
            for name, way in zip(WAYS, ways, strict=True)
        },
    }


def rank_difference(
    scores: NDArray[np.float64],
    candidates: NDArray[np.bool_],
    gold: NDArray[np.int64],
    found: Ranks,
    rounding: float,
) -> float:
    """Return how far ranks lie outside what brute force's scores allow.

    Scores within a tie count as equal in both. A pair may lie within it by one way's rounding and
    just outside by the other's, so either is allowed for pairs that are that near its edge.
    """
    narrow, wide = (
        rank_gold(scores, candidates, gold, tolerance=max(TIE_NATS + sign * 2 * rounding, 0.0))
        for sign in (-1, 1)
    )
    bounds = (
        (found.optimistic, wide.optimistic, narrow.optimistic),
        (found.pessimistic, narrow.pessimistic, wide.pessimistic),
    )
    return max(
        float(np.maximum(np.maximum(low - rank, rank - high), 0).max())
        for rank, low, high in bounds
    )


def same_list(
    scores: NDArray[np.float64], candidates: NDArray[np.bool_], found: NDArray[np.int64]
) -> bool:
    """Return whether a list is the best one once scores within a tie may change places."""
    best = best_columns(scores, candidates, len(found))
    return bool((np.abs(scores[best] - scores[found]) <= TIE_NATS).all())


def bench_all_clients(workload: Workload) -> dict[str, object]:
    """Rank every held-out like of every client with the tuned model."""
    at_once = workload.scorer.clients_at_once
    batches: list[Way] = []
    for start in range(0, len(workload.clients), at_once):
        part = workload.clients[start : start + at_once]
        batches.append(Way())
        found = batches[-1].time(partial(workload.rank, part, top_k=TOP_K))
        batches[-1].nodes = sum(ranked.num_fed for ranked in found)
        print(f"{start + len(part)} of {len(workload.clients)} clients", file=sys.stderr)
    quarter = len(batches) // 4 or 1
    num_inputs = len(workload.clients) * len(workload.trie.inputs)
    return {
        "all_clients": {
            "clients": len(workload.clients),
            "queries": sum(len(query.held_out) for query in workload.clients),
            "seconds": sum(batch.seconds for batch in batches),
            "nodes_visited_share": sum(batch.nodes for batch in batches) / num_inputs,
            "peak_gigabytes_first_quarter": max(b.peak_bytes for b in batches[:quarter]) / 1e9,
            "peak_gigabytes_last_quarter": max(b.peak_bytes for b in batches[-quarter:]) / 1e9,
        }
    }


def main() -> None:
    """Print one table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one object instead")
    parser.add_argument("--queries", type=int, default=8, help="held-out likes to rank")
    parser.add_argument("--run", type=Path, help="a finished run of redial-mini; trained if absent")
    parser.add_argument("--all-clients", action="store_true", help="rank all clients as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or Path(folder) / "run"
        if arguments.run is None:
            command = [PKGLLM, "train", "--config", "redial-mini.yaml", *TRAINING]
            subprocess.run([*command, "--output", str(run)], check=True, stdout=sys.stderr)
        measured = bench(Workload(run, max_tokens=PROMPT_TOKENS), arguments.queries)
        if arguments.all_clients:
            measured |= bench_all_clients(Workload(run, max_tokens=None))
    if arguments.json:
        print(json.dumps(measured))
        return
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores\n")
    print_table(measured)


def print_table(measured: dict[str, object]) -> None:
    """Print what was measured in Markdown."""
    print("| way | seconds | tokens | peak GB |\n|---|---|---|---|")
    ways = measured.pop("ways")
    assert isinstance(ways, dict)
    for name, way in ways.items():
        print(
            f"| {name} | {way['seconds']:.3f} | {way['tokens']:.0f} | {way['peak_gigabytes']:.2f} |"
        )
    print("\n| what | measured |\n|---|---|")
    for name, value in measured.items():
        parts = value.items() if isinstance(value, dict) else [(name, value)]
        for label, number in parts:
            shown = f"{number:.3g}" if isinstance(number, float) else number
            print(f"| {label.replace('_', ' ')} | {shown} |")


if __name__ == "__main__":
    main()
