import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from helpers.run_files import MODES, Finished, files_below, predictions, read_json
from helpers.tiny_corpus import CLIENTS, tiny_experiment
from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.errors import DataError, LeakError
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.graph.rdf import read_graph
from pkgllm.lm.adapter import attach_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline import build as assembly
from pkgllm.pipeline import trainers
from pkgllm.pipeline.build import build_groups, make_writer, populate, read_corpus
from pkgllm.pipeline.evaluate import evaluate_run
from pkgllm.pipeline.train import build_data, train
from pkgllm.progress import Silent
from pkgllm.prompts.groups import Group
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.observer import TENSORBOARD
from pkgllm.training.log_probabilities import completion_log_probabilities, pack_branches

pytest_plugins = ["helpers.finished_runs"]

METRICS = {"hits@1", "hits@3", "hits@10", "hits@50", "mrr", "adjusted_mrr", "ndcg@10"}
MODELS = ("tuned", "base", "popularity", "item_knn", "ease")
FILES = {
    "config.yaml",
    "provenance.json",
    "split.json",
    "partition.json",
    "liked_in_training.json",
    "metrics.jsonl",
    "timings.jsonl",
    "checkpoints",
    "tensorboard",
    "adapter",
    "predictions.jsonl",
    "results.json",
    "results.md",
}


def test_every_mode_writes_a_whole_run(finished: Finished) -> None:
    config, path, report = finished
    extra = {"adapters"} if config.mode.name == "local" else set()
    assert {entry.name for entry in path.iterdir()} == FILES | extra
    assert load_config(str(path / "config.yaml")) == config
    assert (path / "results.md").read_text(encoding="utf-8").count("tuned") > 0
    provenance = read_json(path / "provenance.json")
    assert provenance["seed"] == 7
    assert {"split", "base_model", "train_data.jsonl"} <= set(provenance["digests"])
    split = read_json(path / "split.json")
    assert sorted(split["clients"]) == list(CLIENTS)
    assert provenance["digests"]["split"] == split["digest"]
    assert report.folder == path
    assert len(predictions(path)) == 12


def test_the_results_have_the_promised_form(finished: Finished) -> None:
    _, path, report = finished
    results = read_json(path / "results.json")
    assert {key: results[key] for key in report.results} == json.loads(json.dumps(report.results))
    # Two of ten liked films are held out of each of twelve clients.
    assert (results["queries"], results["clients"]) == (24, 12)
    assert tuple(results["models"]) == MODELS
    for model in MODELS:
        assert set(results["models"][model]) == METRICS
        for metric, found in results["models"][model].items():
            low, value, high = found["low"], found["value"], found["high"]
            assert low <= value <= high <= 1
            assert low >= 0 or metric == "adjusted_mrr"
        assert set(results["deciles"][model]) == {"hits@10", "mrr"}
    assert list(results["paired"]) == [f"{one}-{two}" for one, two in combinations(MODELS, 2)]
    for pair, metrics in results["paired"].items():
        first, second = pair.split("-")
        for metric, found in metrics.items():
            assert found["low"] <= found["difference"] <= found["high"]
            models = results["models"]
            assert found["difference"] == pytest.approx(
                models[first][metric]["value"] - models[second][metric]["value"]
            )
    assert (results["seen"]["clients"], results["unseen"]["clients"]) == (10, 2)
    # The numbers are those of the predictions.
    ranks = [rank for row in predictions(path) for rank in row["models"]["tuned"]["ranks"]]
    assert results["models"]["tuned"]["mrr"]["value"] == pytest.approx(
        sum(1 / rank for rank in ranks) / 24
    )


def test_metrics_tell_what_each_mode_did(finished: Finished) -> None:
    config, path, _ = finished
    records = RunFolder.open(path).read_metrics()
    if config.mode.name == "local":
        split = read_json(path / "split.json")["clients"]
        trained = [client for client in split if split[client]["seen_in_training"]]
        assert [record["client"] for record in records] == sorted(trained)
        return
    assert [record["round_num"] for record in records] == [1, 2]
    # Falling linearly over two rounds.
    assert [record["learning_rate"] for record in records] == [0.02, 0.01]
    if config.mode.name == "federated":
        for record in records:
            assert len(record["cohort"]) == 2  # type: ignore[arg-type]
            assert record["failed"] == {}
            assert record["update_norm"] > 0  # type: ignore[operator]
            for name in ("update_norms", "update_cosines"):
                assert set(record[name]) == {"mean", "min", "max", "sd"}  # type: ignore[call-overload]
            # A loss is private, and nothing said that it may leave.
            assert not {"loss", "num_groups"} & set(record)


