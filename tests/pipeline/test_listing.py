import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.run_files import Finished, files_below, predictions, read_json
from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.corpora.population import Population
from pkgllm.errors import ConfigError
from pkgllm.evaluation.lists.asker import ListAsker
from pkgllm.evaluation.lists.free_text import Answer
from pkgllm.evaluation.lists.generation import ListDecoder
from pkgllm.evaluation.lists.lists import TitleLinker, read_list
from pkgllm.evaluation.lists.results import ClientList, Lists, list_results
from pkgllm.evaluation.scorer import ClientQueries, candidate_mask
from pkgllm.lm.adapter import attach_adapter, load_adapter, load_adapter_state, read_adapter_state
from pkgllm.lm.base_model import BaseModel, load_base_model
from pkgllm.pipeline.build import (
    make_queries,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.pipeline.evaluate import evaluate_run, make_asker
from pkgllm.progress import Silent
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.randomness import torch_seed
from pkgllm.runs.folder import client_adapter

pytest_plugins = ["helpers.finished_runs"]


@dataclass(frozen=True)
class Asked:
    """All that a test needs to ask by hand."""

    config: Experiment
    run: Path
    base: BaseModel
    policy: PeftModel
    writer: PromptWriter
    population: Population
    queries: tuple[ClientQueries, ...]
    prompts: list[Prompt]

    def asker(self) -> ListAsker:
        return make_asker(
            self.config,
            self.run,
            self.base,
            self.policy,
            self.writer,
            self.population,
            self.queries,
            self.prompts,
        )

    def decoder(self, *, with_adapter: bool) -> ListDecoder:
        return ListDecoder(
            self.policy,
            max_positions=self.base.max_positions,
            with_adapter=with_adapter,
        )

    def text(self, answer: Answer) -> str:
        ids = list(answer.token_ids)
        found = self.base.tokenizer.decode(ids, skip_special_tokens=True)
        assert isinstance(found, str)
        return found

    @property
    def terminator(self) -> int:
        found = self.base.tokenizer.eos_token_id
        assert isinstance(found, int)
        return found


def asked_of(config: Experiment, run: Path | None = None) -> Asked:
    """Ask a finished run, or a base model under an adapter that disturbs it."""
    population = populate(config, read_corpus(config))
    base = load_base_model(config.base_model.name, device="cpu")
    if run is None:
        policy = attach_adapter(
            base.model, lora_rank=2, lora_alpha=8, target_modules="all-linear", seed=0
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.2, generator=generator)
    else:
        policy = load_adapter(base.model, run / "adapter")
    writer = make_writer(config.prompt, base)
    queries = make_queries(config, population)
    prompts = [writer.write(q.graph) for q in queries]
    place = run or Path("none")
    return Asked(config, place, base, policy, writer, population, queries, prompts)


@pytest.fixture(scope="module")
def small_world() -> Asked:
    """The shipped base model, which writes titles."""
    overrides = [
        "evaluation.max_clients=5",
        "evaluation.lists={k: 4, max_new_tokens: 24, samples: 2, prompts_at_once: 2}",
        "base_model.device=cpu",
    ]
    return asked_of(load_config("quickstart.yaml", overrides))


@pytest.fixture(scope="module")
def answered(small_world: Asked) -> Lists:
    return small_world.asker().ask({"greedy": 1, "constrained": 1, "sampled": 2}, Silent())


@pytest.mark.slow
def test_every_model_is_asked_in_every_mode(small_world: Asked, answered: Lists) -> None:
    assert list(answered) == [
        (model, mode)
        for model in ("tuned", "base")
        for mode in ("greedy", "constrained", "sampled")
    ]
    for (_, mode), samples in answered.items():
        assert len(samples) == (2 if mode == "sampled" else 1)
        for sample in samples:
            assert [found.client for found in sample] == [q.client for q in small_world.queries]
            assert not any(found.failed for found in sample)


@pytest.mark.slow
def test_the_base_model_is_asked_only_where_it_is_wanted(
    small_world: Asked, answered: Lists
) -> None:
    choice = small_world.config.evaluation.model_copy(update={"base_model": False})
    config = small_world.config.model_copy(update={"evaluation": choice})
    found = replace(small_world, config=config).asker().ask({"greedy": 1}, Silent())
    assert found == {("tuned", "greedy"): answered["tuned", "greedy"]}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tuned", "base"])
def test_greedy_lists_are_those_of_the_decoder_in_any_company(
    small_world: Asked, answered: Lists, model: str
) -> None:
    decoder = small_world.decoder(with_adapter=model == "tuned")
    linker = TitleLinker(small_world.population.corpus.catalogue)
    (sample,) = answered[model, "greedy"]
    for query, prompt, found in zip(small_world.queries, small_world.prompts, sample, strict=True):
        (answer,) = decoder.greedy([prompt], terminator=small_world.terminator, max_new_tokens=24)
        text = small_world.text(answer)
        assert (found.text, found.finished) == (text, answer.finished)
        assert found.parsed == read_list(text, linker, visible=query.graph.tails, k=4)
    if model == "base":
        # The base model has learnt titles, so the lists are no empty matter.
        assert any(found.parsed.linked for found in sample)


def test_the_adapter_changes_what_is_written(answered: Lists) -> None:
    for mode in ("greedy", "constrained", "sampled"):
        texts = [
            [found.text for sample in samples for found in sample]
            for (_, own), samples in answered.items()
            if own == mode
        ]
        assert texts[0] != texts[1]


def test_constrained_lists_hold_k_candidates_under_their_own_names(
    small_world: Asked, answered: Lists
) -> None:
    catalogue = small_world.population.corpus.catalogue
    linker = TitleLinker(catalogue)
    for model in ("tuned", "base"):
        (sample,) = answered[model, "constrained"]
        for query, found in zip(small_world.queries, sample, strict=True):
            assert found.finished
            assert len(set(found.parsed.items)) == 4
            mask = candidate_mask(catalogue, query)
            assert all(mask[catalogue.index_by_id[item]] for item in found.parsed.items)
            lines = (found.text or "").split("\n")
            assert [linker.link(line) for line in lines] == list(found.parsed.items)


@pytest.mark.slow
def test_samples_differ_and_come_again_whoever_else_is_asked(
    small_world: Asked, answered: Lists
) -> None:
    first, second = answered["base", "sampled"]
    texts = [[found.text for found in sample] for sample in (first, second)]
    assert texts[0] != texts[1]
    part = replace(small_world, queries=small_world.queries[3:], prompts=small_world.prompts[3:])
    again = part.asker().ask({"sampled": 2}, Silent())["base", "sampled"]
    assert [[found.text for found in sample] for sample in again] == [text[3:] for text in texts]


@pytest.mark.slow
def test_who_cannot_be_answered_gets_an_empty_list_and_nobody_else_does(
    small_world: Asked, answered: Lists, caplog: pytest.LogCaptureFixture
) -> None:
    failing = 3
    prompt = torch.tensor(small_world.prompts[failing].token_ids)

    def diverge(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (input_ids,) = arguments
        for row, ids in enumerate(input_ids):
            if len(ids) >= len(prompt) and bool((ids[-len(prompt) :] == prompt).all()):
                output = output.clone()
                output[row] = torch.nan
        return output

    hook = small_world.policy.get_input_embeddings().register_forward_hook(diverge)
    try:
        lists = small_world.asker().ask({"greedy": 1, "constrained": 1}, Silent())
    finally:
        hook.remove()
    client = small_world.queries[failing].client
    for key, (sample,) in lists.items():
        assert sample[failing] == ClientList.failure(client)
        (usual,) = answered[key]
        assert [*sample[:failing], *sample[failing + 1 :]] == [
            *usual[:failing],
            *usual[failing + 1 :],
        ]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4
    assert messages[0].startswith(f"tuned, greedy: the list of client {client!r} counts as empty:")
    results = list_results(lists, small_world.queries, k=4, resamples=100, seed=0)
    assert results["models"]["tuned"]["constrained"]["failures"] == 1
    assert results["models"]["tuned"]["constrained"]["rates"]["answer_rate"]["value"] == 4 / 5
    golds = sum(len(query.held_out) for query in small_world.queries)
    assert results["queries"] == golds


@pytest.mark.slow
def test_progress_counts_every_list(small_world: Asked) -> None:
    class Counting(Silent):
        total = done = 0

        def track(self, description: str, total: int) -> Any:
            assert description == "writing lists"
            self.total = total

            def advance(detail: str = "") -> None:
                self.done += 1

            return nullcontext(advance)

    counting = Counting()
    small_world.asker().ask({"greedy": 1, "sampled": 1}, counting)
    assert counting.done == counting.total == 2 * 2 * 5


def test_an_answer_that_does_not_fit_is_refused_before_anything_is_written(
    run_in: Callable[[str], Finished], tmp_path: Path
) -> None:
    _, path, _ = run_in("federated")
    overrides = ["evaluation.lists={max_new_tokens: 1000}"]
    with pytest.raises(ConfigError) as caught:
        evaluate_run(path, Silent(), protocol="lists", overrides=overrides, output=tmp_path / "o")
    message = str(caught.value)
    assert message.startswith("evaluation.lists.max_new_tokens: a list must fit behind the longest")
    assert message.endswith("may take 1000 tokens; lower evaluation.lists.max_new_tokens")
    assert not (tmp_path / "o").exists()


def test_so_is_a_list_of_titles(small_world: Asked) -> None:
    positions = small_world.base.max_positions
    long = [replace(p, token_ids=(5,) * (positions - 25)) for p in small_world.prompts]
    with pytest.raises(ConfigError, match=r"^evaluation\.lists\.k: .* lower evaluation\.lists\.k$"):
        replace(small_world, prompts=long).asker()


@pytest.mark.slow
def test_in_mode_local_each_client_is_answered_by_its_own_adapter(
    run_in: Callable[[str], Finished], tmp_path: Path
) -> None:
    _, path, _ = run_in("local")
    run = tmp_path / "run"
    shutil.copytree(path, run)
    config = load_config(str(run / "config.yaml"), ["evaluation.lists={k: 3, max_new_tokens: 20}"])
    broken = next(iter(sorted((run / "adapters").iterdir())))
    weights = load_file(broken / "adapter_model.safetensors")
    save_file(
        {name: torch.full_like(values, torch.nan) for name, values in weights.items()},
        broken / "adapter_model.safetensors",
    )
    asked = asked_of(config, run)
    lists = asked.asker().ask({"constrained": 1, "sampled": 1}, Silent())
    (tuned,), (base,) = lists["tuned", "constrained"], lists["base", "constrained"]
    trained = {split.client for split in asked.population.in_training}
    changed = 0
    for query, prompt, own, usual in zip(asked.queries, asked.prompts, tuned, base, strict=True):
        folder = client_adapter(run, query.client)
        if query.client not in trained:
            assert own == usual
        elif folder == broken:
            assert own == ClientList.failure(query.client)
        else:
            load_adapter_state(asked.policy, read_adapter_state(folder))
            (answer,) = asked.decoder(with_adapter=True).sampled(
                [prompt],
                terminator=asked.terminator,
                max_new_tokens=config.evaluation.lists.max_new_tokens,
                seed=torch_seed(config.seed, "sampled_lists", 1),
            )
            text = asked.text(answer)
            (sample,) = lists["tuned", "sampled"]
            assert sample[asked.queries.index(query)].text == text
            changed += own != usual
    assert changed > 0


@pytest.mark.slow
def test_all_protocols_together_rank_as_ever_in_every_mode(
    finished: Finished, tmp_path: Path
) -> None:
    _, path, report = finished
    before = files_below(path)
    overrides = ["evaluation.lists={max_new_tokens: 8, samples: 1}"]
    ranks, lists = evaluate_run(
        path, Silent(), protocol="all", overrides=overrides, output=tmp_path / "all"
    )
    assert files_below(path) == before
    assert (ranks.name, ranks.results) == ("results", report.results)
    assert lists.name == "lists"
    assert {entry.name for entry in (tmp_path / "all").iterdir()} == {
        "config.yaml",
        "provenance.json",
        "predictions.jsonl",
        "results.json",
        "results.md",
        "lists.jsonl",
        "lists.json",
        "lists.md",
    }
    written = read_json(tmp_path / "all" / "lists.json")
    assert written["models"] == lists.results["models"]
    assert written["notes"] == list(report.notes)
    modes = {model: list(found) for model, found in written["models"].items()}
    language = ["greedy", "constrained", "sampled", "ranked"]
    assert modes == {
        "tuned": language,
        "base": language,
        **{name: ["ranked"] for name in ("popularity", "item_knn", "ease")},
    }
    # The reference rows are the lists of the predictions: two of 24 films each, ten in a list.
    for model in modes:
        rows = predictions(tmp_path / "all")
        hits = sum(len({*row["held_out"]} & {*row["models"][model]["top"]}) for row in rows)
        micro = written["models"][model]["ranked"]["micro"]
        assert micro["recall@10"]["value"] == pytest.approx(hits / 24)
        assert micro["precision@10"]["value"] == pytest.approx(hits / 120)
