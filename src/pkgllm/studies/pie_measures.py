"""What people in a bubble are recommended under each strategy, measured and compared."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.assistant.avoidance import steer
from pkgllm.assistant.recommend import NO_CONSTRAINTS
from pkgllm.errors import PkgllmError
from pkgllm.evaluation.beyond_accuracy import (
    Lists,
    genre_vectors,
    intra_list_diversity,
    self_information,
)
from pkgllm.evaluation.comparison import PERMUTATIONS
from pkgllm.evaluation.ranks import rank_gold
from pkgllm.evaluation.scorer import ClientQueries, RankedClient
from pkgllm.evaluation.significance import holm, permutation_p_values
from pkgllm.evaluation.statistics import Estimate, bootstrap_ratios
from pkgllm.graph.adaptation import STRATEGIES, Strategy
from pkgllm.progress import Progress
from pkgllm.prompts.audit import audit_prompt
from pkgllm.randomness import stream
from pkgllm.studies.pie_cases import PieCase

K = 10
MEASURES = (
    "invalid",
    "in_pie",
    "out_pie",
    "precision",
    "recall",
    "rank_gain",
    "diversity",
    "novelty",
)
_OF_HELD_OUT = ("precision", "recall", "rank_gain")
"""Measured over the people who later like something outside of their bubble."""
_DIGITS = 6


def measure_case(
    case: PieCase,
    progress: Progress,
    *,
    seed: int,
    resamples: int,
    permutations: int = PERMUTATIONS,
) -> dict[str, Any]:
    """Recommend to everybody of a case under every strategy, and compare.

    Returns:
        Values of JSON: for each strategy every measure with its interval, and for each two
        strategies every difference with its interval and its p-value.

    Raises:
        LeakError: If a prompt holds what is asked for.
        PkgllmError: If the model gives no usable probability.
    """
    measures: dict[Strategy, NDArray[np.float64]] = {}
    with progress.track(f"recommending, {case.name}", len(STRATEGIES)) as advance:
        for strategy in STRATEGIES:
            measures[strategy] = _measure(case, strategy)
            advance()
    has_target = np.array([bool(person.held_out) for person in case.people])
    return {
        "people": len(case.people),
        "asked": case.num_asked,
        "with_held_out": int(has_target.sum()),
        "catalogue": len(case.recommender.catalogue),
        "request": case.constraints.words,
        "allowed": int(case.constraints.allowed(case.recommender.scopes).sum()),
        **compare(measures, has_target, seed=seed, resamples=resamples, permutations=permutations),
    }


def compare(
    measures: Mapping[Strategy, NDArray[np.float64]],
    has_target: NDArray[np.bool_],
    *,
    seed: int,
    resamples: int,
    permutations: int,
) -> dict[str, Any]:
    """Estimate every measure and every paired difference, clients resampled and exchanged whole.

    Args:
        measures: Of each person by strategy, shape ``(people, measures)``.
        has_target: Who later likes something outside, shape ``(people,)``.
        seed: Of resamples and permutations.
        resamples: Of the bootstrap.
        permutations: Of the tests; p-values are corrected over all of them together.
    """
    everybody = np.ones_like(has_target)
    columns = [has_target if name in _OF_HELD_OUT else everybody for name in MEASURES]
    ratios = bootstrap_ratios(
        np.concatenate([measures[strategy] for strategy in STRATEGIES], axis=1),
        np.tile(np.stack(columns, axis=1).astype(np.float64), (1, len(STRATEGIES))),
        resamples=resamples,
        generator=stream(seed, "pie", "bootstrap"),
    )
    pairs = list(combinations(range(len(STRATEGIES)), 2))
    p_values = permutation_p_values(
        np.concatenate([measures[STRATEGIES[b]] - measures[STRATEGIES[a]] for a, b in pairs], 1),
        resamples=permutations,
        generator=stream(seed, "pie", "permutations"),
    )
    corrected = holm(p_values)
    size = len(MEASURES)
    return {
        "strategies": {
            strategy: {
                name: _rounded(ratios.estimate(place * size + at), "value")
                for at, name in enumerate(MEASURES)
            }
            for place, strategy in enumerate(STRATEGIES)
        },
        "paired": {
            f"{STRATEGIES[b]}-{STRATEGIES[a]}": {
                name: {
                    **_rounded(ratios.difference(b * size + at, a * size + at), "difference"),
                    "p_value": round(float(p_values[place * size + at]), _DIGITS),
                    "p_corrected": round(float(corrected[place * size + at]), _DIGITS),
                }
                for at, name in enumerate(MEASURES)
            }
            for place, (a, b) in enumerate(pairs)
        },
    }


def _measure(case: PieCase, strategy: Strategy) -> NDArray[np.float64]:
    """Return every measure of every person under one strategy, shape ``(people, measures)``."""
    recommender = case.recommender
    catalogue = recommender.catalogue
    prompts: dict[str, Sequence[int]] = {}
    for person in case.people:
        steered = steer(person.graph, "", [person.rule], strategy, recommender.scopes)
        prompt = recommender.prompt(steered.adapted.graph, steered.request, case.constraints)
        audit_prompt(prompt, person.held_out, catalogue, place=f"prompt with strategy {strategy}")
        prompts[person.graph.owner] = prompt.token_ids
    queries = [ClientQueries(p.graph.owner, False, p.graph, p.held_out) for p in case.people]
    candidates = np.stack([recommender.candidates(p.graph, NO_CONSTRAINTS) for p in case.people])
    gold = [
        np.array([catalogue.index_by_id[item] for item in person.held_out], dtype=np.int64)
        for person in case.people
    ]
    scorer = recommender.scorer(lambda graph: prompts[graph.owner])
    ranked: list[RankedClient] = []
    for answer in scorer.rank(queries, candidates, gold, top_k=K):
        if isinstance(answer, PkgllmError):
            raise answer
        ranked.append(answer)
    return list_measures(case, ranked, candidates, gold)


def list_measures(
    case: PieCase,
    ranked: Sequence[RankedClient],
    candidates: NDArray[np.bool_],
    gold: Sequence[NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Measure what each person was recommended.

    An item that breaks the request is invalid, whether or not it lies inside the bubble; any other
    is in-PIE or out-PIE. The rank gain is how many places earlier than by popularity a held-out
    like stands, over the number of candidates.

    Returns:
        Shape ``(people, measures)``, in the order of :data:`MEASURES`.
    """
    catalogue, scopes = case.recommender.catalogue, case.recommender.scopes
    allowed = case.constraints.allowed(scopes)
    listed = Lists(
        np.concatenate([client.top for client in ranked]),
        np.array([len(client.top) for client in ranked], dtype=np.int64),
    )
    measures = {name: np.zeros(len(case.people)) for name in MEASURES}
    for at, (person, client, mask, columns) in enumerate(
        zip(case.people, ranked, candidates, gold, strict=True)
    ):
        bubble = scopes.items(person.rule.scope, person.rule.value)
        inside = np.array([item.id in bubble for item in catalogue])
        valid, num_listed = allowed[client.top], max(len(client.top), 1)
        measures["invalid"][at] = (~valid).sum() / num_listed
        measures["in_pie"][at] = (valid & inside[client.top]).sum() / num_listed
        measures["out_pie"][at] = (valid & ~inside[client.top]).sum() / num_listed
        if len(columns):
            hits = np.isin(columns, client.top).sum()
            popular = rank_gold(case.likes, mask, columns).realistic
            measures["precision"][at] = hits / K
            measures["recall"][at] = hits / len(columns)
            measures["rank_gain"][at] = ((popular - client.ranks.realistic) / mask.sum()).mean()
    diversity = intra_list_diversity(listed, genre_vectors(catalogue, case.alike))
    if diversity is not None:
        measures["diversity"] = diversity
    measures["novelty"] = listed.means(self_information(case.likes))
    return np.stack(list(measures.values()), axis=1)


def _rounded(estimate: Estimate, name: str) -> dict[str, float | None]:
    """Return an estimate as JSON; further digits depend on how the processor rounds."""
    values = {name: estimate.value, "low": estimate.low, "high": estimate.high}
    return {key: None if v is None else round(v, _DIGITS) + 0.0 for key, v in values.items()}
