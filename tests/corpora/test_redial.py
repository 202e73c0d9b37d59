import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.corpora.clients import Corpus, take_part
from pkgllm.corpora.redial_files import find_redial, fold, read_redial
from pkgllm.corpora.splits import split_corpus
from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

Make = Callable[..., dict[str, Any]]
Write = Callable[..., Path]

MOVIES = {str(film): f"Film {film}" for film in range(1, 10)}


@pytest.fixture
def read(tmp_path: Path, write_redial: Write) -> Callable[..., Corpus]:
    """Write dialogues over nine films and read them."""

    def write_and_read(*dialogues: Mapping[str, Any], **more: Any) -> Corpus:
        folder = write_redial(tmp_path, dialogues, more.pop("movies", MOVIES), **more)
        return read_redial(folder, movie_facts=None)

    return write_and_read


Read = Callable[..., Corpus]


def graph_of(corpus: Corpus, client: str = "1") -> PersonalGraph:
    return next(graph for graph in corpus.graphs if graph.owner == client)


def relations(corpus: Corpus, client: str = "1") -> dict[str, str]:
    return {fact.tail: fact.relation for fact in graph_of(corpus, client).facts}


def test_a_seekers_own_answers_become_facts(read: Read, make_dialogue: Make) -> None:
    own = dict(enumerate(("liked", "disliked", "seen", "unseen", "suggested", "nothing"), 1))
    corpus = read(make_dialogue(391, 7, {str(film): verdict for film, verdict in own.items()}))
    assert corpus.name == "redial"
    (graph,) = corpus.graphs
    said = Provenance("own_answer", "conversation/391")
    assert graph == PersonalGraph(
        "7",
        (
            Fact("liked", "1", "Film 1", Moment(0, 0), said),
            Fact("disliked", "2", "Film 2", Moment(0, 1), said),
            Fact("seen", "3", "Film 3", Moment(0, 2), said),
            Fact("unseen", "4", "Film 4", Moment(0, 3), said),
            Fact("suggested", "5", "Film 5", Moment(0, 4), said),
        ),
    )


def test_the_partners_answer_counts_only_where_the_seeker_gave_none(
    read: Read, make_dialogue: Make
) -> None:
    dialogue = make_dialogue(
        1,
        1,
        {"1": "disliked", "2": "nothing"},
        partner={"1": "liked", "2": "liked", "3": "liked"},
    )
    facts = graph_of(read(dialogue)).facts
    assert [(fact.tail, fact.relation, fact.provenance.source) for fact in facts] == [
        ("1", "disliked", "own_answer"),
        ("3", "liked", "partner_answer"),
    ]


def test_forms_that_were_not_filled_in_are_lists(read: Read, make_dialogue: Make) -> None:
    partner_only = make_dialogue(1, 1, {}, partner={"1": "liked"})
    nobody = make_dialogue(2, 2, {}, names={"1": "Film 1"})
    assert partner_only["initiatorQuestions"] == nobody["respondentQuestions"] == []
    corpus = read(partner_only, nobody)
    assert relations(corpus, "1") == {"1": "liked"}
    assert relations(corpus, "2") == {}


@pytest.mark.parametrize(
    ("verdicts", "kept", "session"),
    [
        (("liked", "disliked"), "disliked", 1),  # equally strong: the later one
        (("seen", "unseen"), "unseen", 1),
        (("liked", "seen"), "liked", 0),  # the stronger one, though it is earlier
        (("liked", "suggested"), "liked", 0),
        (("unseen", "suggested"), "unseen", 0),
        (("suggested", "seen", "disliked"), "disliked", 2),  # ever stronger
        (("disliked", "suggested", "unseen"), "disliked", 0),
        (("liked", "liked"), "liked", 1),  # a statement made again counts as late
        (("liked", "disliked", "liked"), "liked", 2),  # a change of mind was not
        (("liked", "nothing"), "liked", 0),
    ],
)
def test_stronger_then_later_answers_win(
    read: Read, make_dialogue: Make, verdicts: tuple[str, ...], kept: str, session: int
) -> None:
    corpus = read(
        *(make_dialogue(10 + index, 1, {"5": said}) for index, said in enumerate(verdicts))
    )
    (fact,) = graph_of(corpus).facts
    assert (fact.relation, fact.time.session) == (kept, session)
    assert fact.provenance.document == f"conversation/{10 + session}"


