import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import RELATIONS, Fact, Moment, PersonalGraph, Provenance
from pkgllm.prompts.prompts import PromptWriter, by_priority
from pkgllm.prompts.settings import PromptForm

FORMS: tuple[PromptForm, ...] = ("triples", "jsonld", "prose")
SAID = Provenance("own_answer", "conversation/1")
PROSE = {
    "liked": "The user liked",
    "disliked": "The user disliked",
    "seen": "The user has seen",
    "unseen": "The user has not seen",
    "suggested": "The user was told about",
}

word = st.text(st.characters(categories=("Lu", "Ll"), max_codepoint=0x17F), min_size=1, max_size=9)
# Quotes, because JSON escapes them; no full stop or semicolon, so that prose can be read back.
titles = st.lists(word, min_size=1, max_size=4).flatmap(
    lambda words: st.sampled_from([" ".join(words), f'The "{words[0]}" Affair'])
)
names = st.builds("{} ({})".format, titles, st.integers(1920, 2019))


@st.composite
def personal_graphs(draw: st.DrawFn) -> PersonalGraph:
    found = draw(st.lists(names, unique=True, max_size=12))
    moments = draw(st.permutations([Moment(n // 3, n % 3) for n in range(len(found))]))
    return PersonalGraph(
        "p1",
        tuple(
            Fact(draw(st.sampled_from(RELATIONS)), str(n), name, moment, SAID)
            for n, (name, moment) in enumerate(zip(found, moments, strict=True))
        ),
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_base_folder: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_base_folder)
    return found


def writer_for(tokenizer: PreTrainedTokenizerBase, **changes: Any) -> PromptWriter:
    arguments: dict[str, Any] = {
        "form": "prose",
        "instruction": "Recommend what fits this person.",
        "request": "Recommend movies to me.",
        "max_tokens": 100_000,
    }
    return PromptWriter(tokenizer, **(arguments | changes))


def read_back(text: str, form: PromptForm) -> dict[str, list[str]]:
    """Names by relation, in the order of the text."""
    if form == "jsonld":
        document = json.loads(text)
        assert document.pop("@context") == "https://schema.org"
        assert document.pop("@type") == "Person"
        return {relation: [item["name"] for item in items] for relation, items in document.items()}
    found: dict[str, list[str]] = {}
    if form == "triples":
        for line in text.split("\n"):
            match = re.fullmatch(r"\(user, (\w+), (.*)\)", line)
            assert match, line
            found.setdefault(match[1], []).append(match[2])
        return found
    relation_by_phrase = {phrase: relation for relation, phrase in PROSE.items()}
    for sentence in text.removesuffix(".").split(". "):
        phrase, _, listed = sentence.partition(": ")
        found[relation_by_phrase[phrase]] = listed.split("; ")
    return found


def by_relation(facts: Sequence[Fact]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fact in facts:
        found.setdefault(fact.relation, []).append(fact.name)
    return found


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graph=personal_graphs(), form=st.sampled_from(FORMS))
def test_a_prompt_holds_exactly_the_facts_in_order_of_time(
    tokenizer: PreTrainedTokenizerBase, graph: PersonalGraph, form: PromptForm
) -> None:
    prompt = writer_for(tokenizer, form=form).write(graph)
    assert (prompt.client, prompt.tails, prompt.facts_left_out) == ("p1", graph.tails, 0)
    expected = by_relation(graph.facts)
    assert (read_back(prompt.facts_text, form) if graph.facts else {}) == expected
    written = f"\n{prompt.facts_text}" if graph.facts else ""
    assert prompt.text == (
        f"<|im_start|>system\nRecommend what fits this person.{written}<|im_end|>\n"
        "<|im_start|>user\nRecommend movies to me.<|im_end|>\n<|im_start|>assistant\n"
    )
    decoded = tokenizer.decode(list(prompt.token_ids), clean_up_tokenization_spaces=False)
    assert decoded == prompt.text


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_graph_leaves_the_request(
    tokenizer: PreTrainedTokenizerBase, form: PromptForm
) -> None:
    nothing = PersonalGraph("p1", ())
    prompt = writer_for(tokenizer, form=form, instruction="").write(nothing)
    assert prompt.text == (
        "<|im_start|>user\nRecommend movies to me.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (prompt.facts_text, prompt.tails, prompt.facts_left_out) == ("", frozenset(), 0)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graph=personal_graphs(), form=st.sampled_from(FORMS), data=st.data())
def test_the_budget_holds_and_the_policy_says_what_goes(
    tokenizer: PreTrainedTokenizerBase, graph: PersonalGraph, form: PromptForm, data: st.DataObject
) -> None:
    unlimited = writer_for(tokenizer, form=form)
    least = len(unlimited.write(graph.only(())).token_ids)
    most = len(unlimited.write(graph).token_ids)
    max_tokens = data.draw(st.integers(least, most + 5), label="max_tokens")
    prompt = writer_for(tokenizer, form=form, max_tokens=max_tokens).write(graph)

    kept = [fact for fact in graph.facts if fact.tail in prompt.tails]
    dropped = [fact for fact in graph.facts if fact.tail not in prompt.tails]
    assert len(prompt.token_ids) <= max_tokens
    assert prompt.facts_left_out == len(dropped)
    as_if_alone = unlimited.write(graph.only(kept))
    assert (prompt.text, prompt.token_ids) == (as_if_alone.text, as_if_alone.token_ids)
    for fact in kept:
        for other in dropped:
            assert RELATIONS.index(fact.relation) < RELATIONS.index(other.relation) or (
                fact.relation == other.relation and fact.time > other.time
            )
    if dropped:
        best = min(dropped, key=lambda f: (RELATIONS.index(f.relation), [-n for n in f.time]))
        assert len(unlimited.write(graph.only([*kept, best])).token_ids) > max_tokens


def test_priority_by_hand() -> None:
    facts = [
        Fact("suggested", "1", "A", Moment(9, 0), SAID),
        Fact("liked", "2", "B", Moment(0, 0), SAID),
        Fact("unseen", "3", "C", Moment(5, 0), SAID),
        Fact("liked", "4", "D", Moment(0, 1), SAID),
        Fact("seen", "5", "E", Moment(7, 0), SAID),
        Fact("disliked", "6", "F", Moment(1, 0), SAID),
        Fact("disliked", "7", "G", Moment(8, 0), SAID),
    ]
    assert [fact.name for fact in by_priority(facts)] == ["D", "B", "G", "F", "E", "C", "A"]


def test_a_budget_below_the_request_names_client_and_key(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    nothing = PersonalGraph("Zoë/7", ())
    needed = len(writer_for(tokenizer).write(nothing).token_ids)
    assert writer_for(tokenizer, max_tokens=needed).write(nothing).facts_left_out == 0
    with pytest.raises(DataError) as caught:
        writer_for(tokenizer, max_tokens=needed - 1).write(nothing)
    assert str(caught.value) == (
        "prompt of client 'Zoë/7': prompt.max_tokens must hold at least the request, which takes "
        f"{needed} tokens, got {needed - 1}"
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graph=personal_graphs(), form=st.sampled_from(FORMS), name=names)
def test_a_completion_does_not_depend_on_the_prompt(
    tokenizer: PreTrainedTokenizerBase, graph: PersonalGraph, form: PromptForm, name: str
) -> None:
    writer = writer_for(tokenizer, form=form, request=f"Something like {name}")
    before = writer.completion_ids(name)
    prompt = writer.write(graph)
    assert writer.completion_ids(name) == before == writer_for(tokenizer).completion_ids(name)
    assert before[-1] == tokenizer.eos_token_id
    assert before.count(before[-1]) == 1
    together = tokenizer.decode([*prompt.token_ids, *before], clean_up_tokenization_spaces=False)
    assert together == f"{prompt.text}{name}<|im_end|>"


def test_the_empty_think_block_belongs_to_the_prompt(tiny_base_folder: Path) -> None:
    thinking: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_base_folder)
    assert isinstance(thinking.chat_template, str)
    # As Qwen3's template does: thinking is on unless the caller says no.
    start = "<|im_start|>assistant\n"
    thinking.chat_template = thinking.chat_template.replace(
        start,
        start + "{% if enable_thinking is defined and enable_thinking is false %}"
        "<think>\n\n</think>\n\n{% endif %}",
    )
    user = [{"role": "user", "content": "Hello"}]
    open_end = thinking.apply_chat_template(user, tokenize=False, add_generation_prompt=True)
    assert isinstance(open_end, str)
    assert open_end.endswith(start)

    writer = writer_for(thinking)
    prompt = writer.write(PersonalGraph("p1", ()))
    block = "<think>\n\n</think>\n\n"
    assert prompt.text.endswith(start + block)
    decoded = thinking.decode(list(prompt.token_ids), clean_up_tokenization_spaces=False)
    assert decoded == prompt.text
    completion = thinking.decode(list(writer.completion_ids("Heat (1995)")))
    assert completion == "Heat (1995)<|im_end|>"


@pytest.mark.parametrize("mark", ["-", "*", "•"])
def test_a_mark_ends_the_prompt_and_is_followed_by_a_spaced_title(
    tokenizer: PreTrainedTokenizerBase, mark: str
) -> None:
    plain, marked = writer_for(tokenizer), writer_for(tokenizer, answer_mark=mark)
    graph = PersonalGraph("p", (Fact("liked", "1", "Heat (1995)", Moment(0, 0), SAID),))
    prompt = marked.write(graph)
    assert prompt.text == plain.write(graph).text + mark
    assert tokenizer.decode(list(prompt.token_ids)) == prompt.text
    answer = [*marked.completion_ids("Ran (1985)")[:-1], *marked.separator_ids]
    assert tokenizer.decode(answer) == f" Ran (1985)\n{mark}"
    assert tokenizer.decode(list(plain.separator_ids)) == "\n"
    # The mark counts against the budget.
    tight = writer_for(tokenizer, answer_mark=mark, max_tokens=len(prompt.token_ids) - 1)
    assert tight.write(graph).facts_left_out == 1
