"""Items that the public graph connects with what a person likes: liked -> value -> item."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import ConfigError

_Value = tuple[str, str]
"""A public relation and what stands at its end: ``("director", "Akira Kurosawa")``."""


class PublicPaths:
    r"""The rules "who likes :math:`x` likes :math:`y`, which has the same value", with weights.

    A rule's instances are paths :math:`x \to v \leftarrow y` over one public relation. A value that
    few items share says more, so a path weighs the less the more items :math:`d_v` have its value
    (Adamic and Adar 2003, "Friends and neighbors on the web"):

    .. math:: w_y = \sum_{x \in L} \sum_{v \in V_x \cap V_y} \frac{1}{\log d_v}

    Only the catalogue is read, so no person's facts make a rule likelier for another person.

    Args:
        catalogue: The items with their public facts.
        relations: Over which relations paths lead.

    Raises:
        ConfigError: If the catalogue has none of some relation.

    Example:
        >>> from pkgllm.corpora.catalogue import Item
        >>> films = Catalogue([
        ...     Item("1", "Ran (1985)", {"director": ("Kurosawa",), "genre": ("drama",)}),
        ...     Item("2", "Ikiru (1952)", {"director": ("Kurosawa",), "genre": ("drama",)}),
        ...     Item("3", "Fargo (1996)", {"director": ("Coen",), "genre": ("drama",)}),
        ... ])
        >>> paths = PublicPaths(films, ["director", "genre"])
        >>> paths.weights(["1"]).round(2).tolist()
        [0.0, 2.35, 0.91]
    """

    def __init__(self, catalogue: Catalogue, relations: Sequence[str]) -> None:
        self._catalogue = catalogue
        columns: defaultdict[_Value, list[int]] = defaultdict(list)
        for column, item in enumerate(catalogue):
            for relation in relations:
                for value in item.facts.get(relation, ()):
                    columns[relation, value].append(column)
        known = {relation for relation, _ in columns}
        if missing := [relation for relation in relations if relation not in known]:
            have = sorted({relation for item in catalogue for relation in item.facts})
            raise ConfigError(
                f"synthetic.relations: no item of the catalogue has a {missing[0]}; "
                + (f"choose from {', '.join(have)}" if have else "it has no public facts at all")
            )
        # A value of one item leads nowhere.
        self._columns = {
            value: np.array(found) for value, found in columns.items() if len(found) > 1
        }
        self._relations = tuple(relations)

    def weights(self, liked: Collection[str]) -> NDArray[np.float64]:
        """Return how strongly each item is connected with some liked ones.

        Args:
            liked: Ids of items; those that are not in the catalogue lead nowhere.

        Returns:
            Shape ``(catalogue,)``; 0 without a path, and for the liked items themselves.
        """
        found = np.zeros(len(self._catalogue))
        for item in liked:
            if item not in self._catalogue:
                continue
            facts = self._catalogue[item].facts
            for relation in self._relations:
                for value in facts.get(relation, ()):
                    columns = self._columns.get((relation, value))
                    if columns is not None:
                        found[columns] += 1.0 / np.log(len(columns))
        found[[self._catalogue.index_by_id[i] for i in liked if i in self._catalogue]] = 0.0
        return found

    def strongest(
        self, liked: Collection[str], taken: Collection[str], count: int, rng: np.random.Generator
    ) -> tuple[str, ...]:
        """Return the ids of the items that are connected best, at most ``count``.

        Args:
            liked: Ids of liked items.
            taken: Ids of items that are not wanted.
            count: How many at most.
            rng: Orders items of equal weight.
        """
        weights = self.weights(liked)
        weights[[self._catalogue.index_by_id[i] for i in taken if i in self._catalogue]] = 0.0
        drawn = rng.permutation(len(weights))
        ordered = drawn[np.argsort(-weights[drawn], kind="stable")]
        return tuple(
            self._catalogue.items[int(column)].id for column in ordered[:count] if weights[column]
        )