@pytest.mark.parametrize(
    ("verdicts", "session"),
    [
        (("liked", "liked", "liked"), 0),
        (("liked", "disliked", "liked"), 2),  # a change of mind is no repetition
        (("seen", "liked", "seen", "liked"), 1),
    ],
)
def test_a_restated_fact_can_keep_its_first_time(
    make_dialogue: Make,
    write_redial: Write,
    tmp_path: Path,
    verdicts: tuple[str, ...],
    session: int,
) -> None:
    folder = write_redial(
        tmp_path,
        [make_dialogue(10 + index, 1, {"5": said}) for index, said in enumerate(verdicts)],
        {"5": "Five (1995)"},
    )
    (fact,) = graph_of(read_redial(folder, movie_facts=None, restated_facts="first")).facts
    assert (fact.relation, fact.time.session) == ("liked", session)


def test_films_are_in_order_of_first_mention(read: Read, make_dialogue: Make) -> None:
    films = ("4", "3", "2", "1")
    dialogue = make_dialogue(
        1, 1, dict.fromkeys(films, "liked"), text="@2 is fine. @11? @3, or @2 again @2!"
    )
    dialogue["messages"].append({"text": "what of @9 and @1", "senderWorkerId": 1})
    facts = graph_of(read(dialogue)).facts
    # 4 is never mentioned, so it comes last
    assert [fact.tail for fact in facts] == ["2", "3", "1", "4"]
    assert [fact.time.position for fact in facts] == [0, 1, 2, 3]


def test_films_that_no_message_mentions_are_in_the_order_of_the_list(
    read: Read, make_dialogue: Make
) -> None:
    names = {"9": "Film 9", "1": "Film 1", "5": "Film 5"}
    dialogue = make_dialogue(
        1, 1, {"1": "liked", "5": "liked", "9": "liked"}, names=names, text="hello @5"
    )
    assert [fact.tail for fact in graph_of(read(dialogue)).facts] == ["5", "9", "1"]


def test_whole_number_conversations_are_in_the_order_of_their_ids(
    read: Read, make_dialogue: Make
) -> None:
    corpus = read(
        make_dialogue(100, 1, {"1": "liked"}),
        make_dialogue(21, 2, {"1": "liked"}),
        make_dialogue(9, 1, {"2": "liked"}),
        make_dialogue(20, 1, {}),  # a dialogue that says nothing is still a session
    )
    assert {fact.tail: fact.time.session for fact in graph_of(corpus).facts} == {"2": 0, "1": 2}
    assert [graph.owner for graph in corpus.graphs] == ["1", "2"]


def test_ids_of_any_form_keep_the_order_of_mention(read: Read, make_dialogue: Make) -> None:
    films = {"tt10": "liked", "tt1": "liked", "a b": "liked", "Q7": "liked"}
    text = "not @tt100, but @Q7, then @tt10, @a b and @tt1"
    corpus = read(make_dialogue(1, 1, films, text=text))
    assert [fact.tail for fact in graph_of(corpus).facts] == ["Q7", "tt10", "a b", "tt1"]
    assert corpus.notes == ()


def test_a_dialogue_that_mentions_none_of_its_films_is_counted(
    read: Read, make_dialogue: Make
) -> None:
    corpus = read(
        make_dialogue(1, 1, {"1": "liked"}, text="a film"), make_dialogue(2, 1, {"2": "liked"})
    )
    assert [note[:40] for note in corpus.notes] == ["Order: 1 of 2 dialogues mention none of "]


def test_a_dialogue_that_stands_twice_counts_once(read: Read, make_dialogue: Make) -> None:
    one, two = make_dialogue(1, 1, {"1": "liked"}), make_dialogue(2, 1, {"2": "liked"})
    corpus = read(one, two, one)
    assert graph_of(corpus) == graph_of(read(one, two))
    assert corpus.notes == ("Copies: 1 of 3 dialogues are copies of others and count once.",)


def test_a_copy_that_says_something_else_is_refused_with_both_lines(
    read: Read, make_dialogue: Make
) -> None:
    dialogues = [make_dialogue(1, 1, {"1": verdict}) for verdict in ("liked", "disliked")]
    with pytest.raises(DataError, match=r"data.jsonl:2: conversation 1 stands at .*jsonl:1 too"):
        read(*dialogues)


