"""Let a run's language models write lists for every client, and write it down."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.errors import ConfigError, PkgllmError
from pkgllm.evaluation.lists.free_text import Answer
from pkgllm.evaluation.lists.generation import ListDecoder
from pkgllm.evaluation.lists.lists import TitleLinker, list_of_items, read_list
from pkgllm.evaluation.results import Evaluation
from pkgllm.evaluation.scorer import ClientQueries, candidate_mask
from pkgllm.pipeline.evaluation.list_results import (
    ClientList,
    Lists,
    Mode,
    list_results,
    ranked_lists,
)
from pkgllm.pipeline.evaluation.ranking import Report, Task
from pkgllm.pipeline.evaluation.scorers import Ranked, make_trie, own_adapter
from pkgllm.progress import Advance, Progress
from pkgllm.prompts.prompts import Prompt
from pkgllm.randomness import torch_seed
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ListModel:
    name: str
    decoder: ListDecoder
    select: Callable[[str], None] | None
    """Makes a client's own adapter ready, where each client has one."""


class ListAsker:
    """Asks the tuned model of a run for lists, and the base model where that is asked as well.

    In mode ``local`` it takes the adapter that strangers get from the model as it stands, so it
    must be made before anything is ranked or asked for.

    Args:
        config: The run's configuration.
        ranked: The models.
        population: The clients.
        queries: What is asked, audited.
        prompts: What the models read, one for each query.

    Raises:
        ConfigError: If the longest answer does not fit behind the longest prompt.
    """

    def __init__(
        self,
        config: schema.Experiment,
        ranked: Ranked,
        population: Population,
        queries: Sequence[ClientQueries],
        prompts: Sequence[Prompt],
    ) -> None:
        self._choice, self._seed = config.evaluation.lists, config.seed
        self._catalogue = population.corpus.catalogue
        self._queries, self._prompts = queries, prompts
        self._writer = ranked.writer
        self._trie = make_trie(ranked.writer, self._catalogue)
        self._linker = TitleLinker(self._catalogue)
        self._separator = ranked.writer.separator_ids
        _check_room(self._choice, prompts, ranked.base.max_positions, self._longest_list())
        select = own_adapter(ranked, population) if config.mode.name == "local" else None
        self._models = tuple(
            _ListModel(
                name,
                ListDecoder(
                    ranked.policy,
                    max_positions=ranked.base.max_positions,
                    batch_size=self._choice.prompts_at_once,
                    with_adapter=with_adapter,
                ),
                select if with_adapter else None,
            )
            for name, with_adapter in (("tuned", True), ("base", False))
            if with_adapter or config.evaluation.base_model
        )

    def ask(self, samples_by_mode: Mapping[Mode, int], progress: Progress) -> Lists:
        """Return what every model writes.

        A model that fails for a client (a :class:`PkgllmError`) gets an empty list, so that no
        model is measured on fewer.

        Args:
            samples_by_mode: The modes, each with the number of its samples. Every sample has random
                numbers of its own for every client, the same for both models.
            progress: Is told how far the work is.
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
        at_once = self._choice.prompts_at_once if model.select is None else 1
        found: dict[int, ClientList] = {}
        for start in range(0, len(order), at_once):
            places = order[start : start + at_once]
            if model.select is not None:
                model.select(self._queries[places[0]].client)
            lists = self._try(model, mode, number, places)
            found.update(zip(places, lists, strict=True))
            for _ in places:
                advance()
        return [found[place] for place in range(len(order))]

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
                k=self._choice.k,
                separator=self._separator,
            )
            return [
                self._of_columns(self._queries[at], own)
                for at, own in zip(places, columns, strict=True)
            ]
        terminator = self._writer.terminator
        if mode == "greedy":
            answers = decoder.greedy(
                prompts, terminator=terminator, max_new_tokens=self._choice.max_new_tokens
            )
        else:
            answers = decoder.sampled(
                prompts,
                terminator=terminator,
                max_new_tokens=self._choice.max_new_tokens,
                seed=torch_seed(self._seed, "sampled_lists", number),
                temperature=self._choice.temperature,
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
            found=list_of_items(
                [item.id for item in items], visible=query.graph.tails, k=self._choice.k
            ),
        )

    def _of_answer(self, query: ClientQueries, answer: Answer) -> ClientList:
        text = self._writer.text_of(answer.token_ids)
        found = read_list(text, self._linker, visible=query.graph.tails, k=self._choice.k)
        return ClientList(query.client, text, answer.finished, failed=False, found=found)

    def _longest_list(self) -> int:
        titles = self._choice.k * self._trie.longest_input
        return titles + (self._choice.k - 1) * len(self._separator)


def write_lists(
    task: Task, asker: ListAsker, evaluation: Evaluation, output: RunFolder, progress: Progress
) -> Report:
    """Ask for lists in every mode, and write lists, results and table.

    Args:
        task: What is asked.
        asker: Asks the language models.
        evaluation: The ranks of all models, whose best candidates stand beside.
        output: Where the files go.
        progress: Is told how far the work is.
    """
    choice = task.config.evaluation
    samples: dict[Mode, int] = {"greedy": 1, "constrained": 1, "sampled": choice.lists.samples}
    lists: Lists = {**asker.ask(samples, progress), **ranked_lists(evaluation, k=choice.lists.k)}
    results = list_results(
        lists,
        task.queries,
        k=choice.lists.k,
        resamples=choice.bootstrap_resamples,
        seed=task.config.seed,
    )
    output.write_text("lists.jsonl", json_lines(lists))
    output.write_json("lists.json", {**results, "notes": task.notes})
    report = Report(output.path, "lists", results, f"Lists: {task.title}", task.notes)
    output.write_text("lists.md", markdown(report.document))
    return report


def json_lines(lists: Lists) -> str:
    """Return one line of JSON for each list."""
    return "".join(
        # In ASCII, so that no character of an answer ends a line.
        f"{json.dumps(client.record(model, mode, number))}\n"
        for (model, mode), samples in lists.items()
        for number, sample in enumerate(samples, start=1)
        for client in sample
    )


def _check_room(
    choice: schema.Lists, prompts: Sequence[Prompt], max_positions: int, longest_list: int
) -> None:
    longest_prompt = max(len(prompt.token_ids) for prompt in prompts)
    room = max_positions - longest_prompt
    for key, needed in (("max_new_tokens", choice.max_new_tokens), ("k", longest_list)):
        if needed > room:
            raise ConfigError(
                f"evaluation.lists.{key}: a list must fit behind the longest prompt "
                f"({longest_prompt} tokens) into the base model's {max_positions} positions, but "
                f"may take {needed} tokens; lower evaluation.lists.{key}"
            )
