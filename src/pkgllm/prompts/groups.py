"""Training groups: hide some facts of a client's training graph, and ask for them.

A group is one prompt with all its completions. The prompt is written from facts strictly earlier
than every hidden one. Nothing here can see a validation or test fact: the training graph
ends before the first of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.graph.personal_graph import Fact, PersonalGraph
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.prompts.settings import GroupSettings, Negatives
from pkgllm.prompts.windows import hidden_windows

CompletionSource = Literal["liked", "disliked", "rule", "known", "uniform"]


@dataclass(frozen=True, slots=True)
class Completion:
    """One title as the answer to a prompt."""

    item: str
    token_ids: tuple[int, ...]
    """The item's name and the terminator."""
    desirable: bool
    source: CompletionSource
    """The hidden fact's relation, ``rule`` for a synthetic fact, or the kind of negative."""


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt with all its completions; the unit of privacy ``example``."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    mismatched: tuple[Completion, ...] = ()
    """Completions of the same client's next group, for KTO's KL baseline.

    A client with one group has its own here, because it knows no facts of others; the baseline is
    then that of matched pairs.
    """
    row: int | None = field(default=None, compare=False, repr=False)
    """Where its completions, then its mismatched ones, stand in the column of reference
    log-probabilities; None where there is no column."""


def with_mismatched(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Give each group of a client its mismatched completions.

    They are those of the next group, and the last's are those of the first, so they are fixed for
    the run (TRL rotates them in the same way).
    """
    return tuple(
        replace(group, mismatched=groups[(index + 1) % len(groups)].completions)
        for index, group in enumerate(groups)
    )


class GroupBuilder:
    """Builds the groups of one client after another.

    The order of the ``catalogue`` fixes what a random draw means.
    """

    def __init__(self, catalogue: Catalogue, writer: PromptWriter, negatives: Negatives) -> None:
        self._catalogue = catalogue
        self._writer = writer
        self._negatives = negatives
        self._ids_by_item: dict[str, tuple[int, ...]] = {}

    def build(
        self,
        graph: PersonalGraph,
        generator: np.random.Generator,
        settings: GroupSettings,
        *,
        max_groups_per_fact: int | None = None,
    ) -> tuple[Group, ...]:
        """Return the groups of one client's training graph, latest first.

        Each has its mismatched completions, as :func:`with_mismatched` gives them.

        Args:
            graph: What the client knows in training.
            generator: Draws negatives.
            settings: How the graph is cut.
            max_groups_per_fact: As for :func:`~pkgllm.prompts.windows.hidden_windows`.
        """
        windows = hidden_windows(graph, settings, max_groups_per_fact=max_groups_per_fact)
        return with_mismatched(
            [self.group(context, hidden, generator) for context, hidden in windows]
        )

    def group(
        self,
        context: PersonalGraph,
        hidden: Sequence[Fact],
        generator: np.random.Generator,
        *,
        derived: Sequence[str] = (),
        num_known: int | None = None,
    ) -> Group:
        """Return one group, without mismatched completions.

        Args:
            context: What the prompt is written from.
            hidden: Liked and disliked facts that are asked for, none of them in the context.
            generator: Draws negatives.
            derived: Ids of items that are desirable by a rule, none of them in the context.
            num_known: Items of the context that are undesirable; as the run has it when None.
        """
        asked = [
            self._completion(
                fact.tail,
                "liked" if fact.relation == "liked" else "disliked",
                desirable=fact.relation == "liked",
            )
            for fact in hidden
        ]
        asked += [self._completion(item, "rule", desirable=True) for item in derived]
        taken = context.tails | {fact.tail for fact in hidden} | set(derived)
        wanted = self._negatives.known if num_known is None else num_known
        return Group(
            self._writer.write(context),
            (*asked, *self._draw_negatives(context, taken, wanted, generator)),
        )

    def _draw_negatives(
        self,
        context: PersonalGraph,
        taken: frozenset[str],
        num_known: int,
        generator: np.random.Generator,
    ) -> Iterator[Completion]:
        known = [fact.tail for fact in context.facts if fact.tail in self._catalogue]
        num_known = min(num_known, len(known))
        for index in generator.choice(len(known), num_known, replace=False) if num_known else ():
            yield self._completion(known[int(index)], "known", desirable=False)
        columns = self._catalogue.index_by_id
        taken_columns = [columns[item] for item in taken if item in columns]
        allowed = np.setdiff1d(np.arange(len(self._catalogue)), taken_columns)
        num_uniform = min(self._negatives.uniform, len(allowed))
        for column in generator.choice(allowed, num_uniform, replace=False):
            yield self._completion(
                self._catalogue.items[int(column)].id, "uniform", desirable=False
            )

    def _completion(self, item: str, source: CompletionSource, *, desirable: bool) -> Completion:
        if item not in self._ids_by_item:
            self._ids_by_item[item] = self._writer.completion_ids(self._catalogue[item].name)
        return Completion(item, self._ids_by_item[item], desirable, source)