def test_other_conversations_are_in_the_order_of_the_files(read: Read, make_dialogue: Make) -> None:
    corpus = read(
        make_dialogue("100", 1, {"1": "liked"}),
        make_dialogue("9", 1, {"2": "liked"}),
        test_dialogues=[make_dialogue("a", 1, {"3": "liked"})],
    )
    assert [fact.tail for fact in graph_of(corpus).facts] == ["1", "2", "3"]


def test_the_test_file_is_read_after_the_train_file(read: Read, make_dialogue: Make) -> None:
    corpus = read(
        make_dialogue(1, 1, {"1": "liked"}),
        test_dialogues=[make_dialogue(2, 1, {"1": "disliked"}), make_dialogue(3, 2, {"1": "seen"})],
    )
    assert relations(corpus, "1") == {"1": "disliked"}
    assert relations(corpus, "2") == {"1": "seen"}
    assert "test_data.jsonl" in corpus.digests


def test_the_catalogue_is_all_films_with_folded_names_told_apart(
    read: Read, make_dialogue: Make
) -> None:
    movies = {"1": "Amber  Kettle (1991) ", "2": "Amber Kettle\t(1991)", "3": 'Say "Oboe", Ivo'}
    corpus = read(
        make_dialogue(1, 1, {"2": "liked"}, names={"2": "whatever"}),
        movies=movies,
        facts={"1": {"genre": ["drama"]}, "99": {"genre": ["war"]}},
    )
    assert {item.id: item.name for item in corpus.catalogue} == {
        "1": "Amber Kettle (1991) [1]",
        "2": "Amber Kettle (1991) [2]",
        "3": 'Say "Oboe", Ivo',
    }
    assert graph_of(corpus).facts[0].name == "Amber Kettle (1991) [2]"
    assert corpus.catalogue["1"].facts == {"genre": ("drama",)}
    assert corpus.catalogue["2"].facts == {}


def test_a_film_that_only_dialogues_name_joins_the_catalogue(
    read: Read, make_dialogue: Make
) -> None:
    corpus = read(
        make_dialogue(1, 1, {"77": "liked"}, names={"77": None}),
        make_dialogue(2, 1, {}, names={"77": "Late  Name (2001)"}),
    )
    assert corpus.catalogue["77"].name == "Late Name (2001)"
    assert graph_of(corpus).facts[0].name == "Late Name (2001)"


def test_a_nameless_mention_that_no_answer_is_about_is_passed_over(
    read: Read, make_dialogue: Make
) -> None:
    corpus = read(make_dialogue(1, 1, {"1": "liked"}, names={"50": None, "1": "Film 1"}))
    assert "50" not in corpus.catalogue
    assert graph_of(corpus).tails == {"1"}


