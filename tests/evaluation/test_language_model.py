from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from pkgllm.errors import ModelError
from pkgllm.evaluation import prompt_reader
from pkgllm.evaluation.language_model import LanguageModelScorer
from pkgllm.evaluation.per_client import PerClientScorer
from pkgllm.evaluation.ranks import best_columns, rank_gold
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.evaluation.trie import CatalogueTrie
from pkgllm.evaluation.trie_search import TIE_NATS
from pkgllm.graph.personal_graph import PersonalGraph

VOCABULARY, TERMINATOR, MAX_POSITIONS = 60, 0, 64


def tiny_model(seed: int = 0, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=MAX_POSITIONS,
        # Large enough that the distributions are far from uniform.
        initializer_range=0.3,
        **changes,
    )
    model = Qwen3ForCausalLM(config)
    model.train(False)
    return model


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model()


def asked(client: str) -> ClientQueries:
    return ClientQueries(client, True, PersonalGraph(client, ()), ("x",))


def trie_of(sequences: Sequence[Sequence[int]], chunk_tokens: int = 512) -> CatalogueTrie:
    names = [f"film {column}" for column in range(len(sequences))]
    return CatalogueTrie(sequences, names=names, chunk_tokens=chunk_tokens)


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


def scorer_of(
    model: PreTrainedModel, prompt: Sequence[int], trie: CatalogueTrie
) -> LanguageModelScorer:
    return LanguageModelScorer(
        "base", model, lambda graph: prompt, trie, max_positions=MAX_POSITIONS
    )


@st.composite
def scoring_cases(draw: st.DrawFn) -> tuple[list[int], list[list[int]], int]:
    # Few first tokens, so that titles share beginnings; then prefixes and copies of some of them.
    token = st.one_of(st.integers(1, 4), st.integers(1, VOCABULARY - 1))
    titles = draw(st.lists(st.lists(token, min_size=1, max_size=7), min_size=1, max_size=12))
    for title in draw(st.lists(st.sampled_from(titles), max_size=4)):
        titles.append(title[: draw(st.integers(1, len(title)))])
    prompt = draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20))
    chunk_tokens = draw(st.integers(1, 40))
    return prompt, [[*title, TERMINATOR] for title in titles], chunk_tokens


@settings(deadline=None, max_examples=40)
@given(scoring_cases())
def test_scores_equal_one_forward_pass_for_each_title(
    model: PreTrainedModel, case: tuple[list[int], list[list[int]], int]
) -> None:
    prompt, sequences, chunk_tokens = case
    scorer = LanguageModelScorer(
        "base",
        model,
        lambda graph: prompt,
        trie_of(sequences, chunk_tokens),
        max_positions=MAX_POSITIONS,
    )
    scores = scorer.scores([asked("p")])[0]
    np.testing.assert_allclose(scores, brute_force(model, prompt, sequences), atol=1e-4)
    for column, sequence in enumerate(sequences):
        assert scores[column] == scores[sequences.index(sequence)]


@pytest.fixture(scope="module")
def models() -> dict[str, PreTrainedModel]:
    """From one that knows nothing to one that is sure of everything, as training makes it."""
    found = {}
    for name, scale in (("flat", 0.0), ("even", 0.3), ("plain", 1.0), ("sharp", 8.0)):
        found[name] = tiny_model(seed=3)
        with torch.no_grad():
            found[name].get_output_embeddings().weight.mul_(scale)  # type: ignore[no-untyped-call]
    return found


@settings(deadline=None, max_examples=60)
@given(st.data(), scoring_cases(), st.sampled_from(["flat", "even", "plain", "sharp"]))
def test_ranks_from_a_part_of_the_trie_equal_those_from_all_scores(
    models: dict[str, PreTrainedModel],
    data: st.DataObject,
    case: tuple[list[int], list[list[int]], int],
    kind: str,
) -> None:
    prompt, sequences, chunk_tokens = case
    mask = data.draw(
        st.lists(st.booleans(), min_size=len(sequences), max_size=len(sequences)).filter(any)
    )
    candidates = np.array(mask)
    columns = st.sampled_from(np.flatnonzero(candidates).tolist())
    gold = np.array(data.draw(st.lists(columns, min_size=1, max_size=4, unique=True)))
    top_k = data.draw(st.integers(1, len(sequences) + 1))
    scores = brute_force(models[kind], prompt, sequences)
    expected = rank_gold(scores, candidates, gold, tolerance=TIE_NATS)
    scorer = scorer_of(models[kind], prompt, trie_of(sequences, chunk_tokens))
    found = scorer.rank(asked("p"), candidates, gold, top_k=top_k)
    assert found.ranks.optimistic.tolist() == expected.optimistic.tolist()
    assert found.ranks.pessimistic.tolist() == expected.pessimistic.tolist()
    best = best_columns(scores, candidates, top_k)
    assert len(set(found.top.tolist())) == len(best)
    assert candidates[found.top].all()
    np.testing.assert_allclose(scores[found.top], scores[best], atol=TIE_NATS)


