import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from helpers.embedded_letters import CATALOGUE, CHOICES, TRAINING, graph_of
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.fold_in import Visible, draw_negatives, fold_in, mean_person
from pkgllm.kge.frozen import OwnModels, SharedModel
from pkgllm.kge.preference_graph import PreferenceGraph, make_preference_graph
from pkgllm.kge.pykeen_door import Model, entity_parts
from pkgllm.kge.settings import FoldIn
from pkgllm.kge.training import TrainingSetup, train_embeddings

GRAPH: PreferenceGraph = make_preference_graph(CATALOGUE, TRAINING)
SETTINGS = FoldIn(steps=5, learning_rate=0.05, num_negatives=3)
FITTED = [choice for choice in CHOICES if choice.name != "node_piece"]
WITH_A_TABLE = [choice for choice in FITTED if choice.name in ("hake", "rotate", "complex")]
WITH_OWN_TABLES = [choice for choice in FITTED if choice.name != "comp_gcn"]
LIKES = ["bcd", "", "a", "aeib", "g"]
PERSONS = torch.arange(len(GRAPH.persons))


@pytest.fixture(scope="module")
def trained() -> Callable[[Embedding], Model]:
    models: dict[str, Model] = {}

    def train(choice: Embedding) -> Model:
        if choice.name not in models:
            models[choice.name] = train_embeddings(choice, GRAPH.triples, TrainingSetup(seed=0))
        return models[choice.name]

    return train


def visible(owner: str, liked: str, start: list[torch.Tensor] | None = None) -> Visible:
    return Visible(owner, GRAPH.facts(graph_of(owner, liked=liked)), start)


def vector(model: Model, entity: int) -> list[torch.Tensor]:
    return [part[0] for part in entity_parts(model, torch.tensor([entity]))]


