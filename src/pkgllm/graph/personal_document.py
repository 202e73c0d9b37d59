"""A person's file as a whole: the record in it, and everything that others wrote beside it."""

from collections.abc import Iterable
from dataclasses import dataclass

import rdflib
from rdflib.compare import isomorphic
from rdflib.graph import DATASET_DEFAULT_GRAPH_ID
from rdflib.namespace import RDF, NamespaceManager
from rdflib.term import BNode, IdentifiedNode, Node, URIRef

from pkgllm.errors import DataError
from pkgllm.graph import jsonld, vocabulary
from pkgllm.graph.personal_graph import Fact
from pkgllm.graph.personal_record import PersonalRecord, Statement
from pkgllm.graph.rdf_text import BASE, NAMES, blocks, parse, quiet, relative, turtle
from pkgllm.graph.record_reader import Nodes, read_nodes
from pkgllm.graph.record_triples import Triple, changed, owner_node, owner_triples
from pkgllm.graph.rules import Rule

_PREFIXES = {"pkg": vocabulary.NAMESPACE, "schema": vocabulary.SCHEMA, "prov": vocabulary.PROV}


@dataclass(frozen=True, slots=True)
class PersonalDocument:
    """The content of a person's file.

    After :meth:`changed`, the triples that differ are those of the edit; all others, of whatever
    vocabulary, stay as they are, named graphs among them.
    """

    record: PersonalRecord
    nodes: Nodes
    triples: frozenset[Triple]
    """The default graph, the record's triples among others."""
    named: dict[Node, set[Triple]]
    """The triples of each named graph."""
    prefixes: dict[str, str]

    @classmethod
    def new(cls, record: PersonalRecord) -> "PersonalDocument":
        """Return a document that holds a record and nothing beside it."""
        empty = PersonalRecord(record.owner)
        start = cls(empty, Nodes(owner_node(record.owner)), owner_triples(record.owner), {}, {})
        return start.changed(record)

    @classmethod
    def read(cls, text: str, format_: str, where: str) -> "PersonalDocument":
        """Return the document in a text.

        Raises:
            DataError: If the text is not in the format, or its default graph holds no valid record.
        """
        return cls.of(parse(text, format_, where=where), where)

    @classmethod
    def of(cls, dataset: rdflib.Dataset, where: str) -> "PersonalDocument":
        """Return the document in a dataset.

        Raises:
            DataError: If its default graph holds no valid record.
        """
        triples: set[Triple] = set()
        named: dict[Node, set[Triple]] = {}
        for subject, predicate, value, graph in dataset.quads():
            if graph is None or graph == DATASET_DEFAULT_GRAPH_ID:
                target = triples
            else:
                target = named.setdefault(graph, set())
            target.add((subject, predicate, value))
        owner = (RDF.type, URIRef(vocabulary.OWNER))
        if not any(triple[1:] == owner for triple in triples):
            for name in sorted(named, key=str):
                if any(triple[1:] == owner for triple in named[name]):
                    raise DataError(
                        f"{where}: the owner stands in the named graph {name}; a personal graph is "
                        "read from the default graph: take it out of the named one"
                    )
        record, nodes = read_nodes(_graph(triples), where)
        prefixes = {prefix: str(iri) for prefix, iri in dataset.namespaces() if prefix}
        return cls(record, nodes, frozenset(triples), named, prefixes)

    @property
    def num_others(self) -> int:
        """The number of triples that say nothing of the record."""
        own = len(PersonalDocument.new(self.record).triples)
        return len(self.triples) + sum(map(len, self.named.values())) - own

    def changed(self, record: PersonalRecord) -> "PersonalDocument":
        """Return the document with another record of the same owner."""
        triples, nodes = changed(self.triples, self.record, self.nodes, record)
        return PersonalDocument(record, nodes, triples, self.named, self.prefixes)

    def text(self, format_: str) -> str:
        """Return a new document as a text; one with others' content needs :meth:`exact_text`."""
        if format_ == "json-ld":
            return jsonld.document(self.triples, self.nodes.owner, self._order(), self.named)
        if format_ == "nquads":
            return self._plain(format_)
        dataset = self._dataset()
        for prefix, iri in (_PREFIXES | self.prefixes).items():
            dataset.bind(prefix, iri, override=False)
        return turtle(dataset) + blocks(dataset)

    def exact_text(self, format_: str, where: str) -> str:
        """Return the document as a text that was read back as the same quads.

        Raises:
            DataError: If the format cannot hold it: Turtle has no named graphs, N-Quads no relative
                IRIs, and no format an IRI with a space.
        """
        if format_ == "turtle" and self.named:
            raise DataError(
                f"{where}: Turtle cannot hold the named graph {next(iter(self.named))}; "
                "use the ending .jsonld, .trig or .nq"
            )
        if format_ == "nquads" and (iri := self._relative_iri()) is not None:
            raise DataError(
                f"{where}: N-Quads cannot hold the relative IRI <{iri}>; "
                "use the ending .jsonld, .ttl or .trig"
            )
        problem = ""
        with quiet():
            for write in (self.text, self._plain):
                try:
                    text = write(format_)
                    if self._same(parse(text, format_, where=where)):
                        return text
                except Exception as error:
                    # rdflib refuses what a format cannot express with errors of many types.
                    problem = f": {' '.join(str(error).split())}"
        raise DataError(
            f"{where}: what the graph holds cannot be written as {NAMES[format_]}{problem}"
        )

    def _relative_iri(self) -> str | None:
        for triples in (self.triples, *self.named.values()):
            for node in (node for triple in triples for node in triple):
                if isinstance(node, URIRef) and node.startswith(BASE):
                    return relative(node)
        return None

    def _plain(self, format_: str) -> str:
        """Return the text of a library's writer that shortens nothing: N-Triples are Turtle."""
        dataset = self._dataset()
        if format_ in ("turtle", "trig"):
            return str(dataset.default_graph.serialize(format="nt")) + blocks(dataset)
        return str(dataset.serialize(format=format_))

    def _dataset(self) -> rdflib.Dataset:
        dataset = rdflib.Dataset()
        dataset.namespace_manager = NamespaceManager(dataset, bind_namespaces="none")
        for triple in self.triples:
            dataset.default_graph.add(triple)
        for name, triples in self.named.items():
            assert isinstance(name, IdentifiedNode)
            graph = dataset.graph(name)
            for triple in triples:
                graph.add(triple)
        return dataset

    def _order(self) -> list[Node]:
        record, nodes = self.record, self.nodes.statements
        by_content = {s.content: s for s in record.statements if s.ended_by is None}
        contents: tuple[Fact | Rule, ...] = (*record.graph.facts, *record.rules)
        current: list[Statement] = [by_content[content] for content in contents]
        order = [nodes[s] for s in (*current, *record.past) if s in nodes]
        edits = (vocabulary.EDITS.iri(record.owner, edit.number) for edit in record.edits)
        return [*order, *map(URIRef, edits)]

    def _same(self, dataset: rdflib.Dataset) -> bool:
        read = PersonalDocument.of(dataset, "what was written")
        if read.triples == self.triples and read.named == self.named:
            return True
        mine, theirs = self._flat(), read._flat()
        return len(mine) == len(theirs) and isomorphic(mine, theirs)

    def _flat(self) -> rdflib.Graph:
        """Return all quads as triples, so that graphs with nodes without names can be compared."""
        flat = _graph(self.triples)
        for name, triples in self.named.items():
            for subject, predicate, value in triples:
                quad = BNode()
                for role, node in enumerate((name, subject, predicate, value)):
                    flat.add((quad, URIRef(f"urn:quad:{role}"), node))
        return flat


def _graph(triples: Iterable[Triple]) -> rdflib.Graph:
    graph = rdflib.Graph(bind_namespaces="none")
    for triple in triples:
        graph.add(triple)
    return graph
