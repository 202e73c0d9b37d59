"""How facts become prompts and groups: sections of a configuration."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from pkgllm.bounds import NotNegative, Positive

PromptForm = Literal["triples", "jsonld", "prose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSettings:
    """How a graph becomes a prompt.

    Raises:
        ValueError: If the mark of answers holds white space.
    """

    form: PromptForm = "prose"
    """How the facts are written."""
    instruction: str = "Recommend what fits this person."
    """First line of the system message; empty for none."""
    max_tokens: Annotated[int, Ge(32)] = 512
    """Longest prompt, tokens; older facts are left out to fit, liked ones last, and counted."""
    request: str = "Recommend movies to me."
    """What the person asks."""
    answer_mark: str = ""
    """What stands before each title of an answer, ``-`` for example, where the base model was
    trained on lists that have it; the prompt then ends with it. Empty for none."""

    def __post_init__(self) -> None:
        if any(map(str.isspace, self.answer_mark)):
            raise ValueError(f'answer_mark must hold no white space, got "{self.answer_mark}"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Negatives:
    """Undesirable completions beside the films that the person disliked."""

    known: NotNegative = 0
    """Items per group that the context already holds."""
    uniform: NotNegative = 8
    """Items per group, drawn uniformly from the catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """How training facts become groups: a prompt and the completions it is asked for.

    Raises:
        ValueError: If a context could not hold the facts that it must.
    """

    hidden_facts: Positive = 8
    """Liked and disliked facts hidden from a prompt and asked for."""
    stride: Positive = 4
    """Facts between one window of hidden facts and the next."""
    min_context: NotNegative = 1
    """Facts that must stand before the hidden ones."""
    max_context: Positive | None = None
    """Facts before the hidden ones that a prompt may hold, the newest; any number when absent. With
    privacy unit ``example`` a fact may enter few groups, so short contexts leave more of them."""
    max_groups: Positive = 16
    """Groups per client; the latest windows are kept."""
    negatives: Negatives = Negatives()

    def __post_init__(self) -> None:
        if self.max_context is not None and self.max_context < self.min_context:
            raise ValueError(
                f"max_context must be at least min_context, {self.min_context}, got "
                f"{self.max_context}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSettings:
    """Groups made up beside those of a client's graph; none of them with the defaults.

    Raises:
        ValueError: If rule facts are asked for and no relation is named.
    """

    graph_edits: NotNegative = 0
    """Groups per client that hide facts of its training graph whatever their time, and ask for
    them."""
    max_hidden: Annotated[int, Ge(1), Le(10)] = 10
    """Liked and disliked facts that such a group hides; each number up to it is equally likely."""
    known_items: NotNegative = 2
    """Items of its prompt that such a group gives as undesirable answers."""
    rule_facts: NotNegative = 0
    """Items per client that public facts connect with what it likes, asked for as if it liked
    them."""
    relations: tuple[str, ...] = ("director", "genre")
    """Public relations over which a liked item leads to another."""

    @property
    def is_used(self) -> bool:
        """Whether anything is made up."""
        return bool(self.graph_edits or self.rule_facts)

    def __post_init__(self) -> None:
        if self.rule_facts and not self.relations:
            raise ValueError("relations must name at least one relation where rule_facts is used")
