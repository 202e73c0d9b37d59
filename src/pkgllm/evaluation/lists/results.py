"""Lists of all clients by model and mode, and what follows from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pkgllm.errors import RunError
from pkgllm.evaluation.lists.lists import GeneratedList, list_of_items
from pkgllm.evaluation.lists.metrics import (
    ClientRatios,
    list_rates,
    macro_list_metrics,
    micro_list_metrics,
)
from pkgllm.evaluation.results import EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.evaluation.statistics import bootstrap_ratios
from pkgllm.randomness import stream
from pkgllm.runs.records import ListRecord, Mode, read_records

ANSWERS = "lists.jsonl"
"""File of an evaluation with the lists that models wrote."""


@dataclass(frozen=True, slots=True)
class ClientList:
    """One client's list by one model, and the answer it was read from."""

    client: str
    text: str | None
    """The answer; None where the list was ranked, or the model gave none."""
    finished: bool
    """False where the answer was cut off at its longest length."""
    failed: bool
    """True where the model gave no list, so that an empty one counts."""
    parsed: GeneratedList
    """What it was read as."""

    @classmethod
    def failure(cls, client: str) -> "ClientList":
        """Return the empty list that counts where a model gave none."""
        empty = GeneratedList(num_lines=0, linked=(), novel=(), items=())
        return cls(client, text=None, finished=False, failed=True, parsed=empty)

    @classmethod
    def of(cls, record: ListRecord, query: ClientQueries, k: int) -> "ClientList":
        """Return the list that :meth:`record` wrote down."""
        if record.failed:
            return cls.failure(record.client)
        items = list_of_items(record.linked, visible=query.graph.tails, k=k, num_lines=record.lines)
        return cls(record.client, record.text, record.finished, failed=False, parsed=items)

    def record(self, model: str, mode: Mode, sample: int) -> dict[str, Any]:
        """Return what is written down, ready for JSON."""
        return {
            "client": self.client,
            "model": model,
            "mode": mode,
            "sample": sample,
            "text": self.text,
            "finished": self.finished,
            "failed": self.failed,
            "lines": self.parsed.num_lines,
            "linked": list(self.parsed.linked),
            "items": list(self.parsed.items),
        }


Samples = Sequence[Sequence[ClientList]]
"""One list per client, in the order of the queries, for each sample; for most modes one sample."""

Lists = Mapping[tuple[str, Mode], Samples]
"""By model and mode."""


def ranked_lists(evaluation: EvaluationResults, *, k: int) -> dict[tuple[str, Mode], Samples]:
    """Return the best candidates of every ranked model; a failure's list is empty."""
    return {
        (name, "ranked"): [
            [
                ClientList.failure(query.client)
                if client.failed
                else ClientList(
                    query.client,
                    text=None,
                    finished=True,
                    failed=False,
                    parsed=list_of_items(client.top[:k], visible=query.graph.tails, k=k),
                )
                for query, client in zip(evaluation.queries, ranked, strict=True)
            ]
        ]
        for name, ranked in evaluation.ranked.items()
    }


def list_results(
    lists: Lists, queries: Sequence[ClientQueries], *, k: int, resamples: int, seed: int
) -> dict[str, Any]:
    """Return the summary, ready for JSON.

    ``models.<model>.<mode>`` holds ``samples``, ``failures`` and ``cut_off`` (numbers of answers),
    and under ``rates``, ``micro`` and ``macro`` the measures of
    :mod:`pkgllm.evaluation.lists.metrics`, each with ``value``, ``low`` and ``high``. Every client
    counts, and all samples of a client count together: they are resampled with it, so the interval
    is one of clients. How samples differ stands apart: sampled lists have the ``mean`` and the
    ``sd`` of each measure over the samples under ``over_samples``, the SD with ``samples - 1``
    below, None for one sample.
    """
    gold = [query.held_out for query in queries]
    measured = {
        key: [_measures(sample, gold, k) for sample in samples] for key, samples in lists.items()
    }
    pooled = [
        _pooled([sample[part] for sample in samples])
        for samples in measured.values()
        for part in samples[0]
    ]
    ratios = bootstrap_ratios(
        np.column_stack([sums for sums, _ in pooled]),
        np.column_stack([counts for _, counts in pooled]),
        resamples=resamples,
        generator=stream(seed, "bootstrap"),
    )
    column = 0
    models: dict[str, Any] = {}
    for (model, mode), samples in measured.items():
        entry: dict[str, Any] = _counted(lists[model, mode])
        for part, ratios_of_part in samples[0].items():
            entry[part] = {
                name: asdict(ratios.estimate(column + place))
                for place, name in enumerate(ratios_of_part.names)
            }
            column += len(ratios_of_part.names)
        if mode == "sampled":
            entry["over_samples"] = _over_samples(samples)
        models.setdefault(model, {})[mode] = entry
    return {
        "k": k,
        "clients": len(queries),
        "queries": sum(len(held_out) for held_out in gold),
        "models": models,
    }


