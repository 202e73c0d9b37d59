from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel

from helpers.tiny_decoders import tiny_decoder, with_random_adapter
from pkgllm.evaluation.ranking.adjusted_scores import MeanScorer, PmiScorer, RatioScorer
from pkgllm.evaluation.ranking.language_model import LanguageModelScorer
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.evaluation.scorer import ClientQueries, rank_queries
from pkgllm.graph.personal_graph import PersonalGraph

TITLES = [[3, 4, 0], [3, 0], [3, 4, 5, 6, 0], [7, 0], [8, 9, 0]]
PROMPTS = {"p": [5, 6, 7], "q": [8, 9, 10, 11], "nobody": [12]}


@pytest.fixture(scope="module")
def policy() -> PeftModel:
    return with_random_adapter(tiny_decoder())


def scorer_of(policy: PeftModel, *, with_adapter: bool = True) -> LanguageModelScorer:
    trie = CatalogueTrie(TITLES, names=[f"film {column}" for column in range(len(TITLES))])
    return LanguageModelScorer(
        "tuned" if with_adapter else "base",
        policy,
        lambda graph: PROMPTS[graph.owner],
        trie,
        max_positions=64,
        with_adapter=with_adapter,
    )


def asked(client: str) -> ClientQueries:
    return ClientQueries(client, True, PersonalGraph(client, ()), ("x",))


def log_probs(model: PeftModel, prompt: Sequence[int]) -> NDArray[np.float64]:
    """One forward pass of the model itself for each title."""
    found = []
    for title in TITLES:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt, *title]])).logits[0].double()
        each = logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]
        found.append(float(each[torch.arange(len(title)), torch.tensor(title)].sum()))
    return np.array(found)


def test_the_mean_is_per_token_with_the_terminator(policy: PeftModel) -> None:
    scorer = MeanScorer(scorer_of(policy), np.array([3, 2, 5, 2, 3]))
    expected = [log_probs(policy, PROMPTS[c]) / [len(t) for t in TITLES] for c in ("p", "q")]
    np.testing.assert_allclose(scorer.scores([asked("p"), asked("q")]), expected, atol=1e-5)


def test_pmi_takes_out_what_is_expected_of_nobody(policy: PeftModel) -> None:
    expected = [log_probs(policy, PROMPTS[c]) - log_probs(policy, [12]) for c in ("p", "q")]
    found = PmiScorer(scorer_of(policy)).scores([asked("p"), asked("q")])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(PmiScorer(scorer_of(policy)).scores([asked("nobody")]), 0, atol=1e-5)


def test_the_ratio_is_what_the_adapter_adds(policy: PeftModel) -> None:
    scorer = RatioScorer(scorer_of(policy), scorer_of(policy, with_adapter=False))
    tuned = log_probs(policy, PROMPTS["q"])
    with policy.disable_adapter():
        untuned = log_probs(policy, PROMPTS["q"])
    np.testing.assert_allclose(scorer.scores([asked("q")])[0], tuned - untuned, atol=1e-5)
    assert np.abs(tuned - untuned).max() > 0.01


def test_they_are_ranked_by_all_their_scores(policy: PeftModel) -> None:
    everything, gold = np.ones((1, len(TITLES)), dtype=bool), [np.array([2])]
    plain = scorer_of(policy)
    ranks = {}
    for name, scorer in (("sum", plain), ("mean", MeanScorer(plain, np.array([3, 2, 5, 2, 3])))):
        (found,) = rank_queries(scorer, [asked("p")], everything, gold, top_k=2)
        assert not isinstance(found, Exception)
        scores = scorer.scores([asked("p")])[0]
        ranks[name] = found.ranks.realistic.tolist()
        assert ranks[name] == [1 + (scores > scores[2]).sum()]
    # Division cannot make the longest title fall.
    assert ranks["mean"] <= ranks["sum"]
