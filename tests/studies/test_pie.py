import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import RUN, RunCommand
from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.recommend import Recommender
from pkgllm.corpora.domains import Domain, read_domain
from pkgllm.evaluation.ranks import Ranks
from pkgllm.evaluation.scorer import ClientQueries, RankedClient
from pkgllm.graph.adaptation import STRATEGIES
from pkgllm.lm.base_model import BaseModel
from pkgllm.progress import Progress, Silent
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.report.document import Document
from pkgllm.report.pie import pie_document
from pkgllm.report.to_markdown import markdown
from pkgllm.studies import pie
from pkgllm.studies.pie_cases import PieCase, domain_case, film_case
from pkgllm.studies.pie_measures import MEASURES, compare, list_measures, measure_case


def videos_case(base: BaseModel, domain: Domain) -> PieCase:
    writer = PromptWriter(
        base.tokenizer, form="prose", instruction="", request=domain.request, max_tokens=500
    )
    recommender = Recommender(
        base.model, writer, domain.catalogue, max_positions=base.max_positions
    )
    return domain_case(domain, recommender)


def test_measures_by_hand(tiny_base: BaseModel) -> None:
    domain = read_domain("cat_videos")
    case = videos_case(tiny_base, domain)
    case = replace(case, people=case.people[:1])
    index = domain.catalogue.index_by_id
    (person,) = case.people
    # By the facts: v00 long cat, v01 short cat, v11 short dog, v13 short dog, v35 held out, short.
    top = np.array([index[v] for v in ("v00", "v01", "v11", "v13", "v35")])
    gold = np.array([index[v] for v in person.held_out])
    place = np.array([5, 9, 12])
    candidates = np.ones((1, len(domain.catalogue)), dtype=bool)
    (row,) = list_measures(case, [RankedClient(Ranks(place, place), top)], candidates, [gold])
    results = dict(zip(MEASURES, row.tolist(), strict=True))
    assert (results["invalid"], results["in_pie"], results["out_pie"]) == (0.2, 0.2, 0.6)
    assert (results["precision"], results["recall"]) == (0.1, pytest.approx(1 / 3))
    # Nobody likes the three visibly, so by popularity they tie with every other unliked video.
    unliked = (case.likes == 0).sum() - 3
    liked = (case.likes > 0).sum()
    popular = [liked + 1 + unliked / 2 if case.likes[g] == 0 else None for g in gold]
    if None not in popular:
        gains = [(p - m) / 36 for p, m in zip(popular, place, strict=True) if p is not None]
        assert results["rank_gain"] == pytest.approx(np.mean(gains))
    # Two cats and two dogs and another: of ten pairs, two are alike.
    assert results["diversity"] == pytest.approx(0.8)
    assert results["novelty"] > 0


@pytest.mark.slow
def test_shares_add_up_and_the_same_question_gives_the_same_numbers(tiny_base: BaseModel) -> None:
    case = videos_case(tiny_base, read_domain("cat_videos"))
    settings = {"seed": 1, "resamples": 50, "permutations": 100}
    results = measure_case(case, Silent(), **settings)
    assert results == measure_case(case, Silent(), **settings)
    assert results["people"] == results["with_held_out"] == 8
    assert results["request"] == "Only length short."
    for of in results["strategies"].values():
        shares = [of[name]["value"] for name in ("invalid", "in_pie", "out_pie")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert all(of[m]["low"] <= of[m]["value"] <= of[m]["high"] for m in MEASURES)
    # The strategies ask differently.
    assert len({json.dumps(of) for of in results["strategies"].values()}) == 3


def test_differences_are_paired_and_corrected_together() -> None:
    people = 12
    base = np.tile(np.linspace(0.1, 0.9, people)[:, None], (1, len(MEASURES)))
    measured = {"none": base, "prompt": base, "adapt": base + 0.05}
    results = compare(
        measured,  # type: ignore[arg-type]
        np.ones(people, dtype=bool),
        seed=0,
        resamples=200,
        permutations=9999,
    )
    of = results["paired"]["adapt-none"]["out_pie"]
    # Every person gains the same, whoever is drawn.
    assert (of["difference"], of["low"], of["high"]) == (0.05, 0.05, 0.05)
    assert of["p_value"] == pytest.approx(2 / 2**people, abs=1e-6)
    assert of["p_corrected"] == pytest.approx(24 * 2 / 2**people, abs=1e-4)
    assert results["paired"]["prompt-none"]["out_pie"]["p_value"] == 1


def test_who_later_likes_nothing_outside_counts_in_the_shares_alone() -> None:
    measured = {strategy: np.zeros((2, len(MEASURES))) for strategy in STRATEGIES}
    measured["none"][0] = 0.5
    results = compare(measured, np.array([True, False]), seed=0, resamples=20, permutations=20)[
        "strategies"
    ]["none"]
    assert results["recall"]["value"] == results["rank_gain"]["value"] == 0.5
    assert results["out_pie"]["value"] == results["novelty"]["value"] == 0.25


def test_only_people_in_a_bubble_are_asked(tiny_base: BaseModel) -> None:
    domain = read_domain("cat_videos")
    recommender = videos_case(tiny_base, domain).recommender
    fan = domain.people[0].graph
    other = fan.only(fact for fact in fan.facts if fact.relation != "liked")
    queries = [
        ClientQueries("fan", True, fan, ("v01", "v35")),
        ClientQueries("other", True, other, ("v01",)),
    ]
    with pytest.raises(Exception, match="must hold years"):
        film_case("videos", recommender, queries, np.zeros(36))
    with pytest.raises(Exception, match="none of 1 clients is in a bubble"):
        film_case("videos", recommender, queries[1:], np.zeros(36))
    assert Constraints(required=(domain.constraint,)).words == "Only length short."


@pytest.mark.slow
def test_the_whole_command_with_a_run_and_again(pkgllm: RunCommand, workplace: Path) -> None:
    done = pkgllm("reproduce", "pie", "--adapter", str(RUN), "-o", "out")
    assert done.code == 0, done.err
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["pie.json", "pie.md", "pie.png", "pie.svg"]
    first = {name: (workplace / "out" / name).read_bytes() for name in names}
    results = json.loads(first["pie.json"])
    assert list(results["cases"]) == ["redial", "cat videos", "tomato recipes"]
    assert first["pie.md"].decode() == markdown(pie_document(results))
    assert "out-PIE" in done.out
    assert pkgllm("reproduce", "pie", "--adapter", str(RUN), "-o", "out").code == 0
    assert first == {name: (workplace / "out" / name).read_bytes() for name in names}


@pytest.mark.slow
def test_a_scale_without_a_run_is_trained_and_gone_on_with(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def note(run: Path, progress: Progress) -> dict[str, object]:
        asked.append(run)
        return {}

    monkeypatch.setitem(pie.PRESETS, "small-world", "small.yaml")
    monkeypatch.setattr(pie, "pie_results", note)
    monkeypatch.setattr(pie, "draw_pie", lambda results: {})
    monkeypatch.setattr(pie, "pie_document", lambda results: Document("", ()))
    pie.reproduce_pie("small-world", Path("out"), Silent())
    trained = Path("out/run/results.json").stat().st_mtime_ns
    pie.reproduce_pie("small-world", Path("out"), Silent())
    assert asked == [Path("out/run")] * 2
    assert Path("out/run/results.json").stat().st_mtime_ns == trained
