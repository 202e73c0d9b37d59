"""Ask a language model, and its base model, for lists for every client."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from peft import PeftModel

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import ConfigError, PkgllmError
from pkgllm.evaluation.lists import ListSettings
from pkgllm.evaluation.lists.free_text import Answer
from pkgllm.evaluation.lists.generation import ListDecoder
from pkgllm.evaluation.lists.lists import TitleLinker, list_of_items, read_list
from pkgllm.evaluation.lists.results import ClientList, Lists
from pkgllm.evaluation.ranking.trie import make_trie
from pkgllm.evaluation.scorer import ClientQueries, candidate_mask
from pkgllm.progress import Advance, Progress
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.randomness import torch_seed
from pkgllm.runs.records import Mode

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ListModel:
    name: str
    decoder: ListDecoder
    select: Callable[[str], None] | None
    """Makes a client's own adapter ready, where each client has one."""


class ListAsker:
    """Asks the tuned model of a run for lists, and the base model where that is asked as well.

    ``prompts`` are what the models read, one for each audited query; ``select`` makes the adapter
    of a client ready, where each client has its own.

    Raises:
        ConfigError: If the longest answer does not fit behind the longest prompt.
    """

    def __init__(
        self,
        policy: PeftModel,
        writer: PromptWriter,
        catalogue: Catalogue,
        queries: Sequence[ClientQueries],
        prompts: Sequence[Prompt],
        settings: ListSettings,
        *,
        max_positions: int,
        seed: int,
        with_base: bool,
        select: Callable[[str], None] | None = None,
    ) -> None:
        self._settings, self._seed = settings, seed
        self._catalogue = catalogue
        self._queries, self._prompts = queries, prompts
        self._writer = writer
        self._trie = make_trie(writer, catalogue)
        self._linker = TitleLinker(catalogue)
        self._separator = writer.separator_ids
        self._check_room(max_positions)
        self._models = tuple(
            _ListModel(
                name,
                ListDecoder(
                    policy,
                    max_positions=max_positions,
                    batch_size=settings.prompts_at_once,
                    with_adapter=with_adapter,
                ),
                select if with_adapter else None,
            )
            for name, with_adapter in (("tuned", True), ("base", False))
            if with_adapter or with_base
        )

    def ask(self, samples_by_mode: Mapping[Mode, int], progress: Progress) -> Lists:
        """Return what every model writes.

        A model that fails for a client (a :class:`PkgllmError`) gets an empty list, so that no
        model is measured on fewer.

        Args:
            samples_by_mode: The modes, each with the number of its samples. Every sample has random
                numbers of its own for every client, the same for both models.
            progress: Shows how many lists are written.
        """
        total = len(self._models) * sum(samples_by_mode.values()) * len(self._queries)
        with progress.track("writing lists", total) as advance:
            return {
                (model.name, mode): [
                    self._sample(model, mode, number, advance)
                    for number in range(1, num_samples + 1)
                ]
                for model in self._models
                for mode, num_samples in samples_by_mode.items()
            }

    def _sample(
        self, model: _ListModel, mode: Mode, number: int, advance: Advance
    ) -> list[ClientList]:
        # Prompts of like length go together, so that little is padded.
        order = sorted(range(len(self._prompts)), key=lambda at: len(self._prompts[at].token_ids))
        at_once = self._settings.prompts_at_once if model.select is None else 1
        by_place: dict[int, ClientList] = {}
        for start in range(0, len(order), at_once):
            places = order[start : start + at_once]
            if model.select is not None:
                model.select(self._queries[places[0]].client)
            lists = self._try(model, mode, number, places)
            by_place.update(zip(places, lists, strict=True))
            for _ in places:
                advance()
        return [by_place[place] for place in range(len(order))]

    def _try(
        self, model: _ListModel, mode: Mode, number: int, places: Sequence[int]
    ) -> list[ClientList]:
        try:
            return self._write(model.decoder, mode, number, places)
        except PkgllmError as error:
            if len(places) > 1:
                return [alone for at in places for alone in self._try(model, mode, number, [at])]
            client = self._queries[places[0]].client
            logger.warning(
                "%s, %s: the list of client %r counts as empty: %s", model.name, mode, client, error
            )
            return [ClientList.failure(client)]

    def _write(
        self, decoder: ListDecoder, mode: Mode, number: int, places: Sequence[int]
    ) -> list[ClientList]:
        prompts = [self._prompts[at] for at in places]
        if mode == "constrained":
            columns = decoder.constrained(
                prompts,
                self._trie,
                [candidate_mask(self._catalogue, self._queries[at]) for at in places],
                k=self._settings.k,
                separator=self._separator,
            )
            return [
                self._of_columns(self._queries[at], own)
                for at, own in zip(places, columns, strict=True)
            ]
        terminator = self._writer.terminator
        if mode == "greedy":
            answers = decoder.greedy(
                prompts, terminator=terminator, max_new_tokens=self._settings.max_new_tokens
            )
        else:
            answers = decoder.sampled(
                prompts,
                terminator=terminator,
                max_new_tokens=self._settings.max_new_tokens,
                seed=torch_seed(self._seed, "sampled_lists", number),
                temperature=self._settings.temperature,
            )
        return [
            self._of_answer(self._queries[at], answer)
            for at, answer in zip(places, answers, strict=True)
        ]

    def _of_columns(self, query: ClientQueries, columns: Sequence[int]) -> ClientList:
        items = [self._catalogue.items[column] for column in columns]
        return ClientList(
            query.client,
            text="\n".join(item.name for item in items),
            finished=True,
            failed=False,
            parsed=list_of_items(
                [item.id for item in items], visible=query.graph.tails, k=self._settings.k
            ),
        )

    def _of_answer(self, query: ClientQueries, answer: Answer) -> ClientList:
        text = self._writer.text_of(answer.token_ids)
        items = read_list(text, self._linker, visible=query.graph.tails, k=self._settings.k)
        return ClientList(query.client, text, answer.finished, failed=False, parsed=items)

    def _check_room(self, max_positions: int) -> None:
        longest_prompt = max(len(prompt.token_ids) for prompt in self._prompts)
        k = self._settings.k
        longest_list = k * self._trie.longest_input + (k - 1) * len(self._separator)
        needs = {"max_new_tokens": self._settings.max_new_tokens, "k": longest_list}
        for key, needed in needs.items():
            if needed > max_positions - longest_prompt:
                raise ConfigError(
                    f"evaluation.lists.{key}: a list must fit behind the longest prompt "
                    f"({longest_prompt} tokens) into the base model's {max_positions} positions, "
                    f"but may take {needed} tokens; lower evaluation.lists.{key}"
                )
