from typing import Any

import pytest

from helpers.printed import printed
from pkgllm.report.document import Document
from pkgllm.report.lists import legacy_document, lists_document
from pkgllm.report.to_markdown import markdown

RATES = ("answer_rate", "validity_rate", "novelty_rate", "mean_length")
MICRO = ("precision@5", "recall@5", "f1@5")
MACRO = (*MICRO, "precision_on_nonempty@5")
PARTS = {"rates": RATES, "micro": MICRO, "macro": MACRO}


def entry(start: int, *, samples: int = 1, failures: int = 0, cut_off: int = 0) -> dict[str, Any]:
    """Numbers that all differ, so that a wrong place shows."""
    made: dict[str, Any] = {"samples": samples, "failures": failures, "cut_off": cut_off}
    for index, (part, names) in enumerate(PARTS.items()):
        made[part] = {
            name: {
                "value": (start + 10 * index + place + 50) / 10_000,
                "low": (start + 10 * index + place) / 10_000,
                "high": (start + 10 * index + place + 100) / 10_000,
            }
            for place, name in enumerate(names)
        }
    if samples > 1:
        made["over_samples"] = {
            part: {
                name: {"mean": (start + 500 + 10 * index + place) / 10_000, "sd": 0.9 + place / 100}
                for place, name in enumerate(names)
            }
            for index, (part, names) in enumerate(PARTS.items())
        }
    return made


def results() -> dict[str, Any]:
    return {
        "k": 5,
        "clients": 30,
        "queries": 70,
        "models": {
            "tuned": {
                "greedy": entry(1000, failures=2, cut_off=3),
                "constrained": entry(2000),
                "sampled": entry(3000, samples=4, cut_off=7),
                "ranked": entry(4000),
            },
            "[bold]": {"greedy": entry(6000), "ranked": entry(5000, failures=1)},
        },
    }


def legacy(*, leaky: bool = False) -> dict[str, Any]:
    numbers = dict.fromkeys(("precision", "recall", "f1", "mrr", "hits@1", "hits@3"), 0.25)
    inflated = {"answers": 1200, "scored": 1100, **numbers, "recall": 1.5, "hits@10": 0.75}
    honest = results()
    honest["models"] = {"tuned": {"greedy": honest["models"]["tuned"]["greedy"]}}
    return {
        "answers_in_prompts": leaky,
        "inflated": {"tuned": {"greedy": inflated}},
        "honest": honest,
    }


def lists(made: dict[str, Any]) -> Document:
    return lists_document(made, title="Lists", notes=["made for a test"])