def _measures(
    lists: Sequence[ClientList], gold: Sequence[Sequence[str]], k: int
) -> dict[str, ClientRatios]:
    items = [client.parsed.items for client in lists]
    return {
        "rates": list_rates([client.parsed for client in lists]),
        "micro": micro_list_metrics(items, gold, k=k),
        "macro": macro_list_metrics(items, gold, k=k),
    }


def _pooled(samples: Sequence[ClientRatios]) -> tuple[Any, Any]:
    """Add up a client's samples, numerators and denominators alike."""
    return (
        np.sum([sample.sums for sample in samples], axis=0),
        np.sum([sample.counts for sample in samples], axis=0),
    )


def _counted(samples: Samples) -> dict[str, Any]:
    answers = [client for sample in samples for client in sample]
    return {
        "samples": len(samples),
        "failures": sum(client.failed for client in answers),
        "cut_off": sum(not client.finished and not client.failed for client in answers),
    }


def _over_samples(samples: Sequence[Mapping[str, ClientRatios]]) -> dict[str, Any]:
    spread: dict[str, Any] = {}
    for part, first in samples[0].items():
        values = np.array([list(sample[part].values().values()) for sample in samples])
        means = values.mean(axis=0).tolist()
        sds = values.std(axis=0, ddof=1).tolist() if len(samples) > 1 else [None] * len(means)
        spread[part] = {
            name: {"mean": mean, "sd": sd}
            for name, mean, sd in zip(first.names, means, sds, strict=True)
        }
    return spread


def json_lines(lists: Lists) -> str:
    """Return one line of JSON for each list."""
    return "".join(
        # In ASCII, so that no character of an answer ends a line.
        f"{json.dumps(client.record(model, mode, number))}\n"
        for (model, mode), samples in lists.items()
        for number, sample in enumerate(samples, start=1)
        for client in sample
    )


def read_lists(path: Path, queries: Sequence[ClientQueries], *, k: int) -> Lists:
    """Read the written lists of an evaluation; ranked ones are passed over.

    Returns:
        One list for each query in every sample, in the order of the queries.

    Raises:
        RunError: If the file cannot be read, is damaged, or does not answer just these queries.
    """
    by_client = {query.client: query for query in queries}
    lists: dict[tuple[str, Mode], dict[int, dict[str, ClientList]]] = {}
    for place, record in read_records(path, ListRecord):
        if record.mode == "ranked":
            continue
        query = by_client.get(record.client)
        if query is None:
            raise RunError(
                f"{place}: client {record.client!r} is none of those that are asked now; name the "
                "people that the answers were written for with --data, as then"
            )
        samples = lists.setdefault((record.model, record.mode), {})
        sample = samples.setdefault(record.sample, {})
        if record.client in sample:
            raise RunError(
                f"{place}: client {record.client!r} stands twice in a sample; {record.advice}"
            )
        sample[record.client] = ClientList.of(record, query, k)
    for (model, mode), samples in lists.items():
        for sample in samples.values():
            if missing := sorted(by_client.keys() - sample.keys()):
                raise RunError(
                    f"{path}: {len(missing)} of {len(queries)} clients have no answer of {model}, "
                    f"{mode}, one is {missing[0]!r}; {ListRecord.advice}"
                )
    if not lists:
        raise RunError(f"{path}: must hold written answers, has none; {ListRecord.advice}")
    return {
        key: [[samples[number][query.client] for query in queries] for number in sorted(samples)]
        for key, samples in lists.items()
    }


def newest_answers(run: Path) -> Path:
    """Return the lists of the evaluation of a run with the highest number.

    Raises:
        RunError: If there are none.
    """
    places = [path for path in run.glob(f"evaluations/*/{ANSWERS}") if path.parent.name.isdecimal()]
    if not places:
        raise RunError(
            f"{run / 'evaluations'}: no evaluation holds {ANSWERS}, the answers to score; run "
            "pkgllm evaluate --protocol lists first, or name a file with --answers"
        )
    return max(places, key=lambda path: int(path.parent.name))