def likely_titles(model: PreTrainedModel, prompt: Sequence[int]) -> list[list[int]]:
    """Begin with each token in turn and go on with what the model holds most likely."""
    ids = torch.tensor([[*prompt, first] for first in range(VOCABULARY)])
    with torch.inference_mode():
        for _ in range(5):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(dim=-1)], dim=1)
    titles: list[list[int]] = ids[:, len(prompt) :].tolist()
    return titles


def test_the_surer_the_model_the_less_is_fed(models: dict[str, PreTrainedModel]) -> None:
    prompt = [5, 6]
    everything = np.ones(VOCABULARY, dtype=bool)
    share = {}
    for kind, model in models.items():
        trie = trie_of(likely_titles(model, prompt), chunk_tokens=64)
        scorer = scorer_of(model, prompt, trie)
        scores = scorer.scores([asked("p")])[0]
        gold = best_columns(scores, everything, 3)[-1:]
        found = scorer.rank(asked("p"), everything, gold, top_k=3)
        expected = rank_gold(scores, everything, gold, tolerance=TIE_NATS)
        assert found.ranks.realistic.tolist() == expected.realistic.tolist()
        share[kind] = found.num_fed / len(trie.inputs)
    assert share["sharp"] < 0.2
    assert share["sharp"] < share["plain"] < share["even"]
    # Where all titles are equally likely nothing can be left out.
    assert share["flat"] >= 1


def test_a_model_that_has_diverged_is_named() -> None:
    broken = tiny_model(seed=4)
    with torch.no_grad():
        broken.get_output_embeddings().weight[7] = torch.nan  # type: ignore[no-untyped-call]
    scorer = scorer_of(broken, [5, 6], trie_of([[1, TERMINATOR], [2, TERMINATOR]]))
    with pytest.raises(ModelError, match="client 'p', model 'base': log-probabilities of titles"):
        scorer.rank(asked("p"), np.ones(2, dtype=bool), np.array([0]), top_k=1)
    with pytest.raises(ModelError, match=r"must be numbers, got NaN; the model may have diverged"):
        scorer.scores([asked("p")])


def test_a_catalogue_of_all_titles_up_to_a_length_has_at_most_probability_one(
    model: PreTrainedModel,
) -> None:
    # The 1 + 59 titles of one token and two tokens starting with 7 are disjoint events.
    sequences = [[7, TERMINATOR], *([7, second, TERMINATOR] for second in range(1, VOCABULARY))]
    scorer = LanguageModelScorer(
        "base", model, lambda graph: [3, 4], trie_of(sequences), max_positions=MAX_POSITIONS
    )
    total = float(np.exp(scorer.scores([asked("p")])[0]).sum())
    with torch.inference_mode():
        start = model(input_ids=torch.tensor([[3, 4]])).logits[0, -1].softmax(dim=-1)[7].item()
    assert 0 < total <= start + 1e-6


def test_each_client_is_scored_with_its_own_prompt(model: PreTrainedModel) -> None:
    prompts = {"p": [5, 6, 7], "q": [8] * 30}
    sequences = [[1, 2, TERMINATOR], [3, TERMINATOR]]
    scorer = LanguageModelScorer(
        "base",
        model,
        lambda graph: prompts[graph.owner],
        trie_of(sequences),
        max_positions=MAX_POSITIONS,
    )
    scores = scorer.scores([asked("p"), asked("q")])
    expected = [brute_force(model, prompts[client], sequences) for client in ("p", "q")]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert scorer.scores([]).shape == (0, 2)


