"""The mean of products, against the dense product and numpy's SVD of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.algorithm_steps import Server, some_adapter
from helpers.quadratic_clients import same_bytes
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.algorithms.stack_svd import mean_of_products, refactor
from pkgllm.federation.messages import Update
from pkgllm.lm.adapter import AdapterState


def stacked(updates: list[AdapterState], weights: list[float] | None = None) -> AdapterState:
    return Server(FedAvg(), some_adapter(0), mean_of_products).take(updates, weights)


def product(adapter: AdapterState) -> np.ndarray:
    return np.asarray((adapter["layer.lora_B"].double() @ adapter["layer.lora_A"].double()).numpy())


def test_the_mean_of_factors_is_not_the_mean_of_products() -> None:
    # Two clients found the same product 1 with opposite signs of both factors.
    one = {"layer.lora_A": torch.ones(1, 1), "layer.lora_B": torch.ones(1, 1)}
    other = {key: -value for key, value in one.items()}
    assert product(Server(FedAvg(), one).take([one, other])).tolist() == [[0.0]]
    products = Server(FedAvg(), one, mean_of_products)
    assert product(products.take([one, other])) == pytest.approx(1.0)


def test_one_clients_product_stays() -> None:
    np.testing.assert_allclose(
        product(stacked([some_adapter(3)])), product(some_adapter(3)), atol=1e-6
    )


def test_clients_that_differ_in_one_factor_have_their_mean_product() -> None:
    # They share A, as under FFA-LoRA, so the mean has rank 2 as well.
    first = some_adapter(1)
    second = {**first, "layer.lora_B": some_adapter(2)["layer.lora_B"]}
    expected = (product(first) + 3 * product(second)) / 4
    np.testing.assert_allclose(product(stacked([first, second], [1.0, 3.0])), expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_it_is_the_best_approximation_of_the_mean_product(seed: int, num_clients: int) -> None:
    updates = [some_adapter(seed + n) for n in range(num_clients)]
    weights = [float(n + 1) for n in range(num_clients)]
    mean = np.average([product(update) for update in updates], axis=0, weights=weights)
    u, s, vt = np.linalg.svd(mean)
    best = u[:, :2] * s[:2] @ vt[:2]
    found = product(stacked(updates, weights))
    # Eckart and Young: nothing of rank 2 is closer, though ties may be broken otherwise.
    assert np.linalg.norm(mean - found) == pytest.approx(np.linalg.norm(mean - best), abs=1e-5)
    assert np.linalg.matrix_rank(found, tol=1e-5) <= 2


def test_factors_are_of_equal_products_equal_and_a_has_orthonormal_rows() -> None:
    generator = np.random.default_rng(0)
    second, first = generator.normal(size=(5, 3)), generator.normal(size=(3, 6))
    mix = generator.normal(size=(3, 3))
    found = refactor(second, first, lora_rank=2)
    again = refactor(second @ mix, np.linalg.inv(mix) @ first, lora_rank=2)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    np.testing.assert_allclose(found[1] @ found[1].T, np.eye(2), atol=1e-12)
    assert all(row[np.abs(row).argmax()] > 0 for row in found[1])


def test_what_nobody_uses_yet_can_still_be_trained() -> None:
    # A fresh adapter: B is 0. Were A 0 as well, no gradient would ever reach either.
    fresh = {**some_adapter(1), "layer.lora_B": torch.zeros(4, 2)}
    found = stacked([fresh, fresh])
    assert not found["layer.lora_B"].any()
    assert torch.linalg.matrix_rank(found["layer.lora_A"]) == 2


def test_a_layer_narrower_than_the_rank_is_filled_up_with_zeros() -> None:
    second, first = refactor(np.ones((1, 3)), np.ones((3, 2)), lora_rank=3)
    assert (second.shape, first.shape) == ((1, 3), (3, 2))
    np.testing.assert_allclose(second @ first, [[3.0, 3.0]])


def test_it_is_the_same_to_the_bit_each_time() -> None:
    updates = [some_adapter(n) for n in range(4)]
    assert same_bytes(stacked(updates), stacked(updates))


def test_keys_that_are_no_factors_are_refused() -> None:
    adapter = {**some_adapter(0), "bias": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"pairs of lora_A and lora_B, got \['bias'\]"):
        mean_of_products([Update(adapter=adapter)], adapter)
