"""What every layout makes of one document."""

import pytest

from helpers.printed import printed
from pkgllm.report.document import (
    Cell,
    Column,
    Document,
    Figure,
    Paragraph,
    Table,
    columns,
    number,
    texts,
)
from pkgllm.report.to_html import html
from pkgllm.report.to_json import json_document
from pkgllm.report.to_latex import latex
from pkgllm.report.to_markdown import markdown

NASTY = "[bold]a|b* & <c> 100 %_#{}\\~^"
EVERYWHERE = Table(
    "Values",
    columns("model", "MRR"),
    (
        (Cell(NASTY), Cell(".2500", 0.25, 0.125, 0.5)),
        (Cell("[b]\n- base"), number(None)),
        texts("", ""),
    ),
)
DOCUMENT = Document(
    "The title",
    (
        EVERYWHERE,
        Table("Wide", columns("model"), (texts("only a page"),), place="page"),
        Table("Narrow", columns("model"), (texts("only a terminal"),), place="terminal"),
        Paragraph("Some text.", ("a point",)),
        Figure("A plot", "plot.png"),
        Document("Section", (), ("inside",)),
    ),
    ("[low, high]: an interval.",),
)


def test_a_terminal_shows_its_own_tables_and_no_markup() -> None:
    text = printed(DOCUMENT)
    assert text.startswith("The title\n")
    assert NASTY in text
    assert "only a terminal" in text
    assert "only a page" not in text
    assert "plot.png" not in text
    pieces = ("Values", "- a point", "Section", "- inside", "- [low, high]")
    places = [text.index(piece) for piece in pieces]
    assert places == sorted(places)


def test_reasons_stand_below_a_name_in_a_table_without_a_title() -> None:
    cell = Cell("Heat", details=("because",))
    text = printed(Document("", (Table("", (Column("", wrap=True),), ((cell,),)),)))
    assert "Heat" in text
    assert "  because" in text


@pytest.mark.parametrize("level", [1, 2])
def test_a_page_of_markdown(level: int) -> None:
    text = markdown(DOCUMENT, level=level)
    marks = "#" * level
    assert text.startswith(f"{marks} The title\n\n**Values**\n\n| model | MRR |\n| --- | --- |\n")
    assert r"| [bold]a\|b\* & <c> 100 %_#{}\~^ | .2500 [.1250, .5000] |" in text
    assert "| [b] - base | n/a |" in text
    assert "only a terminal" not in text
    assert f"\n\n![A plot](plot.png)\n\n{marks}# Section\n\n- inside\n\n- [low" in text


def test_html_escapes_all_text() -> None:
    text = html(DOCUMENT)
    assert "<th>[bold]a|b* &amp; &lt;c&gt; 100 %_#{}\\~^</th>" in text
    assert "<td>.2500<br><small>[.1250, .5000]</small></td>" in text
    assert "<th>[b]<br>- base</th>" in text
    assert "<h4>Section</h4>" in text
    assert "only a terminal" not in text
    assert html(Document("", (Table("", columns("a"), ((Cell("x", alarm=True),),)),))).count(
        "<strong>x</strong>"
    )


def test_latex_escapes_all_text_and_no_row_begins_with_an_argument() -> None:
    lines = latex(DOCUMENT).splitlines()
    assert lines[0] == "% The title"
    escaped = (
        r"[bold]a|b* \& \textless{}c\textgreater{} 100 \%\_\#\{\}\textbackslash{}"
        r"\textasciitilde{}\textasciicircum{}"
    )
    assert rf"{{}}{escaped} & .2500 {{\scriptsize [.1250, .5000]}} \\" in lines
    assert r"\item{} [low, high]: an interval." in lines
    assert r"\includegraphics[width=\linewidth]{plot.png}" in lines
    assert not any(line.startswith("[") for line in lines)


def test_json_keeps_numbers_as_they_are() -> None:
    made = json_document(DOCUMENT)
    kinds = [block["kind"] for block in made["blocks"]]
    assert kinds == ["table", "table", "paragraph", "figure", "section"]
    assert made["blocks"][0]["rows"][0] == [
        {"text": NASTY},
        {"text": ".2500", "value": 0.25, "low": 0.125, "high": 0.5},
    ]
    assert made["blocks"][0]["rows"][1][1] == {"text": "n/a"}
    assert made["notes"] == ["[low, high]: an interval."]