def test_the_tuned_model_is_another_one(finished: Finished) -> None:
    _, path, _ = finished
    seen = [row for row in predictions(path) if row["seen_in_training"]]
    assert any(row["models"]["tuned"] != row["models"]["base"] for row in seen)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    config, path, _ = finished
    again = tmp_path / "again"
    train(config, again, Silent())
    shutil.rmtree(again / TENSORBOARD)
    ours, theirs = files_below(path), files_below(again)
    assert {name.split("/")[0] for name in ours.keys() ^ theirs.keys()} <= {TENSORBOARD}
    ours = {name: ours[name] for name in theirs}
    # Dates, and what a round took.
    changing = {"provenance.json", "timings.jsonl"}
    assert {name for name in ours if ours[name] != theirs[name]} <= changing


@pytest.mark.slow
def test_another_seed_gives_another_adapter(
    run_in: Callable[[str], Finished], tmp_path: Path
) -> None:
    config, path, _ = run_in("federated")
    train(config.model_copy(update={"seed": 8}), tmp_path / "other", Silent())
    one, other = (
        (run / "adapter" / "adapter_model.safetensors").read_bytes()
        for run in (path, tmp_path / "other")
    )
    assert one != other


@pytest.mark.slow
def test_evaluating_a_run_again_gives_its_own_numbers(finished: Finished, tmp_path: Path) -> None:
    _, path, report = finished
    before = files_below(path)
    (again,) = evaluate_run(path, Silent(), output=tmp_path / "again")
    assert files_below(path) == before
    assert again.results == report.results
    assert (again.title, again.notes) == (report.title, report.notes)
    for name in ("results.json", "results.md", "predictions.jsonl", "config.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == before[name]


@pytest.mark.slow
def test_the_base_model_is_asked_only_where_it_is_wanted(
    run_in: Callable[[str], Finished], tmp_path: Path
) -> None:
    config, path, report = run_in("federated")
    choice = config.evaluation.model_copy(update={"base_model": False})
    alone = train(config.model_copy(update={"evaluation": choice}), tmp_path / "run", Silent())
    expected = {name: of for name, of in report.results["models"].items() if name != "base"}
    assert {"base", "tuned"} <= report.results["models"].keys()
    assert alone.results["models"] == expected
    assert [line["models"]["tuned"] for line in predictions(tmp_path / "run")] == [
        line["models"]["tuned"] for line in predictions(path)
    ]


@pytest.mark.slow
def test_evaluations_are_numbered_below_the_run(
    run_in: Callable[[str], Finished], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_in("federated")[1], run)
    names = [report.folder for _ in range(2) for report in evaluate_run(run, Silent())]
    assert names == [run / "evaluations" / "001", run / "evaluations" / "002"]


@pytest.mark.slow
def test_the_clients_of_another_folder_are_all_unseen(
    finished: Finished, other_data: Path, tmp_path: Path
) -> None:
    config, path, _ = finished
    output = tmp_path / "others"
    (report,) = evaluate_run(path, Silent(), data=other_data.parent, output=output)
    assert (report.results["clients"], report.results["unseen"]["clients"]) == (12, 12)
    rows = predictions(tmp_path / "others")
    assert not any(row["seen_in_training"] for row in rows)
    assert [row["held_out"] for row in rows] != [row["held_out"] for row in predictions(path)]
    changed = any(row["models"]["tuned"] != row["models"]["base"] for row in rows)
    # These people have the ids of those who trained, and must not get their adapters.
    assert changed == (config.mode.name != "local")


@pytest.mark.slow
def test_changed_data_are_refused(data: Path, tiny_base_folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "data"
    shutil.copytree(data, own)
    run = tmp_path / "run"
    train(tiny_experiment(own, tiny_base_folder), run, Silent())
    dialogues = own / "train_data.jsonl"
    lines = dialogues.read_text(encoding="utf-8").splitlines(keepends=True)
    dialogues.write_text("".join(lines[:-1]), encoding="utf-8")
    before = files_below(run)
    with pytest.raises(DataError) as caught:
        evaluate_run(run, Silent())
    assert str(caught.value) == (
        f"{run}: the data have changed since the run was trained, so its held-out facts may have "
        "been trained on; restore the data, or name other people's with --data"
    )
    assert files_below(run) == before


class Leaky(PromptWriter):
    """Tells of the last film that a client likes."""

    answers: Mapping[str, str]

    def write(self, graph: PersonalGraph) -> Prompt:
        prompt = super().write(graph)
        held_out = self.answers[graph.owner]
        facts_text = f"{prompt.facts_text} The user liked: {held_out}."
        return replace(prompt, facts_text=facts_text, text=f"{prompt.text}{facts_text}")


def answers(config: Experiment) -> dict[str, str]:
    return {s.client: s.test[-1].name for s in populate(config, read_corpus(config)).splits}


@pytest.mark.parametrize("mode", sorted(MODES))
def test_a_leak_ends_the_run_before_it_trains(
    mode: str,
    data: Path,
    tiny_base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_experiment(data, tiny_base_folder, mode=MODES[mode])
    known = answers(config)

    def make_leaky(choice: Any, base: Any) -> PromptWriter:
        writer = Leaky(base.tokenizer, **asdict(choice))
        writer.answers = known
        return writer

    monkeypatch.setattr(trainers, "make_writer", make_leaky)
    with pytest.raises(LeakError) as caught:
        train(config, tmp_path / "run", Silent())
    assert str(caught.value).startswith(
        f"leak audit: the test prompt of client '00' holds the held-out item {known['00']!r}"
    )
    assert list((tmp_path / "run").iterdir()) == []


def test_a_leak_ends_an_evaluation_too(run_in: Callable[[str], Finished], tmp_path: Path) -> None:
    config, path, _ = run_in("federated")
    run = tmp_path / "run"
    shutil.copytree(path, run)
    title = answers(config)["03"][:-7]
    text = (run / "config.yaml").read_text(encoding="utf-8")
    assert text.count("request: Recommend movies to me.") == 1
    (run / "config.yaml").write_text(
        text.replace("Recommend movies to me.", f"Something like {title}"), encoding="utf-8"
    )
    # Otherwise the edited configuration is refused first.
    made = read_json(run / "provenance.json")
    del made["configuration"]
    (run / "provenance.json").write_text(json.dumps(made), encoding="utf-8")
    with pytest.raises(LeakError, match=rf"holds the held-out item '{title} \("):
        evaluate_run(run, Silent(), output=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_in_mode_local_strangers_are_ranked_without_an_adapter(
    run_in: Callable[[str], Finished],
) -> None:
    _, run, _ = run_in("local")
    rows = predictions(run)
    unseen = [row["models"] for row in rows if not row["seen_in_training"]]
    assert len(unseen) == 2
    assert all(models["tuned"] == models["base"] for models in unseen)


def log_probabilities(policy: PeftModel, groups: Sequence[Group]) -> torch.Tensor:
    branches = [(group, group.completions) for group in groups]
    with torch.no_grad():
        return completion_log_probabilities(policy, pack_branches(branches, policy.device))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["federated", "centralized"])
def test_peft_loads_the_adapter_and_finds_the_same_log_probabilities(
    mode: str, data: Path, tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_experiment(data, tiny_base_folder, mode=MODES[mode])
    policies: list[PeftModel] = []

    def keep(*arguments: Any, **more: Any) -> PeftModel:
        policies.append(attach_adapter(*arguments, **more))
        return policies[-1]

    monkeypatch.setattr(assembly, "attach_adapter", keep)
    train(config, tmp_path / "run", Silent())
    (trained,) = policies
    base = load_base_model(str(tiny_base_folder), device="cpu")
    population = populate(config, read_corpus(config))
    writer = make_writer(config.prompt, base)
    built = build_groups(config, population, writer, tmp_path / "groups.arrow", Silent())
    assert not (tmp_path / "run" / "groups.arrow").exists(), "private, and nobody needs it now"
    groups = [group for client in sorted(built) for group in built[client]]
    loaded = PeftModel.from_pretrained(base.model, str(tmp_path / "run" / "adapter"))
    found = log_probabilities(loaded, groups)
    torch.testing.assert_close(found, log_probabilities(trained, groups), atol=0, rtol=0)
    with loaded.disable_adapter():
        untuned = log_probabilities(loaded, groups)
    assert (found - untuned).abs().max() > 0.01


def test_build_data_writes_every_graph_and_the_split(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = tiny_experiment(data, tiny_base_folder)
    assert len(build_data(config, tmp_path / "built", Silent()).splits) == 12
    population = populate(config, read_corpus(config))
    for split in population.splits:
        written = read_graph(tmp_path / "built" / "graphs" / f"{split.client}.jsonld")
        assert written == split.graph
    split_file = read_json(tmp_path / "built" / "split.json")
    assert {c: s["test"] for c, s in split_file["clients"].items()} == {
        s.client: [fact.tail for fact in s.test] for s in population.splits
    }


def test_popularity_counts_every_training_client_that_likes_an_item(
    run_in: Callable[[str], Finished],
) -> None:
    config, folder, _ = run_in("centralized")
    population = populate(config, read_corpus(config))
    likes = [
        fact.tail
        for split in population.splits
        if split.seen_in_training
        for fact in split.train_graph.with_relation("liked")
    ]
    assert max(likes.count(item) for item in likes) > 1
    visible = {s.client: s.visible_graph("test").tails for s in population.splits}
    for row in predictions(folder):
        rivals = [
            likes.count(item.id)
            for item in population.corpus.catalogue
            if item.id not in visible[row["client"]] and item.id not in row["held_out"]
        ]
        for item, rank in zip(row["held_out"], row["models"]["popularity"]["ranks"], strict=True):
            own = likes.count(item)
            above, level = sum(r > own for r in rivals), sum(r == own for r in rivals)
            assert rank == 1 + above + level / 2