def test_each_client_is_ranked_with_its_own_model(models: dict[str, PreTrainedModel]) -> None:
    sequences = [[first, second, TERMINATOR] for first in range(1, 6) for second in range(1, 6)]
    trie = trie_of(sequences)
    own = tiny_model(seed=5)

    def select(client: str) -> None:
        own.load_state_dict(models[client].state_dict())

    scorer = PerClientScorer(scorer_of(own, [9, 9], trie), select)
    everything, gold = np.ones(len(sequences), dtype=bool), np.array([3, 8])
    for client in ("sharp", "flat", "plain"):
        alone = scorer_of(models[client], [9, 9], trie)
        expected = alone.rank(asked(client), everything, gold, top_k=4)
        found = scorer.rank(asked(client), everything, gold, top_k=4)
        assert found.ranks.realistic.tolist() == expected.ranks.realistic.tolist()
        assert found.top.tolist() == expected.top.tolist()
        assert found.num_fed == expected.num_fed > 0


def test_a_few_rows_of_logits_at_a_time_change_nothing(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = [[first, second, TERMINATOR] for first in range(1, 9) for second in range(1, 9)]
    scorer = LanguageModelScorer(
        "base", model, lambda graph: [9, 9], trie_of(sequences), max_positions=MAX_POSITIONS
    )
    whole = scorer.scores([asked("p")])
    monkeypatch.setattr(prompt_reader, "_LOGITS_AT_ONCE", 3 * VOCABULARY)
    np.testing.assert_allclose(scorer.scores([asked("p")]), whole, atol=1e-5)


def test_an_adapter_counts_and_the_base_model_lies_under_it() -> None:
    base = tiny_model(seed=1)
    sequences = [[1, 2, TERMINATOR], [1, 3, TERMINATOR], [4, TERMINATOR]]
    untuned = brute_force(base, [5, 6], sequences)
    policy = get_peft_model(
        base,
        LoraConfig(
            r=2,
            target_modules="all-linear",
            init_lora_weights=False,
            # A scorer that stayed in training mode would drop half of the adapter's inputs.
            lora_dropout=0.5,
            task_type="CAUSAL_LM",
        ),
    )
    assert isinstance(policy, PeftModel)
    trie = trie_of(sequences)
    tuned = LanguageModelScorer(
        "tuned", policy, lambda graph: [5, 6], trie, max_positions=MAX_POSITIONS
    )
    under = LanguageModelScorer(
        "base",
        policy,
        lambda graph: [5, 6],
        trie,
        max_positions=MAX_POSITIONS,
        context=policy.disable_adapter,
    )
    policy.train()
    found = tuned.scores([asked("p")])[0]
    assert policy.get_base_model().training
    policy.train(False)
    np.testing.assert_allclose(found, brute_force(policy, [5, 6], sequences), atol=1e-4)
    np.testing.assert_allclose(under.scores([asked("p")])[0], untuned, atol=1e-4)
    assert np.abs(found - untuned).max() > 0.01


@pytest.mark.parametrize("num_tokens", [0, MAX_POSITIONS - 1])
def test_a_prompt_that_leaves_no_room_names_the_client(
    model: PreTrainedModel, num_tokens: int
) -> None:
    # The longest title takes two positions; its terminator is predicted, never fed.
    scorer = LanguageModelScorer(
        "base",
        model,
        lambda graph: [1] * num_tokens,
        trie_of([[1, 2, TERMINATOR], [3, TERMINATOR]]),
        max_positions=MAX_POSITIONS,
    )
    with pytest.raises(
        ModelError, match=rf"client 'p': the prompt must have 1 to 62 tokens.*got {num_tokens};"
    ):
        scorer.scores([asked("p")])


def test_the_longest_prompt_that_fits_is_scored(model: PreTrainedModel) -> None:
    prompt, sequences = [1] * (MAX_POSITIONS - 2), [[1, 2, TERMINATOR], [3, TERMINATOR]]
    scorer = LanguageModelScorer(
        "base", model, lambda graph: prompt, trie_of(sequences), max_positions=MAX_POSITIONS
    )
    expected = brute_force(model, prompt, sequences)
    np.testing.assert_allclose(scorer.scores([asked("p")])[0], expected, atol=1e-4)


def test_a_model_with_sliding_attention_is_refused() -> None:
    sliding = tiny_model(use_sliding_window=True, sliding_window=4, max_window_layers=1)
    with pytest.raises(ModelError, match="model 'base': every layer must have full attention"):
        LanguageModelScorer(
            "base", sliding, lambda graph: [1], trie_of([[1, 0]]), max_positions=MAX_POSITIONS
        )
