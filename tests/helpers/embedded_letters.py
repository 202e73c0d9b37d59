"""Clients that like letters, in a world where vowels and consonants are kinds of letters."""

from collections.abc import Iterable
from dataclasses import replace

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.embeddings.comp_gcn import CompGcn
from pkgllm.kge.embeddings.complex import Complex
from pkgllm.kge.embeddings.hake import Hake
from pkgllm.kge.embeddings.kbgat import Kbgat
from pkgllm.kge.embeddings.node_piece import NodePiece
from pkgllm.kge.embeddings.rotate import Rotate
from pkgllm.kge.embeddings.tucker import Tucker
from pkgllm.kge.settings import Schedule

LETTERS = "abcdefghij"
VOWELS, CONSONANTS = "aei", "bcdfghj"
CATALOGUE = Catalogue(
    Item(
        letter,
        letter.upper(),
        {
            "genre": ("vowel" if letter in VOWELS else "consonant",),
            "star": (f"sign {number % 3}",),
            "director": (f"sign {number % 2}",),
        },
    )
    for number, letter in enumerate(LETTERS)
)

SCHEDULE = Schedule(epochs=40, batch_size=32, num_negatives=8, learning_rate=0.03)
CHOICES: list[Embedding] = [
    Hake(dim=8, margin=4.0, schedule=SCHEDULE),
    Rotate(dim=8, margin=4.0, schedule=SCHEDULE),
    Complex(dim=8, schedule=SCHEDULE),
    Tucker(dim=8, relation_dim=4, schedule=SCHEDULE),
    CompGcn(dim=8, schedule=SCHEDULE),
    NodePiece(dim=8, schedule=SCHEDULE),
    Kbgat(
        transe_dim=8,
        dim=4,
        transe_schedule=SCHEDULE,
        attention_schedule=replace(SCHEDULE, batch_size=None),
        decoder_schedule=replace(SCHEDULE, epochs=100),
        filters=8,
        dropout=0.0,
        decoder_dropout=0.0,
    ),
]


def graph_of(
    owner: str, *, liked: Iterable[str] = "", disliked: Iterable[str] = ""
) -> PersonalGraph:
    said = Provenance("own_answer", "conversation/1")
    facts = [("liked", item) for item in liked] + [("disliked", item) for item in disliked]
    return PersonalGraph(
        owner,
        tuple(
            Fact("liked" if relation == "liked" else "disliked", item, item, Moment(0, place), said)
            for place, (relation, item) in enumerate(facts)
        ),
    )


TRAINING = [
    graph_of(f"vowels {n}", liked=VOWELS.replace(VOWELS[n % 3], "") if n else VOWELS)
    for n in range(6)
] + [graph_of(f"consonants {n}", liked=CONSONANTS.replace(CONSONANTS[n], "")) for n in range(6)]


def asked(graph: PersonalGraph, *, seen: bool = False) -> ClientQueries:
    return ClientQueries(graph.owner, seen, graph, ("z",))
