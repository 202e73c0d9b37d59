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
from pkgllm.evaluation.ranks import rank_gold
from pkgllm.evaluation.scorer import ClientQueries, RankedClient
from pkgllm.evaluation.significance import holm, permutation_p_values
from pkgllm.evaluation.statistics import Estimate, bootstrap_ratios
from pkgllm.graph.adaptation import STRATEGIES, Strategy
from pkgllm.pipeline.assistant.pie_cases import PieCase, PiePerson
from pkgllm.progress import Progress
from pkgllm.prompts.audit import audit_prompt
from pkgllm.randomness import stream

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

Measured = Mapping[Strategy, NDArray[np.float64]]
"""By strategy, shape ``(people, measures)``."""


def measure_case(
    case: PieCase, *, seed: int, resamples: int, permutations: int, progress: Progress
) -> dict[str, Any]:
    """Recommend to everybody of a case under every strategy, and compare.

    Args:
        case: Who is asked what.
        seed: Of the resamples.
        resamples: Of the bootstrap.
        permutations: Of the tests.
        progress: Is told how far the work is.

    Returns:
        Values of JSON: for each strategy every measure with its interval, and for each two
        strategies every difference with its interval and its p-value.

    Raises:
        LeakError: If a prompt holds what is asked for.
        PkgllmError: If the model gives no usable probability.
    """
    steps = len(STRATEGIES)
    with progress.track(f"recommending, {case.name}", steps) as advance:
        measured = {}
        for strategy in STRATEGIES:
            measured[strategy] = _under(case, strategy)
            advance()
    has_target = np.array([bool(person.held_out) for person in case.people])
    return {
        "people": len(case.people),
        "asked": case.num_asked,
        "with_held_out": int(has_target.sum()),
        "catalogue": len(case.recommender.catalogue),
        "request": case.constraints.words,
        "allowed": int(case.constraints.allowed(case.recommender.scopes).sum()),
        **compare(measured, has_target, seed=seed, resamples=resamples, permutations=permutations),
    }


def compare(
    measured: Measured,
    has_target: NDArray[np.bool_],
    *,
    seed: int,
    resamples: int,
    permutations: int,
) -> dict[str, Any]:
    """Estimate every measure and every paired difference, clients resampled and exchanged whole.

    Args:
        measured: What was measured of each person.
        has_target: Who likes something outside later, shape ``(people,)``.
        seed: Of resamples and permutations.
        resamples: Of the bootstrap.
        permutations: Of the tests; p-values are corrected over all of them together.
    """
    counts = np.stack(
        [has_target if name in _OF_HELD_OUT else np.ones_like(has_target) for name in MEASURES],
        axis=1,
    ).astype(np.float64)
    size = len(MEASURES)
    values = np.concatenate([measured[strategy] for strategy in STRATEGIES], axis=1)
    ratios = bootstrap_ratios(
        values,
        np.tile(counts, (1, len(STRATEGIES))),
        resamples=resamples,
        generator=stream(seed, "pie", "bootstrap"),
    )
    pairs = list(combinations(range(len(STRATEGIES)), 2))
    differences = np.concatenate(
        [measured[STRATEGIES[b]] - measured[STRATEGIES[a]] for a, b in pairs], axis=1
    )
    p_values = permutation_p_values(
        differences, resamples=permutations, generator=stream(seed, "pie", "permutations")
    )
    corrected = holm(p_values)
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


def _under(case: PieCase, strategy: Strategy) -> NDArray[np.float64]:
    """Return every measure of every person under one strategy, shape ``(people, measures)``."""
    recommender = case.recommender
    catalogue = recommender.catalogue
    prompts: dict[str, Sequence[int]] = {}
    for person in case.people:
        steered = steer(person.graph, "", [person.rule], strategy, recommender.scopes)
        prompt = recommender.prompt(steered.adapted.graph, steered.request, case.constraints)
        audit_prompt(prompt, person.held_out, catalogue, place=f"prompt with strategy {strategy}")
        prompts[person.graph.owner] = prompt.token_ids
    queries = [
        ClientQueries(person.graph.owner, False, person.graph, person.held_out)
        for person in case.people
    ]
    candidates = np.stack(
        [recommender.candidates(person.graph, NO_CONSTRAINTS) for person in case.people]
    )
    gold = [
        np.array([catalogue.index_by_id[item] for item in person.held_out], dtype=np.int64)
        for person in case.people
    ]
    scorer = recommender.scorer(lambda graph: prompts[graph.owner])
    ranked = [_sound(found) for found in scorer.rank(queries, candidates, gold, top_k=K)]
    return list_measures(case, ranked, candidates, gold)


def _sound(found: RankedClient | PkgllmError) -> RankedClient:
    if isinstance(found, PkgllmError):
        raise found
    return found


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

    Args:
        case: Who was asked what.
        ranked: Ranks of the held-out likes and the best candidates of each person.
        candidates: What competed, shape ``(people, len(catalogue))``.
        gold: Columns of each person's held-out likes.

    Returns:
        Shape ``(people, measures)``, in the order of :data:`MEASURES`.
    """
    catalogue, scopes = case.recommender.catalogue, case.recommender.scopes
    allowed = case.constraints.allowed(scopes)
    listed = Lists(
        np.concatenate([found.top for found in ranked]),
        np.array([len(found.top) for found in ranked], dtype=np.int64),
    )
    diversity = intra_list_diversity(listed, genre_vectors(catalogue, case.alike))
    measured = np.zeros((len(case.people), len(MEASURES)))
    for row, person, found, mask, columns in zip(
        measured, case.people, ranked, candidates, gold, strict=True
    ):
        inside = _inside(case, person)
        valid, num_listed = allowed[found.top], max(len(found.top), 1)
        row[MEASURES.index("invalid")] = (~valid).sum() / num_listed
        row[MEASURES.index("in_pie")] = (valid & inside[found.top]).sum() / num_listed
        row[MEASURES.index("out_pie")] = (valid & ~inside[found.top]).sum() / num_listed
        if len(columns):
            hits = np.isin(columns, found.top).sum()
            popular = rank_gold(case.likes, mask, columns).realistic
            gains = (popular - found.ranks.realistic) / mask.sum()
            row[MEASURES.index("precision")] = hits / K
            row[MEASURES.index("recall")] = hits / len(columns)
            row[MEASURES.index("rank_gain")] = gains.mean()
    if diversity is not None:
        measured[:, MEASURES.index("diversity")] = diversity
    measured[:, MEASURES.index("novelty")] = listed.means(self_information(case.likes))
    return measured


def _inside(case: PieCase, person: PiePerson) -> NDArray[np.bool_]:
    items = case.recommender.scopes.items(person.rule.scope, person.rule.value)
    return np.array([item.id in items for item in case.recommender.catalogue])


def _rounded(found: Estimate, name: str) -> dict[str, float | None]:
    """Return an estimate as JSON; digits beyond these say how the machine rounds."""
    values = {name: found.value, "low": found.low, "high": found.high}
    return {key: None if v is None else round(v, _DIGITS) + 0.0 for key, v in values.items()}