def short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    lines = text.split(f"**{title}**\n\n")[1].split("\n\n")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines]
    return {"": cells[0], **{row[0]: row[1:] for row in cells[2:]}}


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_stands_on_the_terminal_uncut(width: int) -> None:
    made = results()
    text = printed(lists(made), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    for modes in made["models"].values():
        for numbers in modes.values():
            for part in PARTS:
                for measure in numbers[part].values():
                    assert all(short(value) in text for value in measure.values())
    # A name is no markup.
    assert text.count("[bold]") == 7


def test_what_was_answered_stands_before_how_good_it_is() -> None:
    for text in (printed(lists(results()), 120), markdown(lists(results()))):
        places = [
            text.index(piece)
            for piece in (
                "What was answered: 30 clients, 70 queries",
                "answer rate",
                "validity rate",
                "novelty rate",
                "mean length",
                "Micro: the lists of all clients together",
                "precision@5",
                "recall@5",
                "F1@5",
                "Macro: mean over clients of each client's own",
                "precision if not empty",
                "Sampled lists: mean and SD over 4 samples",
            )
        ]
        assert places == sorted(places)


def test_each_number_stands_under_its_own_heading() -> None:
    made = results()
    text = markdown(lists(made))
    assert text.startswith("## Lists\n")
    assert "- made for a test\n" in text
    for part, title in (
        ("rates", "What was answered: 30 clients, 70 queries"),
        ("micro", "Micro: the lists of all clients together"),
        ("macro", "Macro: mean over clients of each client's own"),
    ):
        rows = rows_of(text, title)
        # Written lists first, then ranked ones.
        assert list(rows) == [
            "",
            "tuned greedy",
            "tuned constrained",
            "tuned sampled",
            "[bold] greedy",
            "tuned ranked",
            "[bold] ranked",
        ]
        for name, cells in list(rows.items())[1:]:
            model, mode = name.split()
            measures = made["models"][model][mode][part].values()
            assert cells == [
                f"{short(m['value'])} [{short(m['low'])}, {short(m['high'])}]" for m in measures
            ]
    rows = rows_of(text, "Sampled lists: mean and SD over 4 samples")
    over = made["models"]["tuned"]["sampled"]["over_samples"]
    for key, name in (("mean", "tuned mean"), ("sd", "tuned SD")):
        assert rows[name] == [
            short(over[part][measure][key])
            for part, names in (("rates", RATES), ("micro", MICRO), ("macro", MICRO))
            for measure in names
        ]
    assert rows[""][5:8] == ["micro P@5", "micro R@5", "micro F1@5"]


def test_failures_and_cuts_are_said_and_nothing_where_there_are_none() -> None:
    made = lists(results()).notes
    assert "tuned, greedy: no list in 2 of 30 cases, which all count as empty lists." in made
    assert "[bold], ranked: no list in 1 of 30 cases, which all count as empty lists." in made
    cuts = [line.split(" answers")[0] for line in made if "cut off" in line]
    assert cuts == ["tuned, greedy: 3 of 30", "tuned, sampled: 7 of 120"]
    assert not [line for line in made if "constrained:" in line and "cases" in line]
    assert "- tuned, greedy: no list in 2 of 30" in markdown(lists(results()))


def test_one_client_and_one_sample_have_neither_interval_nor_deviation() -> None:
    made = results()
    made["clients"] = 1
    sampled = entry(3000, samples=2)
    sampled["samples"] = 1
    for part in sampled["over_samples"].values():
        for measure in part.values():
            measure["sd"] = None
    for part in PARTS:
        for measure in sampled[part].values():
            measure["low"] = measure["high"] = None
    made["models"] = {"tuned": {"sampled": sampled}}
    text = markdown(lists(made))
    assert "One client only, so no interval can be given." in text
    rows = rows_of(text, "Sampled lists: mean and SD over 1 sample")
    assert rows["tuned SD"] == ["n/a"] * 10
    assert "[" not in text.split("\n- ")[0]


@pytest.mark.parametrize("leaky", [False, True])
def test_inflated_numbers_stand_under_a_heading_that_says_so(leaky: bool) -> None:
    made = legacy(leaky=leaky)
    document = legacy_document(made, title="INFLATED, no result", notes=["of a test"])
    text = markdown(document)
    assert text.startswith("## INFLATED, no result\n")
    rows = rows_of(text, "INFLATED. The same answers in the published way")
    assert rows["tuned greedy"] == [
        "1,100 of 1,200",
        ".2500",
        "1.5000",
        ".2500",
        ".2500",
        ".2500",
        ".2500",
        ".7500",
    ]
    assert rows[""][:4] == ["model", "scored", "precision", "recall"]
    honest = rows_of(text, "Honest. Micro: the lists of all clients together")
    assert honest["tuned greedy"][0] == ".1060 [.1010, .1110]"
    assert document.notes[0].startswith("These numbers are inflated")
    assert any("The prompts held the answers" in line for line in document.notes) == leaky
    assert all(f"- {line}\n" in text for line in (*document.notes, "of a test"))
    text = printed(document)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "1,100 of 1,200" in text
    assert text.index("INFLATED.") < text.index("Honest. What was answered")


def test_every_table_has_as_many_cells_as_headings() -> None:
    for document in (lists(results()), legacy_document(legacy(), title="b")):
        text = markdown(document)
        tables = [block for block in text.split("\n\n") if block.startswith("| ")]
        assert tables
        for table in tables:
            assert len({line.count("|") for line in table.splitlines()}) == 1
