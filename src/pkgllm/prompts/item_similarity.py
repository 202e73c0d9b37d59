"""Which items share public values, such as a director, with the items that a person likes."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import ConfigError

_Value = tuple[str, str]
"""A public relation and what stands at its end: ``("director", "Akira Kurosawa")``."""


class AdamicAdar:
    r"""The Adamic-Adar index of items over public relations of the catalogue.

    An item :math:`y` is similar to the liked items :math:`L` by every public value that they share;
    a value counts less the more items :math:`d_v` have it:

    .. math:: w_y = \sum_{x \in L} \sum_{v \in V_x \cap V_y} \frac{1}{\log d_v}

    Source: Adamic and Adar 2003, "Friends and neighbors on the web", Social Networks 25.

    Only the catalogue is read, so the weights depend on no other person's facts.

    Raises:
        ConfigError: If no item has a value of some relation.

    Example:
        >>> from pkgllm.corpora.catalogue import Item
        >>> films = Catalogue([
        ...     Item("1", "Ran (1985)", {"director": ("Kurosawa",), "genre": ("drama",)}),
        ...     Item("2", "Ikiru (1952)", {"director": ("Kurosawa",), "genre": ("drama",)}),
        ...     Item("3", "Fargo (1996)", {"director": ("Coen",), "genre": ("drama",)}),
        ... ])
        >>> similarity = AdamicAdar(films, ["director", "genre"])
        >>> similarity.weights(["1"]).round(2).tolist()
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
        # A value that one item has connects nothing.
        self._columns = {
            value: np.array(sharing) for value, sharing in columns.items() if len(sharing) > 1
        }
        self._relations = tuple(relations)

    def weights(self, liked: Collection[str]) -> NDArray[np.float64]:
        """Return the index of each item with the liked items.

        Args:
            liked: Ids of items; those that are not in the catalogue count nothing.

        Returns:
            Shape ``(catalogue,)``; 0 without a shared value, and for the liked items themselves.
        """
        weights = np.zeros(len(self._catalogue))
        for item in liked:
            if item not in self._catalogue:
                continue
            facts = self._catalogue[item].facts
            for relation in self._relations:
                for value in facts.get(relation, ()):
                    columns = self._columns.get((relation, value))
                    if columns is not None:
                        weights[columns] += 1.0 / np.log(len(columns))
        weights[[self._catalogue.index_by_id[i] for i in liked if i in self._catalogue]] = 0.0
        return weights

    def strongest(
        self, liked: Collection[str], taken: Collection[str], count: int, rng: np.random.Generator
    ) -> tuple[str, ...]:
        """Return the ids of the items with the largest weights above 0, at most ``count``.

        Args:
            liked: Ids of liked items.
            taken: Ids of items to leave out.
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
