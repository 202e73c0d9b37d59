"""Write a personal graph as a prompt, and a catalogue item as the completion that answers it.

Prompt and completion are tokenised apart, everywhere, so a completion's tokens do not depend on
the prompt that stands before it. No text of a fact, a title, a request or an instruction acts as a
control token (:mod:`pkgllm.lm.chat_template`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import RELATIONS, Fact, PersonalGraph, Relation
from pkgllm.lm.chat_template import ChatTemplate
from pkgllm.prompts.settings import PromptForm


def _triples(facts: Sequence[Fact]) -> str:
    return "\n".join(f"(user, {fact.relation}, {fact.name})" for fact in facts)


_PROSE: Mapping[Relation, str] = {
    "liked": "The user liked",
    "disliked": "The user disliked",
    "seen": "The user has seen",
    "unseen": "The user has not seen",
    "suggested": "The user was told about",
}


def _prose(facts: Sequence[Fact]) -> str:
    by_relation = {
        relation: [fact.name for fact in facts if fact.relation == relation]
        for relation in RELATIONS
    }
    return " ".join(
        f"{_PROSE[relation]}: {'; '.join(names)}."
        for relation, names in by_relation.items()
        if names
    )


def _jsonld(facts: Sequence[Fact]) -> str:
    graph: dict[str, object] = {"@context": "https://schema.org", "@type": "Person"}
    for relation in RELATIONS:
        if names := [{"name": fact.name} for fact in facts if fact.relation == relation]:
            graph[relation] = names
    return json.dumps(graph, ensure_ascii=False, separators=(",", ":"))


_WRITE: Mapping[PromptForm, Callable[[Sequence[Fact]], str]] = {
    "triples": _triples,
    "jsonld": _jsonld,
    "prose": _prose,
}


def write_facts(facts: Sequence[Fact], form: PromptForm) -> str:
    """Write facts in one of the three forms, in their order.

    Example:
        >>> from pkgllm.graph.personal_graph import Moment, Provenance
        >>> fact = Fact("liked", "7", "Heat (1995)", Moment(0, 0), Provenance("own_answer", "c/1"))
        >>> for form in ("triples", "prose", "jsonld"):
        ...     write_facts([fact], form)
        '(user, liked, Heat (1995))'
        'The user liked: Heat (1995).'
        '{"@context":"https://schema.org","@type":"Person","liked":[{"name":"Heat (1995)"}]}'
    """
    return _WRITE[form](facts)


def by_priority(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Order facts by what a short prompt should keep: liked, disliked, seen, ..., then newest."""
    return tuple(
        sorted(facts, key=lambda fact: (-RELATIONS.index(fact.relation), fact.time), reverse=True)
    )


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of a model, complete up to the first token of its answer."""

    client: str
    facts_text: str
    """The part that was written from the graph."""
    text: str
    token_ids: tuple[int, ...]
    tails: frozenset[str]
    """Items that the prompt names."""
    facts_left_out: int
    """Facts of the graph that did not fit the token budget."""


class PromptWriter:
    """Turns graphs into prompts, and item names into completions, for one tokenizer.

    Args:
        tokenizer: Of the base model, with a chat template.
        form: How the facts are written.
        instruction: First line of the system message; empty for none.
        request: What the person asks.
        max_tokens: Longest prompt, tokens.
        answer_mark: Stands before each title of an answer, ``-`` for example; a prompt then ends
            with it, and a title begins with a space. A base model that was trained on such lists
            does not expect a title without it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        form: PromptForm,
        instruction: str,
        request: str,
        max_tokens: int,
        answer_mark: str = "",
    ) -> None:
        self.form = form
        self.instruction = instruction
        self.request = request
        self.max_tokens = max_tokens
        self.answer_mark = answer_mark
        self._tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)
        self.terminator: int = self.template.terminator
        """Token that ends an answer."""

    def asking(self, request: str) -> "PromptWriter":
        """Return a writer that differs in what the person asks."""
        return PromptWriter(
            self._tokenizer,
            form=self.form,
            instruction=self.instruction,
            request=request,
            max_tokens=self.max_tokens,
            answer_mark=self.answer_mark,
        )

    def write(self, graph: PersonalGraph) -> Prompt:
        """Write a graph, leaving out as few facts as the token budget demands.

        Facts are kept in the order of :func:`by_priority` and written in the order of time.

        Raises:
            DataError: If the budget does not even hold the prompt of an empty graph.
        """
        ranked = by_priority(graph.facts)
        text, token_ids = self._render(graph.facts)
        kept = len(ranked)
        if len(token_ids) > self.max_tokens:
            kept = self._largest_fit(graph, ranked)
            text, token_ids = self._render(graph.only(ranked[:kept]).facts)
        facts = graph.only(ranked[:kept]).facts
        return Prompt(
            client=graph.owner,
            facts_text=write_facts(facts, self.form) if facts else "",
            text=text,
            token_ids=token_ids,
            tails=frozenset(fact.tail for fact in facts),
            facts_left_out=len(ranked) - kept,
        )

    def completion_ids(self, name: str) -> tuple[int, ...]:
        """Return the tokens of an item's name followed by the terminator."""
        ids = self.template.plain.ids(f" {name}" if self.answer_mark else name)
        return (*ids, self.terminator)

    def text_of(self, token_ids: Sequence[int]) -> str:
        """Return the text of an answer's tokens."""
        text = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    @property
    def separator_ids(self) -> tuple[int, ...]:
        """Tokens between two titles of one answer."""
        return self.template.plain.ids(f"\n{self.answer_mark}")

    def _largest_fit(self, graph: PersonalGraph, ranked: Sequence[Fact]) -> int:
        low, high = 0, len(ranked)
        _, shortest = self._render(())
        if len(shortest) > self.max_tokens:
            raise DataError(
                f"prompt of client {graph.owner!r}: prompt.max_tokens must hold at least the "
                f"request, which takes {len(shortest)} tokens, got {self.max_tokens}"
            )
        while low < high:
            middle = (low + high + 1) // 2
            _, token_ids = self._render(graph.only(ranked[:middle]).facts)
            low, high = (middle, high) if len(token_ids) <= self.max_tokens else (low, middle - 1)
        return low

    def _render(self, facts: Sequence[Fact]) -> tuple[str, tuple[int, ...]]:
        parts = (self.instruction, write_facts(facts, self.form) if facts else "")
        system = "\n".join(part for part in parts if part)
        return self.template.prompt(system, self.request, self.answer_mark)
