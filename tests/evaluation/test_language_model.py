from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from helpers.tiny_decoders import MAX_POSITIONS, VOCABULARY, tiny_decoder, with_random_adapter
from helpers.tiny_ranking import (
    TERMINATOR,
    asked,
    everyone,
    least_budget,
    scorer_of,
    sound,
    trie_of,
)
from pkgllm.errors import ModelError
from pkgllm.evaluation.per_client import PerClientScorer
from pkgllm.evaluation.ranking.trie_search import TIE_NATS
from pkgllm.evaluation.ranks import best_columns, rank_gold
from pkgllm.lm.decoder import KNOWN_MODELS

KINDS = ("flat", "even", "plain", "sharp")
GRID = [[first, second, TERMINATOR] for first in range(1, 6) for second in range(1, 6)]


def brute_force(
    model: PreTrainedModel | PeftModel, prompt: Sequence[int], sequences: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Forward each prompt and title by itself, without a cache."""
    found = []
    for sequence in sequences:
        ids = torch.tensor([[*prompt, *sequence]])
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
        before = torch.arange(len(sequence)) + len(prompt) - 1
        found.append(
            logits.log_softmax(dim=-1)[before, torch.tensor(sequence)].double().sum().item()
        )
    return np.array(found)


@st.composite
def catalogues(draw: st.DrawFn) -> list[list[int]]:
    # Few first tokens, so that titles share beginnings; then prefixes and copies of some of them.
    token = st.one_of(st.integers(1, 4), st.integers(1, VOCABULARY - 1))
    titles = draw(st.lists(st.lists(token, min_size=1, max_size=7), min_size=1, max_size=12))
    for title in draw(st.lists(st.sampled_from(titles), max_size=4)):
        titles.append(title[: draw(st.integers(1, len(title)))])
    return [[*title, TERMINATOR] for title in titles]


@st.composite
def prompts_of(draw: st.DrawFn, *, max_size: int) -> dict[str, list[int]]:
    prompt = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20)
    found = draw(st.lists(prompt, min_size=1, max_size=max_size))
    # Some lack a token of another one, as where a fact is left out.
    for place in range(1, len(found)):
        if draw(st.booleans()):
            at = draw(st.integers(0, len(found[0]) - 1))
            found[place] = found[0][:at] + found[0][at + 1 :] or [1]
    return {f"p{place}": ids for place, ids in enumerate(found)}


@pytest.fixture(scope="module")
def models() -> dict[str, PreTrainedModel]:
    """From one that knows nothing to one that is sure of everything, as training makes it."""
    found = {}
    for name, scale in zip(KINDS, (0.0, 0.3, 1.0, 8.0), strict=True):
        found[name] = tiny_decoder(seed=3)
        with torch.no_grad():
            found[name].get_output_embeddings().weight.mul_(scale)  # type: ignore[no-untyped-call]
    return found


@pytest.fixture(scope="module")
def model(models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    return models["plain"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KNOWN_MODELS)
@settings(deadline=None, max_examples=15)
@given(catalogues(), prompts_of(max_size=3), st.sampled_from([1, 2, 16, 2**14]))
def test_scores_equal_one_forward_pass_for_each_title(
    kind: str, sequences: list[list[int]], prompts: dict[str, list[int]], times: int
) -> None:
    model, trie = tiny_decoder(kind), trie_of(sequences)
    scorer = scorer_of(model, prompts, trie, memory_budget=times * least_budget(model, trie))
    for prompt, scores in zip(prompts.values(), scorer.scores(everyone(prompts)), strict=True):
        np.testing.assert_allclose(scores, brute_force(model, prompt, sequences), atol=1e-4)
        for column, sequence in enumerate(sequences):
            assert scores[column] == scores[sequences.index(sequence)]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.data(), catalogues(), prompts_of(max_size=4), st.sampled_from(KINDS))
def test_ranks_from_a_part_of_the_trie_equal_those_from_all_scores(
    models: dict[str, PreTrainedModel],
    data: st.DataObject,
    sequences: list[list[int]],
    prompts: dict[str, list[int]],
    kind: str,
) -> None:
    size, trie = len(sequences), trie_of(sequences)
    mask = st.lists(st.booleans(), min_size=size, max_size=size).filter(any)
    candidates = np.array([data.draw(mask) for _ in prompts])
    gold = []
    for row in candidates:
        columns = st.sampled_from(np.flatnonzero(row).tolist())
        gold.append(np.array(data.draw(st.lists(columns, min_size=1, max_size=4, unique=True))))
    top_k = data.draw(st.integers(1, size + 1))
    budget = data.draw(st.sampled_from([1, 2, 16, 2**14])) * least_budget(models[kind], trie)
    scorer = scorer_of(models[kind], prompts, trie, memory_budget=budget)
    answers = scorer.rank(everyone(prompts), candidates, gold, top_k=top_k)
    for row, (prompt, answer) in enumerate(zip(prompts.values(), answers, strict=True)):
        found = sound(answer)
        scores = brute_force(models[kind], prompt, sequences)
        expected = rank_gold(scores, candidates[row], gold[row], tolerance=TIE_NATS)
        assert found.ranks.optimistic.tolist() == expected.optimistic.tolist()
        assert found.ranks.pessimistic.tolist() == expected.pessimistic.tolist()
        best = best_columns(scores, candidates[row], top_k)
        assert len(set(found.top.tolist())) == len(best)
        assert candidates[row, found.top].all()
        np.testing.assert_allclose(scores[found.top], scores[best], atol=TIE_NATS)


def likely_titles(model: PreTrainedModel, prompt: Sequence[int]) -> list[list[int]]:
    """Begin with each token in turn and go on with what the model holds most likely."""
    ids = torch.tensor([[*prompt, first] for first in range(VOCABULARY)])
    with torch.inference_mode():
        for _ in range(5):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(dim=-1)], dim=1)
    titles: list[list[int]] = ids[:, len(prompt) :].tolist()
    return titles


@pytest.mark.slow
def test_the_surer_the_model_the_less_is_fed(models: dict[str, PreTrainedModel]) -> None:
    prompt = [5, 6]
    everything = np.ones(VOCABULARY, dtype=bool)
    share = {}
    for kind, model in models.items():
        trie = trie_of(likely_titles(model, prompt))
        # With much memory all that is left would go through in one pass, needed or not.
        budget = 4 * least_budget(model, trie)
        scorer = scorer_of(model, {"p": prompt}, trie, memory_budget=budget)
        scores = scorer.scores([asked("p")])[0]
        gold = best_columns(scores, everything, 3)[-1:]
        found = sound(scorer.rank([asked("p")], everything[None], [gold], top_k=3)[0])
        expected = rank_gold(scores, everything, gold, tolerance=TIE_NATS)
        assert found.ranks.realistic.tolist() == expected.realistic.tolist()
        share[kind] = found.num_fed / len(trie.inputs)
    assert share["sharp"] < 0.3
    assert share["sharp"] < share["plain"] < share["even"]
    # Where all titles are equally likely nothing can be left out.
    assert share["flat"] >= 1


def test_titles_that_only_rounding_tells_apart_tie() -> None:
    model = tiny_decoder(seed=3)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2e-6)  # type: ignore[no-untyped-call]
    scorer = scorer_of(model, {"p": [5, 6]}, trie_of(GRID))
    scores = scorer.scores([asked("p")])[0]
    assert 0 < np.ptp(scores) < TIE_NATS / 2
    everything, gold = np.ones((1, len(GRID)), dtype=bool), [np.array([scores.argmax()])]
    (found,) = scorer.rank([asked("p")], everything, gold, top_k=1)
    assert sound(found).ranks.optimistic.tolist() == [1]
    assert sound(found).ranks.pessimistic.tolist() == [len(GRID)]


def test_a_model_that_has_diverged_is_named() -> None:
    broken = tiny_decoder(seed=4)
    with torch.no_grad():
        broken.get_output_embeddings().weight[7] = torch.nan  # type: ignore[no-untyped-call]
    scorer = scorer_of(broken, {"p": [5, 6]}, trie_of([[1, TERMINATOR], [2, TERMINATOR]]))
    (found,) = scorer.rank([asked("p")], np.ones((1, 2), dtype=bool), [np.array([0])], top_k=1)
    assert isinstance(found, ModelError)
    assert str(found) == (
        "client 'p', model 'base': log-probabilities of titles must be numbers, got NaN; the model "
        "may have diverged, or its dtype may be too narrow for it"
    )
    with pytest.raises(ModelError, match="client 'p', model 'base': log-probabilities of titles"):
        scorer.scores([asked("p")])


@pytest.mark.parametrize("where", ["prompt", "title"])
def test_a_client_whose_scores_are_no_numbers_fails_alone(where: str) -> None:
    broken: Any = tiny_decoder(seed=4)
    with torch.no_grad():
        broken.get_input_embeddings().weight[40] = torch.nan
    sequences = [[40, 3, TERMINATOR], *GRID]
    # The first client's nodes come first, so that others' slots lie beside what is no number.
    prompts = {"q": [40 if where == "prompt" else 4, 6, 7], "p": [5, 6], "r": [5] * 9}
    candidates = np.ones((3, len(sequences)), dtype=bool)
    # Only q is asked for the title that goes through token 40.
    candidates[1:, 0] = False
    gold = [np.array([0 if where == "title" else 3]), np.array([5, 9]), np.array([1])]
    scorer = scorer_of(broken, prompts, trie_of(sequences))
    failed, *others = scorer.rank(everyone(prompts), candidates, gold, top_k=5)
    assert isinstance(failed, ModelError)
    assert str(failed).startswith("client 'q', model 'base'")
    for place, (client, answer) in enumerate(zip("pr", others, strict=True), 1):
        exact = brute_force(broken, prompts[client], sequences)
        found = sound(answer)
        expected = rank_gold(exact, candidates[place], gold[place], tolerance=TIE_NATS)
        assert found.ranks.realistic.tolist() == expected.realistic.tolist()
        assert found.top.tolist() == best_columns(exact, candidates[place], 5).tolist()


def test_a_catalogue_of_all_titles_up_to_a_length_has_at_most_probability_one(
    model: PreTrainedModel,
) -> None:
    # The 1 + 59 titles of one token and two tokens starting with 7 are disjoint events.
    sequences = [[7, TERMINATOR], *([7, second, TERMINATOR] for second in range(1, VOCABULARY))]
    scorer = scorer_of(model, {"p": [3, 4]}, trie_of(sequences))
    total = float(np.exp(scorer.scores([asked("p")])[0]).sum())
    with torch.inference_mode():
        start = model(input_ids=torch.tensor([[3, 4]])).logits[0, -1].softmax(dim=-1)[7].item()
    assert 0 < total <= start + 1e-6


def test_no_client_gives_no_rows(model: PreTrainedModel) -> None:
    scorer = scorer_of(model, {}, trie_of([[1, 2, TERMINATOR], [3, TERMINATOR]]))
    assert scorer.scores([]).shape == (0, 2)
    assert scorer.rank([], np.ones((0, 2), dtype=bool), [], top_k=1) == []


def test_each_client_is_ranked_with_its_own_model(models: dict[str, PreTrainedModel]) -> None:
    trie = trie_of(GRID)
    own = tiny_decoder(seed=5)
    clients = ["sharp", "flat", "plain"]
    prompts = {client: [9, 9] for client in clients}

    def select(client: str) -> None:
        own.load_state_dict(models[client].state_dict())

    candidates, gold = np.ones((3, len(GRID)), dtype=bool), [np.array([3, 8])] * 3
    scorer = PerClientScorer(scorer_of(own, prompts, trie), select)
    together = scorer.rank(everyone(prompts), candidates, gold, top_k=4)
    for client, answer in zip(clients, together, strict=True):
        alone = scorer_of(models[client], prompts, trie)
        expected = sound(alone.rank([asked(client)], candidates[:1], gold[:1], top_k=4)[0])
        found = sound(answer)
        assert found.ranks.realistic.tolist() == expected.ranks.realistic.tolist()
        assert found.top.tolist() == expected.top.tolist()
        assert found.num_fed == expected.num_fed > 0


def test_an_adapter_counts_and_the_base_model_lies_under_it() -> None:
    base = tiny_decoder(seed=1)
    sequences = [[1, 2, TERMINATOR], [1, 3, TERMINATOR], [4, TERMINATOR]]
    untuned = brute_force(base, [5, 6], sequences)
    # A scorer that minded the training mode would drop half of the adapter's inputs.
    policy = with_random_adapter(base, lora_dropout=0.5)
    tuned = brute_force(policy, [5, 6], sequences)
    trie = trie_of(sequences)
    on, off = (scorer_of(policy, {"p": [5, 6]}, trie, with_adapter=it) for it in (True, False))
    policy.train()
    for _ in range(2):
        np.testing.assert_allclose(on.scores([asked("p")])[0], tuned, atol=1e-4)
        np.testing.assert_allclose(off.scores([asked("p")])[0], untuned, atol=1e-4)
    assert policy.get_base_model().training
    assert np.abs(tuned - untuned).max() > 0.01


def test_a_model_that_changes_between_two_calls_is_ranked_as_it_is_now() -> None:
    policy = with_random_adapter(tiny_decoder(seed=1))
    scorer = scorer_of(policy, {"p": [5, 6]}, trie_of(GRID))
    everything, gold = np.ones((1, len(GRID)), dtype=bool), [np.array([3])]
    before = scorer.scores([asked("p")])[0]
    sound(scorer.rank([asked("p")], everything, gold, top_k=5)[0])
    for changed in ("lora_B", "k_proj.base_layer", "embed_tokens"):
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if changed in name:
                    parameter.mul_(1.7)
        now = brute_force(policy, [5, 6], GRID)
        assert np.abs(now - before).max() > 0.01
        (found,) = scorer.rank([asked("p")], everything, gold, top_k=5)
        assert sound(found).top.tolist() == best_columns(now, everything[0], 5).tolist()
        before = scorer.scores([asked("p")])[0]
        np.testing.assert_allclose(before, now, atol=1e-4)


@pytest.mark.parametrize("num_tokens", [0, MAX_POSITIONS - 1])
def test_a_prompt_that_leaves_no_room_names_the_client_and_stops_no_other(
    model: PreTrainedModel, num_tokens: int
) -> None:
    # The longest title takes two positions; its terminator is predicted, never fed.
    sequences = [[1, 2, TERMINATOR], [3, TERMINATOR]]
    prompts = {"p": [5, 6], "q": [1] * num_tokens, "r": [7]}
    scorer = scorer_of(model, prompts, trie_of(sequences))
    message = rf"client 'q': the prompt must have 1 to 62 tokens.*got {num_tokens};"
    with pytest.raises(ModelError, match=message):
        scorer.scores(everyone(prompts))
    everything, gold = np.ones((3, 2), dtype=bool), [np.array([0]), np.array([1]), np.array([0])]
    first, failed, last = scorer.rank(everyone(prompts), everything, gold, top_k=2)
    assert isinstance(failed, ModelError)
    with pytest.raises(ModelError, match=message):
        raise failed
    for client, answer, column in (("p", first, 0), ("r", last, 0)):
        exact = brute_force(model, prompts[client], sequences)
        rank = 1 + int(exact[1 - column] > exact[column])
        assert sound(answer).ranks.realistic.tolist() == [rank]
    # Where nobody's prompt fits nothing is ranked, and nothing breaks.
    (alone,) = scorer.rank([asked("q")], everything[:1], gold[:1], top_k=2)
    assert isinstance(alone, ModelError)


def test_the_longest_prompt_that_fits_is_scored(model: PreTrainedModel) -> None:
    prompt, sequences = [1] * (MAX_POSITIONS - 2), [[1, 2, TERMINATOR], [3, TERMINATOR]]
    scorer = scorer_of(model, {"p": prompt}, trie_of(sequences))
    expected = brute_force(model, prompt, sequences)
    np.testing.assert_allclose(scorer.scores([asked("p")])[0], expected, atol=1e-4)


def test_models_that_cannot_be_ranked_are_refused_before_anything_is_asked() -> None:
    sliding = tiny_decoder(use_sliding_window=True, sliding_window=4, max_window_layers=1)
    with pytest.raises(ModelError, match="must have full attention in every layer"):
        scorer_of(sliding, {}, trie_of([[1, TERMINATOR]]))
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    with pytest.raises(ModelError, match="got gpt2; choose another base model"):
        scorer_of(gpt2, {}, trie_of([[1, TERMINATOR]]))
