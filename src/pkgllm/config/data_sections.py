"""Whose facts are used, what is held out, and how they become prompts and groups."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pkgllm.config.section import NotNegative, Positive, Section, Share


class RedialCorpus(Section):
    """Dialogues in ReDial's files (Li et al. 2018)."""

    name: Literal["redial"]
    folder: str | None = None
    """Folder of the files; when absent ``$PKGLLM_DATA/redial``, then ``./data/redial``."""
    hub: str | None = None
    """A data set of the Hugging Face hub to read instead, ``community-datasets/re_dial``."""
    movie_facts: str | None = None
    """``movies.json`` with public facts; when absent ``movie_kg/movies.json`` beside the folder."""


class SmallWorldCorpus(Section):
    """The project's own invented movie world, written in ReDial's file formats."""

    name: Literal["small_world"]
    folder: str | None = None
    """Folder of the generated files; when absent the shipped one."""


class Clients(Section):
    """Who takes part."""

    min_liked: Positive = 1
    """Liked facts that a client needs, to have something to hold out."""
    below_min_liked: Literal["refuse", "leave_out"] = "refuse"
    """What a client with fewer is: an error, or left out and counted in the report."""
    unseen_share: Share = 0.1
    """Share of the clients that take no part in training."""


class Split(Section):
    """What is held out of each client's liked facts, latest first."""

    test_share: Share = 0.2
    """Share of the liked facts held out for the test, at least one fact. With 0 nothing is, and
    nobody can be ranked: for people who train on their own machines and want all to count."""
    validation_share: Share = 0.1
    """Share of the liked facts, before those, held out for validation."""
    restated_facts: Literal["latest", "first"] = "latest"
    """Which statement gives a fact its time that was stated more than once. With ``first`` nothing
    is asked for that the person had said before."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> "Split":
        if self.test_share + self.validation_share >= 1:
            raise ValueError(
                "test_share + validation_share must be below 1, "
                f"got {self.test_share + self.validation_share:g}"
            )
        return self


class Prompt(Section):
    """How a graph becomes a prompt."""

    form: Literal["triples", "jsonld", "prose"] = "prose"
    """How the facts are written."""
    instruction: str = "Recommend what fits this person."
    """First line of the system message; empty for none."""
    max_tokens: Annotated[int, Field(ge=32)] = 512
    """Longest prompt, tokens; older facts are left out to fit, liked ones last, and counted."""
    request: str = "Recommend movies to me."
    """What the person asks."""
    answer_mark: Annotated[str, Field(pattern=r"^\S*$")] = ""
    """What stands before each title of an answer, ``-`` for example, where the base model was
    trained on lists that have it; the prompt then ends with it. Empty for none."""


class Negatives(Section):
    """Undesirable completions beside the films that the person disliked."""

    known: NotNegative = 0
    """Items per group that the context already holds."""
    uniform: NotNegative = 8
    """Items per group, drawn uniformly from the catalogue."""


class Groups(Section):
    """How training facts become groups: a prompt and the completions it is asked for."""

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

    @model_validator(mode="after")
    def _room_for_the_context(self) -> "Groups":
        if self.max_context is not None and self.max_context < self.min_context:
            raise ValueError(
                f"max_context must be at least min_context, {self.min_context}, got "
                f"{self.max_context}"
            )
        return self


class Synthetic(Section):
    """Groups made up beside those of a client's graph; none of them with the defaults."""

    graph_edits: NotNegative = 0
    """Groups per client that hide facts of its training graph whatever their time, and ask for
    them."""
    max_hidden: Annotated[int, Field(ge=1, le=10)] = 10
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

    @model_validator(mode="after")
    def _rules_need_relations(self) -> "Synthetic":
        if self.rule_facts and not self.relations:
            raise ValueError("relations must name at least one relation where rule_facts is used")
        return self
