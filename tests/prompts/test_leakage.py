import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import LeakError
from pkgllm.graph.personal_graph import RELATIONS, Fact, Moment, PersonalGraph, Provenance
from pkgllm.graph.vocabulary import ITEMS
from pkgllm.prompts.audit import audit_prompt
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.prompts.settings import PromptForm

SAID = Provenance("own_answer", "conversation/1")
FORMS: tuple[PromptForm, ...] = ("triples", "jsonld", "prose")

# No name stands in another one, so whatever the audit finds was planted.
FIRST = ("Quiet", "Golden", "Broken", "Distant", "Hollow", "Silver")
LAST = ("River", "Harbour", "Letter", "Winter", "Machine")
NAMES = [f"{a} {b} ({1950 + n})" for n, (a, b) in enumerate((a, b) for a in FIRST for b in LAST)]
CATALOGUE = Catalogue([Item(f"10{n:02}", name) for n, name in enumerate(NAMES)])
IDS = [item.id for item in CATALOGUE]

TRACES: dict[str, Callable[[str], str]] = {
    "its name": lambda item: CATALOGUE[item].name,
    "its title": lambda item: CATALOGUE[item].name[:-7],
    "its id": lambda item: item,
    "its IRI": ITEMS.iri,
}


def prompt_of(text: str, *, tails: Collection[str] = ()) -> Prompt:
    """A prompt that was written from the facts alone."""
    return Prompt("p1", text, f"<|im_start|>system\n{text}<|im_end|>\n", (), frozenset(tails), 0)


def a_graph(items: Collection[str], catalogue: Catalogue = CATALOGUE) -> PersonalGraph:
    return PersonalGraph(
        "p1",
        tuple(
            Fact(RELATIONS[n % len(RELATIONS)], item, catalogue[item].name, Moment(n, 0), SAID)
            for n, item in enumerate(items)
        ),
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_base_folder: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_base_folder)
    return found


def writer_for(
    tokenizer: PreTrainedTokenizerBase, form: PromptForm = "prose", request: str = "Recommend."
) -> PromptWriter:
    return PromptWriter(
        tokenizer, form=form, instruction="Recommend.", request=request, max_tokens=100_000
    )


splits = st.permutations(IDS).flatmap(
    lambda ids: st.tuples(st.integers(0, 12), st.integers(1, 5)).map(
        lambda sizes: (ids[: sizes[0]], ids[sizes[0] : sum(sizes)])
    )
)


@settings(max_examples=60, deadline=None)
@given(split=splits, form=st.sampled_from(FORMS))
def test_an_honest_prompt_passes(
    tokenizer: PreTrainedTokenizerBase, split: tuple[list[str], list[str]], form: PromptForm
) -> None:
    visible, held_out = split
    prompt = writer_for(tokenizer, form).write(a_graph(visible))
    audit_prompt(prompt, held_out, CATALOGUE, place="test prompt")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    split=splits,
    form=st.sampled_from(FORMS),
    what=st.sampled_from(sorted(TRACES)),
    change=st.sampled_from([str, str.upper, str.lower, str.swapcase]),
    data=st.data(),
)
def test_every_planted_trace_is_found(
    tokenizer: PreTrainedTokenizerBase,
    split: tuple[list[str], list[str]],
    form: PromptForm,
    what: str,
    change: Callable[[str], str],
    data: st.DataObject,
) -> None:
    visible, held_out = split
    leaked = data.draw(st.sampled_from(held_out), label="leaked")
    words = writer_for(tokenizer, form).write(a_graph(visible)).facts_text.split(" ")
    # Behind a whole name or before everything, so that no visible name is cut in two.
    places = [0, *(n for n, word in enumerate(words, start=1) if ")" in word)]
    words.insert(data.draw(st.sampled_from(places), label="place"), change(TRACES[what](leaked)))
    with pytest.raises(LeakError) as caught:
        audit_prompt(
            prompt_of(" ".join(words), tails=visible), held_out, CATALOGUE, place="test prompt"
        )
    assert str(caught.value) == (
        f"leak audit: the test prompt of client 'p1' holds the held-out item "
        f"{CATALOGUE[leaked].name!r} ({what}); a prompt must be written from facts strictly "
        "earlier than the answers"
    )


