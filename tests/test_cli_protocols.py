"""``pkgllm evaluate`` in every protocol, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.command_line import CLIENTS, RUN, Refuse, RunCommand, snapshot

SHORT = ("--set", "evaluation.lists={k: 3, max_new_tokens: 8, samples: 2}")
FIRST, SECOND = (RUN / "evaluations" / number for number in ("001", "002"))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"config.yaml", "provenance.json"}


EXACT = {"predictions.jsonl", "results.json", "results.md"}
LISTS = {"lists.jsonl", "lists.json", "lists.md"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "files"),
    [
        ((), EXACT),
        (("-p", "exact"), EXACT),
        (("-p", "lists"), LISTS),
        (("-p", "all"), EXACT | LISTS),
    ],
    ids=["absent", "exact", "lists", "all"],
)
def test_what_each_protocol_leaves(
    pkgllm: RunCommand, workplace: Path, protocol: tuple[str, ...], files: set[str]
) -> None:
    before = snapshot(RUN)
    done = pkgllm("evaluate", str(RUN), *protocol, *SHORT)
    assert done.code == 0, done.err
    assert names(FIRST) == files
    after = snapshot(RUN)
    assert {name: after[name] for name in before} == before
    if "results.json" in files:
        assert read_json(FIRST / "results.json") == read_json(RUN / "results.json")
        assert f"as JSON:    {FIRST}/results.json" in done.out
    assert ("writing lists: " in done.err) == ("lists.json" in files)
    words = " ".join(done.out.split())
    for piece in ("INFLATED", "inflated", "legacy"):
        assert piece not in words
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.slow
def test_rates_stand_before_precision_and_every_query_counts(
    pkgllm: RunCommand, workplace: Path
) -> None:
    done = pkgllm("evaluate", str(RUN), "--protocol", "lists", *SHORT)
    assert done.code == 0, done.err
    results = read_json(FIRST / "lists.json")
    assert results["clients"] == len(CLIENTS)
    assert results["queries"] == read_json(RUN / "results.json")["queries"]
    for text in (done.out, (FIRST / "lists.md").read_text(encoding="utf-8")):
        places = [
            text.index(piece)
            for piece in ("answer rate", "validity rate", "novelty rate", "mean length", "Micro")
        ]
        assert places == sorted(places)
        assert "precision@3" in text[places[-1] :]
        assert "precision" not in text[: places[0]]
        assert "Sampled lists: mean and SD over 2 samples" in text
    # Eight random tokens name no film: greedy lists are empty, and are misses.
    greedy = results["models"]["tuned"]["greedy"]
    assert greedy["micro"]["recall@3"]["value"] == 0
    assert greedy["cut_off"] == len(CLIENTS)
    assert f"tuned, greedy: {len(CLIENTS)} of {len(CLIENTS)} answers were cut off" in " ".join(
        done.out.split()
    )
    rows = [json.loads(line) for line in (FIRST / "lists.jsonl").open()]
    # Two models in greedy, constrained and twice sampled, five ranked.
    assert len(rows) == len(CLIENTS) * (2 * 4 + 5)
    constrained = [row for row in rows if row["mode"] == "constrained"]
    assert all(len(row["items"]) == row["lines"] == 3 for row in constrained)


@pytest.mark.slow
def test_a_key_of_evaluation_is_set_for_the_evaluation_alone(
    pkgllm: RunCommand, workplace: Path
) -> None:
    before = (RUN / "config.yaml").read_bytes()
    done = pkgllm("evaluate", str(RUN), "--set", "evaluation.max_clients=2")
    assert done.code == 0, done.err
    assert read_json(FIRST / "results.json")["clients"] == 2
    assert (RUN / "config.yaml").read_bytes() == before
    config = yaml.safe_load(before)
    config["evaluation"]["max_clients"] = 2
    (RUN / "config.yaml").write_text(yaml.safe_dump(config))
    done = pkgllm("evaluate", str(RUN), "--set", "evaluation.max_clients=null")
    assert done.code == 0, done.err
    assert read_json(SECOND / "results.json")["clients"] == len(CLIENTS)
    assert yaml.safe_load((SECOND / "config.yaml").read_text())["evaluation"]["max_clients"] is None


@pytest.mark.slow
def test_legacy_scores_the_newest_lists_and_says_that_it_is_no_result(
    pkgllm: RunCommand, workplace: Path
) -> None:
    assert pkgllm("evaluate", str(RUN), "-p", "lists", *SHORT).code == 0
    done = pkgllm("evaluate", str(RUN), "-p", "legacy")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("INFLATED, no result, because ")
    assert max(map(len, done.out.splitlines())) <= 80
    assert names(SECOND) == {"legacy.json", "legacy.md"}
    lists, legacy = read_json(FIRST / "lists.json"), read_json(SECOND / "legacy.json")
    for model in ("tuned", "base"):
        honest = legacy["honest"]["models"][model]
        assert honest == {key: lists["models"][model][key] for key in honest}
    named = pkgllm(
        "evaluate", str(RUN), "-p", "legacy", "--answers", f"{FIRST}/lists.jsonl", "-o", "again"
    )
    assert named.code == 0, named.err
    assert read_json(Path("again/legacy.json")) == legacy


def test_the_leak_is_asked_for_by_name(pkgllm: RunCommand, workplace: Path) -> None:
    done = pkgllm("evaluate", str(RUN), "-p", "legacy-leak", *SHORT)
    assert done.code == 0, done.err
    assert done.out.startswith("INFLATED, no result, because the prompts hold the answers,")
    assert names(FIRST) == {"legacy.json", "legacy.jsonl", "legacy.md"}


def test_help_says_what_is_inflated(pkgllm: RunCommand) -> None:
    words = " ".join(pkgllm("evaluate", "--help").out.split())
    assert "[exact|lists|all|legacy|legacy-leak]" in words
    assert "The others give inflated numbers" in words


@pytest.mark.parametrize(
    ("arguments", "code", "pieces"),
    [
        (("-p", "list"), 2, ("--protocol", "'list' is not one of", "pkgllm evaluate --help")),
        (
            ("--set", "training.local_steps=3"),
            2,
            ("--set training.local_steps: only the keys of evaluation can be set",),
        ),
        (("--set", "evaluation={part: validation}"), 2, ("--set evaluation: only the keys of",)),
        (("--set", "evaluation.part"), 2, ("--set evaluation.part: must be KEY=VALUE",)),
        (("--set", "evaluation.prt=test"), 2, ("--set evaluation.prt: unknown key",)),
        (
            ("--set", "evaluation.lists.k=11"),
            2,
            ("--set evaluation.lists.k: must be", "at most 10"),
        ),
        (
            ("-p", "lists", "--set", "evaluation.lists.max_new_tokens=1023"),
            2,
            ("evaluation.lists.max_new_tokens: a list must fit", "lower evaluation.lists"),
        ),
        (("-p", "legacy"), 1, ("no evaluation holds lists.jsonl", "--protocol lists first")),
        (("-p", "legacy", *SHORT), 2, ("--set does not go with --protocol legacy",)),
        (("--answers", "any.jsonl"), 2, ("--answers goes with --protocol legacy only",)),
        (("-p", "all", "--answers", "any.jsonl"), 2, ("--answers goes with --protocol legacy",)),
        (
            ("-p", "legacy", "--answers", "no.jsonl"),
            1,
            ("--answers no.jsonl: must be a file lists.jsonl that pkgllm evaluate",),
        ),
        (
            ("-p", "legacy", "--answers", "no/lists.jsonl"),
            1,
            ("--answers no/lists.jsonl: must be a file lists.jsonl that",),
        ),
    ],
)
def test_what_is_refused(
    refuse: Refuse, workplace: Path, arguments: tuple[str, ...], code: int, pieces: tuple[str, ...]
) -> None:
    sentence = refuse("evaluate", str(RUN), *arguments, code=code)
    assert all(piece in sentence for piece in pieces), sentence
    assert not (RUN / "evaluations").exists()


@pytest.mark.slow
def test_damaged_answers_end_in_a_sentence(
    pkgllm: RunCommand, refuse: Refuse, workplace: Path
) -> None:
    assert pkgllm("evaluate", str(RUN), "-p", "lists", *SHORT).code == 0
    answers = FIRST / "lists.jsonl"
    whole = answers.read_text()
    answers.write_text(whole[:-20])
    assert f"{answers}: line 78: must be JSON" in refuse("evaluate", str(RUN), "-p", "legacy")
    answers.write_text("".join(whole.splitlines(keepends=True)[1:]))
    sentence = refuse("evaluate", str(RUN), "-p", "legacy")
    assert "1 of 6 clients have no answer of tuned, greedy" in sentence
    answers.write_text(whole)
    (FIRST / "provenance.json").write_text('{"digests": []}')
    assert "provenance.json: digests: must be" in refuse("evaluate", str(RUN), "-p", "legacy")
    (FIRST / "provenance.json").write_text('{"digests": {}}')
    assert "written for other data" in refuse("evaluate", str(RUN), "-p", "legacy")