@pytest.mark.parametrize("name", [None, "", "  "])
def test_an_answer_about_a_film_without_a_name_is_refused(
    read: Read, make_dialogue: Make, name: str | None
) -> None:
    with pytest.raises(
        DataError,
        match=r"train_data.jsonl:2: film 50 of conversation 8 must have a name, in "
        r"movies_with_mentions.csv or in movieMentions, got none",
    ):
        read(
            make_dialogue(7, 1, {"1": "liked"}),
            make_dialogue(8, 1, {"50": "liked"}, names={"50": name}),
        )


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda dialogue: dialogue.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("initiatorWorkerId"), "initiatorWorkerId must be a number or a text, got no such"),
        (lambda d: d.update(initiatorWorkerId=None), "initiatorWorkerId must be .* got None"),
        (lambda d: d.update(initiatorWorkerId=True), "initiatorWorkerId must be .* got True"),
        (lambda d: d.update(conversationId=""), "conversationId must be .* got ''"),
        (without("conversationId"), "conversationId must be .* got no such key"),
        (without("movieMentions"), "movieMentions must be an object by film id, got no such key"),
        (lambda d: d.update(movieMentions=["1"]), r"movieMentions must be .* got \['1'\]"),
        (lambda d: d["movieMentions"].update({"1": 5}), "film 1: its name must be a text, got 5"),
        (without("initiatorQuestions"), "initiatorQuestions must be an object by film id, got no"),
        (lambda d: d.update(respondentQuestions=3), "respondentQuestions must be .* got 3"),
        (
            lambda d: d["initiatorQuestions"].update({"1": 1}),
            "film 1: an answer must be an object, got 1",
        ),
        (
            lambda d: d["initiatorQuestions"]["1"].update(liked="yes"),
            "film 1: liked must be 0, 1 or 2, got 'yes'",
        ),
        (lambda d: d["initiatorQuestions"]["1"].update(seen=3), "film 1: seen must be .* got 3"),
        (
            lambda d: d["initiatorQuestions"]["1"].pop("suggested"),
            "film 1: suggested must be 0, 1 or 2, got no such key",
        ),
        (without("messages"), "messages must be a list, got no such key"),
        (lambda d: d["messages"].append("hi"), "a message must have a text, got 'hi'"),
        (lambda d: d["messages"].append({}), "a message must have a text, got {}"),
    ],
)
def test_a_dialogue_of_the_wrong_shape_names_file_line_and_place(
    read: Read, make_dialogue: Make, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    broken = make_dialogue(2, 1, {"1": "liked"})
    change(broken)
    with pytest.raises(DataError, match=rf"train_data.jsonl:2: {message}"):
        read(make_dialogue(1, 1, {"1": "liked"}), broken)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{]", "each line must be one JSON object: not JSON: .*may be cut off"),
        (b'{"a": "\xff"}', "each line must be one JSON object: "),
        (b"9" * 5000, "each line must be one JSON object: "),
        (b"[" * 100_000, "each line must be one JSON object: "),
        (b"[1, 2]", r"a dialogue must be a JSON object, got \[1, 2\]"),
    ],
)
def test_a_broken_line_names_file_and_line(
    tmp_path: Path, write_redial: Write, make_dialogue: Make, line: bytes, message: str
) -> None:
    folder = write_redial(tmp_path, [make_dialogue(1, 1, {"1": "liked"})], MOVIES)
    with (folder / "train_data.jsonl").open("ab") as file:
        file.write(b"\n" + line + b"\n")
    with pytest.raises(DataError, match=rf"train_data.jsonl:3: {message}"):
        read_redial(folder, movie_facts=None)


def test_a_train_file_cut_anywhere_inside_its_last_line_is_refused(
    tmp_path: Path, write_redial: Write, make_dialogue: Make
) -> None:
    dialogues = [make_dialogue(number, 1, {"1": "liked"}) for number in (1, 2)]
    folder = write_redial(tmp_path, dialogues, MOVIES)
    whole = (folder / "train_data.jsonl").read_bytes()
    second_line = whole.index(b"\n") + 1
    for length in range(second_line + 1, len(whole) - 1, 7):
        (folder / "train_data.jsonl").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"train_data.jsonl:2: .*may be cut off"):
            read_redial(folder, movie_facts=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r":1: the first line must name the columns movieId and movieName, got \[\]"),
        ("id,name\n1,A\n", r":1: the first line must name the columns"),
        ("movieId,movieName,nbMentions\n1,A,1\n2,B\n", r":3: a film must have 3 columns, got 2"),
        (
            "movieId,movieName,nbMentions\n1,A,1\n2, ,1\n",
            r":3: film '2' must have an id and a name",
        ),
        (
            "movieId,movieName,nbMentions\n,A,1\n",
            r":2: film '' must have an id and a name, got 'A'",
        ),
        ("movieId,movieName,nbMentions\n1,A,1\n1,B,1\n", r":3: film 1 stands twice"),
        ('movieId,movieName,nbMentions\n1,"A', r":2: not CSV: .*may be cut off"),
    ],
)
def test_a_broken_list_of_films_names_file_and_line(
    tmp_path: Path, write_redial: Write, make_dialogue: Make, content: str, message: str
) -> None:
    folder = write_redial(tmp_path, [make_dialogue(1, 1, {"1": "liked"})], MOVIES)
    (folder / "movies_with_mentions.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"movies_with_mentions.csv{message}"):
        read_redial(folder, movie_facts=None)


def test_a_list_of_films_that_is_not_utf8(tmp_path: Path, write_redial: Write) -> None:
    folder = write_redial(tmp_path, [], MOVIES)
    (folder / "movies_with_mentions.csv").write_bytes(b"movieId\xff")
    with pytest.raises(DataError, match=r"mentions.csv: not UTF-8 text: .* at byte 7"):
        read_redial(folder, movie_facts=None)


def test_an_empty_catalogue_and_an_empty_train_file_are_refused(
    tmp_path: Path, write_redial: Write, make_dialogue: Make
) -> None:
    folder = write_redial(tmp_path, [make_dialogue(1, 1, {})], {})
    with pytest.raises(DataError, match="the catalogue is empty"):
        read_redial(folder, movie_facts=None)
    folder = write_redial(tmp_path, [], MOVIES)
    with pytest.raises(DataError, match=r"train_data.jsonl: must hold one dialogue a line"):
        read_redial(folder, movie_facts=None)


@pytest.mark.parametrize("name", ["train_data.jsonl", "movies_with_mentions.csv"])
def test_a_missing_file_is_named(
    tmp_path: Path, write_redial: Write, make_dialogue: Make, name: str
) -> None:
    folder = write_redial(tmp_path, [make_dialogue(1, 1, {"1": "liked"})], MOVIES)
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: no such file; ReDial's folder must hold"):
        read_redial(folder, movie_facts=None)


def test_configured_movie_facts_must_be_there_and_others_need_not(
    tmp_path: Path, write_redial: Write, make_dialogue: Make
) -> None:
    folder = write_redial(tmp_path, [make_dialogue(1, 1, {"1": "liked"})], MOVIES)
    assert read_redial(folder, movie_facts=None).catalogue["1"].facts == {}
    with pytest.raises(DataError, match=r"gone.json: cannot be read: No such file"):
        read_redial(folder, movie_facts=tmp_path / "gone.json")
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"1": {"star": ["Ivo"]}}', encoding="utf-8")
    assert read_redial(folder, movie_facts=elsewhere).catalogue["1"].facts == {"star": ("Ivo",)}