@settings(max_examples=40, deadline=None)
@given(split=splits, form=st.sampled_from(FORMS), data=st.data())
def test_a_held_out_fact_in_the_graph_is_found(
    tokenizer: PreTrainedTokenizerBase,
    split: tuple[list[str], list[str]],
    form: PromptForm,
    data: st.DataObject,
) -> None:
    visible, held_out = split
    leaked = data.draw(st.sampled_from(held_out), label="leaked")
    prompt = writer_for(tokenizer, form).write(a_graph([*visible, leaked]))
    with pytest.raises(LeakError) as caught:
        audit_prompt(prompt, held_out, CATALOGUE, place="training prompt")
    assert str(caught.value) == (
        f"leak audit: the training prompt of client 'p1' holds the held-out item "
        f"{CATALOGUE[leaked].name!r} (a fact of the prompt's graph); a prompt must be written "
        "from facts strictly earlier than the answers"
    )


def test_a_title_in_the_request_is_found(tokenizer: PreTrainedTokenizerBase) -> None:
    graph = a_graph(IDS[5:9])
    prompt = writer_for(tokenizer, request="Something like quiet river.").write(graph)
    with pytest.raises(LeakError, match=r"'Quiet River \(1950\)' \(its title\)"):
        audit_prompt(prompt, [IDS[0]], CATALOGUE, place="test prompt")


def test_a_number_in_the_request_is_no_id(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = writer_for(tokenizer, request="Recommend 1000 movies.").write(a_graph(IDS[5:9]))
    audit_prompt(prompt, ["1000"], CATALOGUE, place="test prompt")


def films(*names: str) -> Catalogue:
    return Catalogue([Item(str(n), name) for n, name in enumerate(names)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("visible", "held_out"),
    [
        ("Step Up (2006)", "Up (2006)"),
        ("Step Up 2 the Streets (2008)", "Step Up (2006)"),
        ("The Ring Two (2005)", "The Ring (2002)"),
        # The same title from two years, and twins that were told apart by their ids.
        ("Quiet River (1950)", "Quiet River (1999)"),
        ("Quiet River (1950) [7]", "Quiet River (1950) [8]"),
        # Single words stand in every prompt.
        ("Heat (1995)", "Seen (1999)"),
        ("Heat (1995)", "User (2000)"),
        # A title that is the number of a year.
        ("Heat (1941)", "1941 (1979)"),
        # Part of a word.
        ("The Starlets (1950)", "The Star (1952)"),
        ('The "Hollow Bell" Affair (1971)', "Hollow Bell (1970)"),
    ],
)
def test_what_only_looks_like_a_leak(
    tokenizer: PreTrainedTokenizerBase, visible: str, held_out: str, form: PromptForm
) -> None:
    catalogue = films(visible, held_out)
    prompt = writer_for(tokenizer, form).write(a_graph(["0"], catalogue))
    audit_prompt(prompt, ["1"], catalogue, place="test prompt")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("visible", "held_out", "leak"),
    [
        # The visible name stands inside the leaked one, and is no excuse for the rest of it.
        ("Up (2006)", "Step Up (2006)", "Step Up (2006)"),
        ("Up (2006)", "Step Up (2006)", "STEP UP"),
        # The leaked name also stands, without harm, inside the visible one.
        ("Step Up (2006)", "Up (2006)", "Up (2006)"),
        ("Heat (1995)", "Seen (1999)", "seen (1999)"),
        ("Heat (1995)", "Die Große Straße (1960)", "DIE GROSSE STRASSE"),
        ("Heat (1995)", 'The "Hollow Bell" Affair (1971)', 'The "Hollow Bell" Affair (1971)'),
    ],
)
def test_what_hides_behind_a_visible_name_is_found(
    tokenizer: PreTrainedTokenizerBase, visible: str, held_out: str, leak: str, form: PromptForm
) -> None:
    catalogue = films(visible, held_out)
    written = writer_for(tokenizer, form).write(a_graph(["0"], catalogue)).facts_text
    planted = json.dumps(leak) if form == "jsonld" else leak
    with pytest.raises(LeakError, match="holds the held-out item"):
        audit_prompt(
            prompt_of(f"{written} {planted}", tails=["0"]), ["1"], catalogue, place="test prompt"
        )


def test_white_space_does_not_hide_a_name() -> None:
    with pytest.raises(LeakError, match="its name"):
        audit_prompt(prompt_of("Quiet\n  River\t(1950)"), [IDS[0]], CATALOGUE, place="test prompt")
