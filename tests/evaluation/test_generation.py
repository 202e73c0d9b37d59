from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from pkgllm.errors import ModelError
from pkgllm.evaluation.lists.free_text import Answer
from pkgllm.evaluation.lists.generation import ListDecoder
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.lm.base_model import BaseModel
from pkgllm.prompts.prompts import Prompt

VOCABULARY, TERMINATOR, MAX_POSITIONS = 60, 0, 96


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


def prompt_of(client: str, token_ids: Sequence[int]) -> Prompt:
    return Prompt(client, "", "", tuple(token_ids), frozenset(), 0)


def prompts_of(seed: int, num_prompts: int) -> list[Prompt]:
    """Prompts of 1 to 30 random tokens."""
    generator = np.random.default_rng(seed)
    return [
        prompt_of(f"p{n}", generator.integers(1, VOCABULARY, generator.integers(1, 31)).tolist())
        for n in range(num_prompts)
    ]


def decoder_of(model: PreTrainedModel | PeftModel, batch_size: int = 4) -> ListDecoder:
    return ListDecoder(model, max_positions=MAX_POSITIONS, batch_size=batch_size)


def by_generate(
    model: PreTrainedModel, prompt: Prompt, *, terminator: int, max_new_tokens: int
) -> Answer:
    ids = torch.tensor([prompt.token_ids])
    # transformers leaves this method untyped.
    written = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        eos_token_id=terminator,
        pad_token_id=terminator,
        max_new_tokens=max_new_tokens,
    )[0, ids.shape[1] :].tolist()
    finished = written[-1] == terminator
    return Answer(tuple(written[:-1] if finished else written), finished)