def fit(model: Model, persons: list[Visible], settings: FoldIn = SETTINGS) -> list[torch.Tensor]:
    prior = mean_person(model, PERSONS)
    return fold_in(
        SharedModel(model), persons, prior=prior, items=GRAPH.items, settings=settings, seed=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("choice", WITH_A_TABLE, ids=lambda choice: choice.name)
def test_a_fit_is_adam_on_one_row_of_the_model(
    choice: Embedding, trained: Callable[[Embedding], Model]
) -> None:
    model = copy.deepcopy(trained(choice))
    head = GRAPH.persons["vowels 0"]
    person = visible("vowels 0", "aeb", start=vector(model, head))
    facts = torch.from_numpy(person.facts)
    drawn = draw_negatives([person], GRAPH.items, SETTINGS, 0)
    fitted = fit(model, [person])

    tables = [
        parameter
        for name, parameter in model.named_parameters()
        if name.startswith("entity_representations")
    ]
    optimizer = torch.optim.Adam(tables, lr=SETTINGS.learning_rate)
    for step in range(SETTINGS.steps):
        optimizer.zero_grad()
        positive = [(head, relation, tail) for relation, tail in facts.tolist()]
        negative = [
            (head, relation, tail)
            for (relation, _), tails in zip(facts.tolist(), drawn[step].tolist(), strict=True)
            for tail in tails
        ]
        loss = model.loss.process_slcwa_scores(
            model.score_hrt(torch.tensor(positive)),
            model.score_hrt(torch.tensor(negative)).view(len(positive), -1),
        )
        torch.autograd.backward(loss * len(positive))
        for table in tables:
            assert table.grad is not None
            others = torch.arange(len(table)) != head
            table.grad[others] = 0
        optimizer.step()
    expected = entity_parts(model, torch.tensor([head]))
    for one, other in zip(fitted, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("choice", FITTED, ids=lambda choice: choice.name)
def test_nothing_but_the_person_moves_and_others_do_not_matter(
    choice: Embedding, trained: Callable[[Embedding], Model]
) -> None:
    model = trained(choice)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    persons = [visible("x", "bcd"), visible("y", ""), visible("z", "aei")]
    together = fit(model, persons)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for row, person in enumerate(persons):
        for part, alone in zip(together, fit(model, [person]), strict=True):
            assert torch.allclose(part[row], alone[0], atol=1e-5)
    assert not all(torch.equal(part[0], part[2]) for part in together)


@pytest.mark.parametrize("choice", WITH_OWN_TABLES, ids=lambda choice: choice.name)
def test_persons_with_models_of_their_own_are_fit_as_each_alone(
    choice: Embedding, trained: Callable[[Embedding], Model]
) -> None:
    models = [copy.deepcopy(trained(choice)) for _ in range(2)]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1 + 0.2 * torch.rand(parameter.shape))
    persons = [visible(name, likes) for name, likes in zip("vwxyz", LIKES, strict=True)]
    whose, prior = [0, 1, 1, 0, 1], mean_person(models[0], PERSONS)
    together = fold_in(
        OwnModels.copied(models, whose),
        persons,
        prior=prior,
        items=GRAPH.items,
        settings=SETTINGS,
        seed=0,
    )
    for row, person in enumerate(persons):
        alone, other = (
            fold_in(
                SharedModel(models[which]),
                [person],
                prior=prior,
                items=GRAPH.items,
                settings=SETTINGS,
                seed=0,
            )
            for which in (whose[row], 1 - whose[row])
        )
        for part, expected in zip(together, alone, strict=True):
            assert torch.allclose(part[row], expected[0], atol=1e-5)
        # The other model would have made somebody else of them.
        if len(person.facts):
            assert not all(
                torch.allclose(part[row], expected[0], atol=1e-5)
                for part, expected in zip(together, other, strict=True)
            )


def test_many_persons_with_models_of_their_own_are_fit_in_parts(
    trained: Callable[[Embedding], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(WITH_A_TABLE[0])
    persons = [visible(name, likes) for name, likes in zip("vwxyz", LIKES, strict=True)]
    frozen, prior = OwnModels.copied([model], [0] * 5), mean_person(model, PERSONS)
    whole = fold_in(frozen, persons, prior=prior, items=GRAPH.items, settings=SETTINGS, seed=0)
    # Two persons of at most four facts, each with three negatives.
    monkeypatch.setattr("pkgllm.kge.fold_in.PAIRS_AT_ONCE", 2 * 4 * 4)
    parts = fold_in(frozen, persons, prior=prior, items=GRAPH.items, settings=SETTINGS, seed=0)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_crowd_does_not_make_the_steps_smaller(
    trained: Callable[[Embedding], Model],
) -> None:
    # Adam sees the size of a gradient where it is small, as the mean over a crowd's facts is.
    model = copy.deepcopy(trained(WITH_A_TABLE[-1]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    crowd = [visible(f"p{number}", "bcd") for number in range(400)]
    (together,), (alone,) = fit(model, crowd), fit(model, crowd[:1])
    assert torch.allclose(together[0], alone[0], rtol=1e-4)


@pytest.mark.parametrize("choice", FITTED, ids=lambda choice: choice.name)
def test_where_a_fit_starts(choice: Embedding, trained: Callable[[Embedding], Model]) -> None:
    model = trained(choice)
    prior = mean_person(model, PERSONS)
    own = vector(model, 3)
    unmoved = fit(model, [visible("x", ""), visible("vowels 0", "", start=own)])
    unfit = fit(model, [visible("x", "ab"), visible("v", "ab", start=own)], FoldIn(steps=0))
    for part, mean, trained_part, other in zip(unmoved, prior, own, unfit, strict=True):
        assert torch.equal(part[0], mean)
        assert torch.equal(part[1], trained_part)
        assert torch.equal(part, other)
    assert [part.shape[0] for part in fit(model, [])] == [0] * len(prior)


def test_negatives_are_items_that_no_visible_fact_speaks_of() -> None:
    settings = FoldIn(steps=50, num_negatives=20)
    some, all_of_them = visible("x", "abc"), visible("y", "abcdefghij")
    drawn = draw_negatives([some, all_of_them], GRAPH.items, settings, 0)
    assert drawn.shape == (50, 13, 20)
    assert set(drawn[:, :3].flat) == set(GRAPH.items[3:].tolist())
    assert set(drawn[:, 3:].flat) == set(GRAPH.items.tolist())
    again = draw_negatives([some], GRAPH.items, settings, 0)
    assert np.array_equal(again, drawn[:, :3])
    assert not np.array_equal(again, draw_negatives([some], GRAPH.items, settings, 1))