def test_the_digests_are_those_of_the_files(
    tmp_path: Path, write_redial: Write, make_dialogue: Make
) -> None:
    folder = write_redial(tmp_path, [make_dialogue(1, 1, {"1": "liked"})], MOVIES, {"1": {}})
    paths = [
        folder / "train_data.jsonl",
        folder / "movies_with_mentions.csv",
        tmp_path / "movie_kg" / "movies.json",
    ]
    assert read_redial(folder, movie_facts=None).digests == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def test_the_folder_is_found_where_it_is_configured_then_in_the_data_root_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PKGLLM_DATA", str(tmp_path / "root"))
    with pytest.raises(DataError, match=r"looked at .*root/redial and data/redial; put train_data"):
        find_redial(None)
    (tmp_path / "data" / "redial").mkdir(parents=True)
    assert find_redial(None) == Path("data", "redial")
    (tmp_path / "root" / "redial").mkdir(parents=True)
    assert find_redial(None) == tmp_path / "root" / "redial"
    monkeypatch.delenv("PKGLLM_DATA")
    assert find_redial(None) == Path("data", "redial")
    (tmp_path / "mine").mkdir()
    assert find_redial("mine") == Path("mine")


def test_a_configured_folder_that_is_not_there_is_never_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "redial").mkdir(parents=True)
    with pytest.raises(DataError, match=r"looked at gone; put"):
        find_redial("gone")


@given(st.text())
def test_folded_text_has_single_blanks_and_is_folded_for_good(text: str) -> None:
    folded = fold(text)
    assert folded == folded.strip()
    assert "  " not in folded
    assert fold(folded) == folded
    assert folded.split() == text.split()


DATA = os.environ.get("PKGLLM_DATA")


@pytest.mark.slow
@pytest.mark.skipif(
    DATA is None or not Path(DATA, "redial").is_dir(), reason="PKGLLM_DATA names no ReDial"
)
def test_redial_itself_loads_with_the_known_counts() -> None:
    folder = find_redial(None)
    corpus = read_redial(folder, movie_facts=None)
    if len((folder / "train_data.jsonl").read_bytes().splitlines()) != 4260:
        pytest.skip("another part of ReDial")
    num_liked = [len(graph.with_relation("liked")) for graph in corpus.graphs]
    assert len(corpus.graphs) == 469
    assert sum(count == 0 for count in num_liked) == 9
    kept, left_out = take_part(corpus, min_liked=5, below_min_liked="leave_out")
    assert (len(kept.graphs), len(left_out.clients)) == (351, 118)
    splits = split_corpus(kept, test_share=0.2, validation_share=0.1, unseen=frozenset())
    # Taking the partner's answers only where a seeker filled in nothing at all makes it 2,949.
    assert sum(len(split.test) for split in splits) == 2950