def gpt2() -> PreTrainedModel:
    """A model whose positions are absolute, so that a shift of all of them is heard."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=MAX_POSITIONS,
        initializer_range=0.3,
        bos_token_id=TERMINATOR,
        eos_token_id=TERMINATOR,
    )
    model = GPT2LMHeadModel(config)
    model.train(False)
    return model


@pytest.mark.parametrize("make_model", [tiny_model, gpt2])
def test_greedy_answers_equal_those_of_generate(make_model: Callable[[], PreTrainedModel]) -> None:
    model = make_model()
    prompts = prompts_of(0, 11)
    # A token that the model does write, so that answers end at different lengths.
    free = decoder_of(model).greedy(prompts, terminator=TERMINATOR, max_new_tokens=12)
    written = [token for answer in free for token in answer.token_ids]
    terminator = max(set(written), key=written.count)
    answers = decoder_of(model).greedy(prompts, terminator=terminator, max_new_tokens=20)
    assert len({len(answer.token_ids) for answer in answers}) > 3
    assert {answer.finished for answer in answers} == {True, False}
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = by_generate(model, prompt, terminator=terminator, max_new_tokens=20)
        assert answer == expected


def test_greedy_answers_of_the_base_model_equal_those_of_generate(tiny_base: BaseModel) -> None:
    texts = [
        "The user liked: The Last Harbour (1995).",
        "Hi",
        "The user liked nothing at all. " * 9,
    ]
    prompts = [
        prompt_of(str(n), tiny_base.tokenizer(text)["input_ids"]) for n, text in enumerate(texts)
    ]
    decoder = ListDecoder(tiny_base.model, max_positions=tiny_base.max_positions)
    answers = decoder.greedy(prompts, terminator=tiny_base.terminator_id, max_new_tokens=24)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer == by_generate(
            tiny_base.model, prompt, terminator=tiny_base.terminator_id, max_new_tokens=24
        )


@pytest.fixture(scope="module")
def catalogue() -> list[list[int]]:
    generator = np.random.default_rng(5)
    titles = [generator.integers(1, 6, generator.integers(1, 5)).tolist() for _ in range(25)]
    # Longer than another one that it begins with, and a twin.
    titles += [[*titles[0], 9], titles[1]]
    return [[*title, TERMINATOR] for title in titles]


def trie_of(sequences: Sequence[Sequence[int]]) -> CatalogueTrie:
    return CatalogueTrie(sequences, names=[f"film {n}" for n in range(len(sequences))])


def masks_of(seed: int, num_prompts: int, num_columns: int) -> list[NDArray[np.bool_]]:
    generator = np.random.default_rng(seed)
    masks = [generator.random(num_columns) < 0.6 for _ in range(num_prompts)]
    for mask in masks:
        mask[generator.integers(num_columns)] = True
    return masks


Written = Callable[[ListDecoder, Sequence[int]], Sequence[object]]


@pytest.fixture(params=["greedy", "sampled", "constrained"])
def write(request: pytest.FixtureRequest, catalogue: list[list[int]]) -> Written:
    """Answer some of nine prompts in one of the three ways."""
    prompts, masks = prompts_of(1, 9), masks_of(1, 9, len(catalogue))

    def answers(decoder: ListDecoder, places: Sequence[int]) -> Sequence[object]:
        chosen = [prompts[place] for place in places]
        if request.param == "greedy":
            return decoder.greedy(chosen, terminator=3, max_new_tokens=15)
        if request.param == "sampled":
            return decoder.sampled(chosen, terminator=3, max_new_tokens=15, seed=2)
        candidates = [masks[place] for place in places]
        return decoder.constrained(chosen, trie_of(catalogue), candidates, k=6, separator=[7, 8])

    return answers


@pytest.mark.slow
def test_company_changes_no_answer(model: PreTrainedModel, write: Written) -> None:
    everyone = list(range(9))
    alone = [write(decoder_of(model, 1), [place])[0] for place in everyone]
    assert len({str(answer) for answer in alone}) > 5
    for batch_size in (2, 4, 9, 20):
        assert list(write(decoder_of(model, batch_size), everyone)) == alone
    assert list(write(decoder_of(model), [7, 2, 5])) == [alone[7], alone[2], alone[5]]
    assert list(write(decoder_of(model), [])) == []


def test_the_model_decodes_in_evaluation_mode_and_is_left_as_it_was(write: Written) -> None:
    model = tiny_model(attention_dropout=0.9)
    expected = list(write(decoder_of(model), range(9)))
    model.train(True)
    assert list(write(decoder_of(model), range(9))) == expected
    assert model.training


@pytest.mark.slow
def test_an_adapter_is_heard_until_it_is_disabled(write: Written) -> None:
    expected = list(write(decoder_of(tiny_model()), range(9)))
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    policy = get_peft_model(tiny_model(), config)
    assert isinstance(policy, PeftModel)
    tuned = list(write(decoder_of(policy), range(9)))
    assert tuned != expected
    off = ListDecoder(policy, max_positions=MAX_POSITIONS, with_adapter=False)
    assert list(write(off, range(9))) == expected
    merged = policy.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    assert list(write(decoder_of(merged), range(9))) == tuned


def brute_force_list(
    model: PreTrainedModel,
    prompt: Sequence[int],
    sequences: Sequence[Sequence[int]],
    candidates: NDArray[np.bool_],
    *,
    k: int,
    separator: Sequence[int],
) -> tuple[int, ...]:
    """Forward the whole text for every token, and look at every open title."""
    text, columns = list(prompt), list[int]()
    allowed: list[int] = np.flatnonzero(candidates).tolist()
    left = {tuple(sequences[column]) for column in allowed}
    while left and len(columns) < k:
        title: list[int] = []
        while title[-1:] != [TERMINATOR]:
            with torch.inference_mode():
                logits = model(torch.tensor([[*text, *title]]), use_cache=False).logits[0, -1]
            following = [t[len(title)] for t in left if list(t[: len(title)]) == title]
            title.append(max(sorted(set(following)), key=lambda token: float(logits[token])))
        left.remove(tuple(title))
        columns.append(next(column for column in allowed if list(sequences[column]) == title))
        text += [*title[:-1], *separator]
    return tuple(columns)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), k=st.integers(1, 8), separator=st.sampled_from([[7], [7, 8, 9]]))
def test_constrained_lists_equal_those_of_one_forward_pass_for_each_token(
    model: PreTrainedModel, catalogue: list[list[int]], seed: int, k: int, separator: list[int]
) -> None:
    prompts, masks = prompts_of(seed, 3), masks_of(seed, 3, len(catalogue))
    found = decoder_of(model, 3).constrained(
        prompts, trie_of(catalogue), masks, k=k, separator=separator
    )
    for prompt, mask, columns in zip(prompts, masks, found, strict=True):
        assert columns == brute_force_list(
            model, prompt.token_ids, catalogue, mask, k=k, separator=separator
        )


def test_a_constrained_list_ends_when_nothing_is_left(model: PreTrainedModel) -> None:
    trie = trie_of([[4, 0], [4, 5, 0], [4, 5, 0], [6, 0]])
    prompts = prompts_of(3, 2)
    full, short = decoder_of(model).constrained(
        prompts,
        trie,
        [np.ones(4, dtype=bool), np.array([False, False, True, False])],
        k=6,
        separator=[7],
    )
    # The twins are one title, and the first of them stands for both.
    assert sorted(full) == [0, 1, 3]
    assert short == (2,)


def test_samples_depend_on_seed_and_client_and_temperature(model: PreTrainedModel) -> None:
    same = prompts_of(4, 1)[0].token_ids
    prompts = [prompt_of(client, same) for client in ("anna", "bert")]

    def sample(prompts: Sequence[Prompt], **changes: float) -> tuple[Answer, ...]:
        settings: dict[str, Any] = {"seed": 0, "temperature": 1.0, **changes}
        return decoder_of(model).sampled(
            prompts, terminator=TERMINATOR, max_new_tokens=12, **settings
        )

    anna, bert = sample(prompts)
    assert anna != bert
    assert sample(prompts) == (anna, bert)
    assert sample(prompts[::-1]) == (bert, anna)
    assert sample(prompts, seed=1)[0] != anna
    # Near 0 only the most probable token is left.
    greedy = decoder_of(model).greedy(prompts, terminator=TERMINATOR, max_new_tokens=12)
    assert anna != greedy[0]
    assert sample(prompts, temperature=1e-4) == greedy


def test_a_prompt_without_room_names_its_client(
    model: PreTrainedModel, catalogue: list[list[int]]
) -> None:
    decoder, fits = decoder_of(model), prompt_of("short", [1] * (MAX_POSITIONS - 10))
    decoder.greedy([fits], terminator=TERMINATOR, max_new_tokens=10)
    for prompt in (prompt_of("long", [1] * (MAX_POSITIONS - 9)), prompt_of("long", [])):
        with pytest.raises(ModelError) as caught:
            decoder.greedy([fits, prompt], terminator=TERMINATOR, max_new_tokens=10)
        assert str(caught.value) == (
            "client 'long': the prompt must have 1 to 86 tokens, so that the longest answer (10 "
            f"tokens) fits into the model's 96 positions; got {len(prompt.token_ids)}; lower "
            "prompt.max_tokens or ask for shorter lists"
        )
    trie = trie_of(catalogue)
    needed = 5 * trie.longest_input + 4 * 2
    mask = np.ones(len(catalogue), dtype=bool)
    for length, refused in ((MAX_POSITIONS - needed, False), (MAX_POSITIONS - needed + 1, True)):
        prompt = prompt_of("client", [1] * length)
        if refused:
            with pytest.raises(ModelError, match="client 'client': the prompt must have"):
                decoder.constrained([prompt], trie, [mask], k=5, separator=[7, 8])
        else:
            decoder.constrained([prompt], trie, [mask], k=5, separator=[7, 8])


def test_a_model_that_gives_no_numbers_is_refused(write: Written) -> None:
    broken = tiny_model()
    with torch.no_grad():
        # transformers leaves this method untyped.
        broken.get_output_embeddings().weight[9] = torch.nan  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match="client 'p4': the logits of a list must be finite"):
        write(decoder_of(broken), [4])


def test_wrong_arguments_are_refused(model: PreTrainedModel, catalogue: list[list[int]]) -> None:
    decoder, prompts, trie = decoder_of(model), prompts_of(0, 1), trie_of(catalogue)
    mask = np.ones(len(catalogue), dtype=bool)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        decoder_of(model, 0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        decoder.greedy(prompts, terminator=0, max_new_tokens=0)
    for temperature in (0.0, float("nan")):
        with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
            decoder.sampled(
                prompts, terminator=0, max_new_tokens=5, seed=0, temperature=temperature
            )
    for k, separator in ((0, [7]), (3, [])):
        with pytest.raises(ValueError, match="k must be at least 1 and the separator"):
            decoder.constrained(prompts, trie, [mask], k=k, separator=separator)
    with pytest.raises(ValueError, match="every prompt needs its candidates, got 1 and 2"):
        decoder.constrained(prompts, trie, [mask, mask], k=3, separator=[7])
    for wrong in (mask[1:], ~mask):
        with pytest.raises(ValueError, match=r"candidates must have shape \(27,\)"):
            decoder.constrained(prompts, trie, [wrong], k=3, separator=[7])
