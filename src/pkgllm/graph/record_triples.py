"""What a change of a record changes in the RDF graph that the record was read from.

The graph may hold anything beside the record: other classes and properties of the same nodes, other
nodes, other ways to write the same value. A change takes away and adds the triples of the
statements and edits that changed, and touches no other. A fact that ends keeps its triples as they
are written, under the name of a past fact, so that to undo the edit gives the graph as it was.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal

from rdflib import namespace
from rdflib.namespace import RDF
from rdflib.term import Literal, Node, URIRef

from pkgllm.graph import vocabulary
from pkgllm.graph.personal_graph import Fact
from pkgllm.graph.personal_record import Edit, PersonalRecord, Statement
from pkgllm.graph.record_reader import Nodes
from pkgllm.graph.rules import Rule

Triple = tuple[Node, Node, Node]


def _predicates(*iris: str) -> tuple[URIRef, ...]:
    return tuple(URIRef(form) for iri in iris for form in vocabulary.spellings(iri))


_OF_BOTH = (vocabulary.ATTRIBUTED_TO, vocabulary.DERIVED_FROM, vocabulary.GENERATED_BY)
_FACT = _predicates(
    vocabulary.RELATION,
    vocabulary.ITEM,
    vocabulary.SESSION,
    vocabulary.POSITION,
    vocabulary.ITEM_NAME,
    *_OF_BOTH,
)
_RULE = _predicates(
    vocabulary.IDENTIFIER,
    vocabulary.DIRECTION,
    vocabulary.SCOPE,
    vocabulary.VALUE,
    vocabulary.STRENGTH,
    *_OF_BOTH,
)
_EDIT = _predicates(vocabulary.NUMBER, vocabulary.ACTION, vocabulary.ENDED_AT, vocabulary.DESCRIBED)
_LINKS = {
    (Fact, True): (vocabulary.HAS_FACT, vocabulary.FACT),
    (Fact, False): (vocabulary.HAS_PAST, vocabulary.PAST_FACT),
    (Rule, True): (vocabulary.HAS_RULE, vocabulary.RULE),
    (Rule, False): (vocabulary.HAS_PAST, vocabulary.PAST_RULE),
}


def owner_triples(owner: str) -> frozenset[Triple]:
    """Return the graph of a person without facts."""
    return frozenset({(owner_node(owner), RDF.type, URIRef(vocabulary.OWNER))})


def owner_node(owner: str) -> URIRef:
    """Return the node that stands for an owner in a new graph."""
    return URIRef(vocabulary.OWNERS.iri(owner))


def changed(
    triples: Iterable[Triple], before: PersonalRecord, nodes: Nodes, after: PersonalRecord
) -> tuple[frozenset[Triple], Nodes]:
    """Return the triples of a graph after its record has changed, and where the new one stands.

    Args:
        triples: The graph, the record's triples among others.
        before: The record in it.
        nodes: Where the record stands.
        after: A record of the same owner.
    """
    change = _Change(set(triples), before, nodes, after)
    old = [s for s in before.statements if s not in set(after.statements)]
    new = [s for s in after.statements if s not in set(before.statements)]
    pairs, removed, added = _paired(old, new)
    for edit in before.edits:
        if edit not in after.edits:
            change.remove_edit(edit)
    for edit in after.edits:
        if edit not in before.edits:
            change.add_edit(edit)
    # A node that one statement leaves may be the next one's.
    for statement in removed:
        change.remove(statement)
    for was, is_ in pairs:
        change.move(was, is_)
    for statement in added:
        change.add(statement)
    change.remove_items()
    return frozenset(change.triples), change.nodes()


def _paired(
    old: list[Statement], new: list[Statement]
) -> tuple[list[tuple[Statement, Statement]], list[Statement], list[Statement]]:
    """Return statements of one content with how they stood and stand, then the others."""
    rest = list(new)
    pairs, removed = [], []
    for was in old:
        same = next((s for s in rest if s.content == was.content), None)
        if same is None:
            removed.append(was)
        else:
            rest.remove(same)
            pairs.append((was, same))
    return pairs, removed, rest


class _Change:
    def __init__(
        self, triples: set[Triple], before: PersonalRecord, nodes: Nodes, after: PersonalRecord
    ) -> None:
        self.triples = triples
        self._nodes = nodes
        self._owner = nodes.owner
        self._before = before
        self._after = after
        self._by_subject: dict[Node, set[Triple]] = {}
        for triple in triples:
            self._by_subject.setdefault(triple[0], set()).add(triple)
        self._items = dict(nodes.items)
        self._documents = dict(nodes.documents)
        self._statements = dict(nodes.statements)
        self._described = set(nodes.described)
        self._known = {s.content.tail for s in before.statements if isinstance(s.content, Fact)}

    def nodes(self) -> Nodes:
        """Return where everything stands now."""
        return Nodes(
            self._owner,
            self._items,
            self._documents,
            self._statements,
            frozenset(self._described),
        )

    def add(self, statement: Statement) -> None:
        node = self._statements[statement] = self._new_node(statement)
        content = statement.content
        self._link(node, statement)
        if isinstance(content, Fact):
            self._add_fact(node, content, statement)
        else:
            self._add_rule(node, content)
        source = URIRef(vocabulary.NAMESPACE + content.provenance.source)
        self._put(node, vocabulary.ATTRIBUTED_TO, source)
        document = content.provenance.document
        usual = URIRef(vocabulary.DOCUMENTS.iri(document))
        self._put(node, vocabulary.DERIVED_FROM, self._documents.setdefault(document, usual))
        if statement.made_by is not None:
            self._put(node, vocabulary.GENERATED_BY, self._edit_node(statement.made_by))

    def remove(self, statement: Statement) -> None:
        node = self._statements.pop(statement)
        self._unlink(node, statement)
        self._take(node, _FACT if isinstance(statement.content, Fact) else _RULE)
        self._take(node, (URIRef(vocabulary.ALTERNATE_OF),))

    def move(self, was: Statement, is_: Statement) -> None:
        """Give a statement another state: current, or ended, or made by no edit."""
        node = self._statements.pop(was)
        self._unlink(node, was)
        target = node
        if isinstance(was.content, Fact) and (was.ended_by is None) != (is_.ended_by is None):
            target = self._other_node(node, was, is_)
            for triple in self._take(node, _FACT):
                self._add((target, *triple[1:]))
        self._statements[is_] = target
        self._link(target, is_)
        if was.made_by != is_.made_by:
            self._take(target, (URIRef(vocabulary.GENERATED_BY),))
            if is_.made_by is not None:
                self._put(target, vocabulary.GENERATED_BY, self._edit_node(is_.made_by))

    def add_edit(self, edit: Edit) -> None:
        node = self._edit_node(edit.number)
        self._put(self._owner, vocabulary.HAS_EDIT, node)
        self._put(node, str(RDF.type), URIRef(vocabulary.EDIT))
        self._put(node, vocabulary.NUMBER, Literal(edit.number))
        self._put(node, vocabulary.ACTION, Literal(edit.action))
        time = Literal(edit.time.isoformat(), datatype=namespace.XSD.dateTime, normalize=False)
        self._put(node, vocabulary.ENDED_AT, time)

    def remove_edit(self, edit: Edit) -> None:
        node = self._edit_node(edit.number)
        self._discard((self._owner, URIRef(vocabulary.HAS_EDIT), node))
        self._discard((node, RDF.type, URIRef(vocabulary.EDIT)))
        self._take(node, _EDIT)
        self._described = {each for each in self._described if each[0] != edit.number}

    def remove_items(self) -> None:
        """Remove what an edit wrote about items of which no statement is left."""
        left = {s.content.tail for s in self._after.statements if isinstance(s.content, Fact)}
        kept = {tail for _, tail in self._nodes.described}
        gone = {
            s.content.tail: s.content
            for s in self._before.statements
            if isinstance(s.content, Fact) and s.content.tail not in left | kept
        }
        for fact in gone.values():
            for triple in _description(self._items[fact.tail], fact):
                self._discard(triple)

    def _add_fact(self, node: Node, fact: Fact, statement: Statement) -> None:
        item = self._items.setdefault(fact.tail, URIRef(vocabulary.ITEMS.iri(fact.tail)))
        self._put(node, vocabulary.RELATION, URIRef(vocabulary.IRI_BY_RELATION[fact.relation]))
        self._put(node, vocabulary.ITEM, item)
        self._put(node, vocabulary.SESSION, Literal(fact.time.session))
        self._put(node, vocabulary.POSITION, Literal(fact.time.position))
        if fact.tail not in self._known:
            self._known.add(fact.tail)
            self._describe(item, fact, statement)
        names = set(map(URIRef, vocabulary.spellings(vocabulary.NAME)))
        if not any(triple[1] in names for triple in self._by_subject.get(item, ())):
            self._put(node, vocabulary.ITEM_NAME, Literal(fact.name))

    def _describe(self, item: Node, fact: Fact, statement: Statement) -> None:
        """Say what an item is, unless somebody else did: that stays, when this is undone too."""
        if not self._by_subject.get(item):
            for triple in _description(item, fact):
                self._add(triple)
        elif statement.made_by is not None:
            self._put(self._edit_node(statement.made_by), vocabulary.DESCRIBED, item)
            self._described.add((statement.made_by, fact.tail))

    def _add_rule(self, node: Node, rule: Rule) -> None:
        self._put(node, vocabulary.IDENTIFIER, Literal(rule.id))
        self._put(node, vocabulary.DIRECTION, URIRef(vocabulary.NAMESPACE + rule.direction))
        self._put(node, vocabulary.SCOPE, Literal(rule.scope))
        self._put(node, vocabulary.VALUE, Literal(rule.value))
        # A decimal, because many writers shorten doubles.
        strength = f"{Decimal(repr(rule.strength)):f}"
        self._put(
            node,
            vocabulary.STRENGTH,
            Literal(strength, datatype=namespace.XSD.decimal, normalize=False),
        )

    def _link(self, node: Node, statement: Statement) -> None:
        link, kind = _LINKS[type(statement.content), statement.ended_by is None]
        self._put(self._owner, link, node)
        self._put(node, str(RDF.type), URIRef(kind))
        if statement.ended_by is not None:
            self._put(node, vocabulary.INVALIDATED_BY, self._edit_node(statement.ended_by))

    def _unlink(self, node: Node, statement: Statement) -> None:
        link, kind = _LINKS[type(statement.content), statement.ended_by is None]
        self._discard((self._owner, URIRef(link), node))
        self._discard((node, RDF.type, URIRef(kind)))
        self._take(node, (URIRef(vocabulary.INVALIDATED_BY),))

    def _other_node(self, node: Node, was: Statement, is_: Statement) -> Node:
        """Return the node of a fact that ends or is current again, and note an unusual name."""
        assert isinstance(was.content, Fact)
        usual = URIRef(vocabulary.FACTS.iri(self._before.owner, was.content.tail))
        if is_.ended_by is None:
            noted = self._take(node, (URIRef(vocabulary.ALTERNATE_OF),))
            return noted[0][2] if noted else usual
        target = self._new_node(is_)
        if node != usual:
            self._put(target, vocabulary.ALTERNATE_OF, node)
        return target

    def _new_node(self, statement: Statement) -> URIRef:
        owner, content = self._before.owner, statement.content
        if isinstance(content, Rule):
            return URIRef(vocabulary.RULES.iri(owner, content.id))
        if statement.ended_by is None:
            return URIRef(vocabulary.FACTS.iri(owner, content.tail))
        return URIRef(vocabulary.PAST_FACTS.iri(owner, content.tail, statement.ended_by))

    def _edit_node(self, number: int) -> URIRef:
        return URIRef(vocabulary.EDITS.iri(self._before.owner, number))

    def _put(self, subject: Node, predicate: str, value: Node) -> None:
        self._add((subject, URIRef(predicate), value))

    def _add(self, triple: Triple) -> None:
        self.triples.add(triple)
        self._by_subject.setdefault(triple[0], set()).add(triple)

    def _discard(self, triple: Triple) -> None:
        self.triples.discard(triple)
        self._by_subject.get(triple[0], set()).discard(triple)

    def _take(self, node: Node, predicates: tuple[URIRef, ...]) -> list[Triple]:
        """Remove a node's triples of some predicates, and return them."""
        taken = [t for t in self._by_subject.get(node, ()) if t[1] in predicates]
        for triple in taken:
            self._discard(triple)
        return taken


def _description(item: Node, fact: Fact) -> Iterator[Triple]:
    yield item, RDF.type, URIRef(vocabulary.item_class_iri(fact.item_class))
    yield item, URIRef(vocabulary.NAME), Literal(fact.name)
    yield item, URIRef(vocabulary.IDENTIFIER), Literal(fact.tail)
