import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.run_files import Finished, files_below, read_json
from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.corpora.population import Population
from pkgllm.errors import DataError, LeakError, RunError
from pkgllm.evaluation.lists.legacy import leaky_prompts, legacy_results
from pkgllm.evaluation.lists.lists import TitleLinker, read_list
from pkgllm.evaluation.lists.results import ClientList, Lists, newest_answers, read_lists
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline.build import (
    audit_queries,
    make_queries,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.pipeline.evaluate import evaluate_run, rescore_answers
from pkgllm.progress import Silent
from pkgllm.prompts.audit import audit_prompt

pytest_plugins = ["helpers.finished_runs"]

SHORT = "evaluation.lists={max_new_tokens: 8, samples: 2}"


@pytest.fixture(scope="module")
def listed(run_in: Callable[[str], Finished], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one evaluation of lists; copied before it is changed."""
    run = tmp_path_factory.mktemp("listed") / "run"
    shutil.copytree(run_in("federated")[1], run)
    evaluate_run(run, Silent(), protocol="lists", overrides=[SHORT])
    return run


@pytest.fixture
def own(listed: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(listed, run)
    return run


def asked(run: Path) -> tuple[Experiment, Population, tuple[ClientQueries, ...]]:
    config = load_config(str(run / "config.yaml"))
    population = populate(config, read_corpus(config))
    return config, population, make_queries(config, population)


def answers_of(run: Path) -> Path:
    return run / "evaluations" / "001" / "lists.jsonl"


@pytest.mark.slow
def test_stored_answers_have_their_honest_numbers_again(own: Path) -> None:
    before = files_below(own)
    report = rescore_answers(own)
    lists = read_json(own / "evaluations" / "001" / "lists.json")
    honest = report.results["honest"]
    assert (honest["clients"], honest["queries"]) == (12, 24)
    for model in ("tuned", "base"):
        for mode in ("greedy", "constrained", "sampled"):
            # Every digit of values and intervals.
            assert honest["models"][model][mode] == lists["models"][model][mode]
        assert set(honest["models"][model]) == {"greedy", "constrained", "sampled"}
    assert set(honest["models"]) == {"tuned", "base"}
    after = files_below(own)
    assert {name: after[name] for name in before} == before
    assert {Path(name).name for name in after.keys() - before.keys()} == {
        "config.yaml",
        "provenance.json",
        "legacy.json",
        "legacy.md",
    }
    assert report.folder == own / "evaluations" / "002"


@pytest.mark.slow
def test_inflated_numbers_are_said_to_be_so_wherever_they_stand(own: Path) -> None:
    report = rescore_answers(own)
    assert report.title.startswith(
        "INFLATED, no result, because answers without a list are left out and parts of titles match"
    )
    text = (report.folder / "legacy.md").read_text(encoding="utf-8")
    assert text.startswith(f"## {report.title}\n")
    written = read_json(report.folder / "legacy.json")
    assert written["inflated_numbers_no_result"] is True
    assert written["answers_in_prompts"] is False
    assert written["title"] == report.title
    # Greedy answers of eight random tokens are all cut off, and count for nobody.
    greedy = written["inflated"]["tuned"]["greedy"]
    assert (greedy["answers"], greedy["scored"], greedy["precision"]) == (12, 0, 0)
    assert written["inflated"]["tuned"]["constrained"]["scored"] == 12
    assert written["inflated"]["tuned"]["sampled"]["answers"] == 24
    digests = read_json(report.folder / "provenance.json")["digests"]
    assert set(digests) == {"answers", *read_json(own / "provenance.json")["digests"]}


def test_a_sequel_counts_in_the_published_way_only_and_silence_is_left_out(own: Path) -> None:
    _, population, queries = asked(own)
    catalogue = population.corpus.catalogue
    linker = TitleLinker(catalogue)

    def answer(query: ClientQueries, text: str, *, finished: bool = True) -> ClientList:
        found = read_list(text, linker, visible=query.graph.tails, k=10)
        return ClientList(query.client, text, finished, failed=False, parsed=found)

    first, second, third, *others = queries
    goal = catalogue[first.held_out[0]].name
    lists: Lists = {
        ("tuned", "greedy"): [
            [
                answer(first, f"{goal.rpartition(' ')[0]} Returns (1999)\nNothing of the kind"),
                answer(second, catalogue[second.held_out[0]].name, finished=False),
                ClientList.failure(third.client),
                *(answer(query, "") for query in others),
            ]
        ]
    }
    results = legacy_results(catalogue, queries, lists, k=10, resamples=100, seed=0)
    inflated = results["inflated"]["tuned"]["greedy"]
    assert (inflated["answers"], inflated["scored"], inflated["lines"]) == (12, 1, 2)
    assert (inflated["precision"], inflated["recall"]) == (1 / 2, 1 / 2)
    assert (inflated["hits@1"], inflated["mrr"]) == (1, 1)
    honest = results["honest"]["models"]["tuned"]["greedy"]
    # The answer that was cut off names its goal, which counts once of 24.
    assert honest["micro"]["recall@10"]["value"] == pytest.approx(1 / 24)
    assert honest["rates"]["answer_rate"]["value"] == pytest.approx(2 / 12)
    assert (honest["failures"], honest["cut_off"]) == (1, 1)


def test_the_newest_answers_are_those_with_the_highest_number(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        newest_answers(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'evaluations'}: no evaluation holds lists.jsonl, the answers to score; run "
        "pkgllm evaluate --protocol lists first, or name a file with --answers"
    )
    for name in ("9", "10", "002", "other"):
        (tmp_path / "evaluations" / name).mkdir(parents=True)
        (tmp_path / "evaluations" / name / "lists.jsonl").touch()
    (tmp_path / "evaluations" / "11").mkdir()
    assert newest_answers(tmp_path) == tmp_path / "evaluations" / "10" / "lists.jsonl"


def drop_line(lines: list[str]) -> None:
    lines.pop(3)


def cut_line(lines: list[str]) -> None:
    lines[2] = lines[2][:-9]


def repeat_line(lines: list[str]) -> None:
    lines.append(lines[0])


def edit(**changes: Any) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        lines[1] = json.dumps({**json.loads(lines[1]), **changes})

    return change


def keep_ranked(lines: list[str]) -> None:
    lines[:] = [line for line in lines if json.loads(line)["mode"] == "ranked"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_line, "1 of 12 clients have no answer of tuned, greedy, one is '03'"),
        (cut_line, "line 3: must be JSON"),
        (repeat_line, "client '00' stands twice"),
        (edit(client="nobody"), "line 2: client 'nobody' is none of those that are asked now"),
        (edit(client=None), "line 2: client: must be a valid string"),
        (edit(mode="guessed"), "line 2: mode: must be 'greedy', 'constrained'"),
        (edit(text=None), "line 2: text must be the answer that was written"),
        (edit(linked=[1]), "line 2: linked.0: must be a valid string"),
        (edit(lines=1, linked=["a", "b"]), "line 2: lines must be at least 2"),
        (edit(finished="yes"), "line 2: finished: must be a valid boolean"),
        (lambda lines: lines.insert(0, "[]"), "line 1: it must be a JSON object"),
        (keep_ranked, "must hold written answers, has none"),
        (list.clear, "must hold written answers, has none"),
    ],
)
def test_damaged_answers_are_refused_and_nothing_is_written(
    own: Path, damage: Callable[[list[str]], None], message: str
) -> None:
    lines = answers_of(own).read_text(encoding="utf-8").splitlines()
    damage(lines)
    answers_of(own).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    before = files_below(own)
    with pytest.raises(RunError) as caught:
        rescore_answers(own)
    assert str(caught.value).startswith(f"{answers_of(own)}: ")
    assert message in str(caught.value)
    assert files_below(own) == before


def test_answers_that_are_no_text_are_refused(own: Path) -> None:
    answers_of(own).write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="must be text in UTF-8"):
        rescore_answers(own)


def test_answers_come_back_in_the_order_of_the_queries(own: Path) -> None:
    _, _, queries = asked(own)
    lines = answers_of(own).read_text(encoding="utf-8").splitlines()
    first = read_lists(answers_of(own), queries, k=10)
    answers_of(own).write_text("\n".join(reversed(lines)), encoding="utf-8")
    again = read_lists(answers_of(own), queries, k=10)
    assert dict(again) == dict(first)
    assert [len(samples) for samples in first.values()] == [1, 1, 2, 1, 1, 2]


@pytest.mark.slow
def test_answers_to_other_people_need_those_people(
    run_in: Callable[[str], Finished], other_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_in("centralized")[1], run)
    evaluate_run(run, Silent(), data=other_data, protocol="lists", overrides=[SHORT])
    with pytest.raises(DataError, match="written for other data; name those people with --data"):
        rescore_answers(run)
    report = rescore_answers(run, data=other_data)
    lists = read_json(run / "evaluations" / "001" / "lists.json")
    assert report.results["honest"]["models"]["base"] == {
        mode: found for mode, found in lists["models"]["base"].items() if mode != "ranked"
    }


def test_leaky_prompts_hold_the_answers_and_the_audit_refuses_each(
    run_in: Callable[[str], Finished],
) -> None:
    config, path, _ = run_in("federated")
    _, population, queries = asked(path)
    base = load_base_model(config.base_model.name, device="cpu")
    writer = make_writer(config.prompt, base)
    catalogue = population.corpus.catalogue
    audit_queries(queries, writer, catalogue, "test")
    for part in ("test", "validation"):
        own = make_queries(
            config.model_copy(
                update={"evaluation": config.evaluation.model_copy(update={"part": part})}
            ),
            population,
        )
        for query, prompt in zip(
            own, leaky_prompts(population.splits, own, writer, part), strict=True
        ):
            assert prompt.client == query.client
            assert all(catalogue[item].name in prompt.text for item in query.held_out)
            with pytest.raises(LeakError):
                audit_prompt(prompt, query.held_out, catalogue, place="test prompt")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["federated", "local"])
def test_the_leak_is_asked_for_by_name_and_kept_apart(
    run_in: Callable[[str], Finished], tmp_path: Path, mode: str
) -> None:
    _, path, report = run_in(mode)
    output = tmp_path / "leak"
    (found,) = evaluate_run(
        path, Silent(), protocol="legacy-leak", overrides=[SHORT], output=output
    )
    assert {entry.name for entry in output.iterdir()} == {
        "config.yaml",
        "provenance.json",
        "legacy.json",
        "legacy.jsonl",
        "legacy.md",
    }
    assert found.title.startswith("INFLATED, no result, because the prompts hold the answers, ")
    assert not [note for note in found.notes if "strictly earlier" in note]
    assert set(found.results["inflated"]["tuned"]) == {"greedy", "sampled"}
    assert read_json(output / "legacy.json")["answers_in_prompts"] is True
    rows = [json.loads(line) for line in (output / "legacy.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 2 * 12
    # Answers to leaky prompts are never taken for others.
    with pytest.raises(RunError, match=r"must be a file lists\.jsonl that"):
        rescore_answers(path, answers=output / "legacy.jsonl", output=tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert report.results == {
        key: value
        for key, value in read_json(path / "results.json").items()
        if key not in ("notes", "privacy")
    }


@pytest.mark.slow
def test_no_ordinary_protocol_speaks_of_inflated_numbers(listed: Path, tmp_path: Path) -> None:
    evaluate_run(listed, Silent(), protocol="all", overrides=[SHORT], output=tmp_path / "all")
    for folder in (listed / "evaluations" / "001", tmp_path / "all"):
        for name, content in files_below(folder).items():
            assert "legacy" not in name
            # Provenance holds the command, which may name anything.
            if name != "provenance.json":
                assert b"legacy" not in content.lower()
                assert b"inflated" not in content.lower()
