"""What a server with a privacy unit releases and charges, through real messages."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.noisy_rounds import (
    CLIENTS,
    KEYS,
    SIZE,
    TAKING_MEANS,
    big_adapter,
    clipped,
    fits,
    values,
)
from helpers.one_process import federate
from helpers.quadratic_clients import QuadraticClients, same_bytes
from pkgllm.errors import PrivacyError
from pkgllm.federation import round_privacy
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.round_privacy import ClientLevelRounds, ExampleLevelRounds, cohort_sample
from pkgllm.federation.rounds import RoundRecord
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.adaptive_clipping import AdaptiveClipping
from pkgllm.privacy.audit import sampling_findings
from pkgllm.privacy.client_level import poisson_cohort
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.noise import NoiseSource, fixed, secure


def train(
    *,
    noise_multiplier: float = 1.0,
    clip_norm: float = 2.0,
    cohort_size: int = 5,
    num_rounds: int = 1,
    algorithm: Algorithm | None = None,
    states: ClientStates | None = None,
    trained: Sequence[str] = KEYS,
    adaptive: bool = False,
    charge: Callable[[int, Mechanism], None] = lambda round_num, mechanism: None,
    affordable: Callable[[Mechanism], bool] = lambda mechanism: True,
    noise: NoiseSource | None = None,
    seen: list[RoundRecord] | None = None,
) -> tuple[AdapterState, ClientLevelRounds]:
    clients = list(CLIENTS)
    privacy = ClientLevelRounds(
        noise_multiplier=noise_multiplier,
        clip_norm=clip_norm,
        adaptive_clipping=AdaptiveClipping(count_noise_std=5.0) if adaptive else None,
        num_clients=len(clients),
        expected_cohort=cohort_size,
        charge=charge,
        affordable=affordable,
        noise=noise or fixed(1),
        trained=trained,
    )
    adapter = federate(
        trainer=QuadraticClients(CLIENTS),
        clients=clients,
        algorithm=algorithm,
        states=states,
        initial=big_adapter(),
        num_rounds=num_rounds,
        cohort_size=cohort_size,
        seed=0,
        learning_rate=lambda round_num: 0.1,
        on_round=None if seen is None else seen.append,
        privacy=privacy,
    )
    return adapter, privacy


def test_the_released_noise_has_its_standard_deviation_and_no_other() -> None:
    seen: list[RoundRecord] = []
    noisy, _ = train(noise_multiplier=1.5, clip_norm=2.0, cohort_size=5, seen=seen)
    (record,) = seen
    residuals = values(noisy) - sum(clipped(c, 2.0) for c in record.cohort) / 5
    std = 1.5 * 2.0 / 5
    assert fits(residuals, std)
    assert not fits(residuals, 2 / 3 * std)
    assert not fits(residuals, 3 / 2 * std)


def test_the_sum_is_clipped_and_divided_by_the_expected_cohort() -> None:
    seen: list[RoundRecord] = []
    released, _ = train(noise_multiplier=1e-9, clip_norm=0.5, cohort_size=5, seen=seen)
    far = [client for client in seen[0].cohort if CLIENTS[client] > 0]
    # All go the same way, so the lengths of those that move at all add up.
    assert np.linalg.norm(values(released)) == pytest.approx(0.5 * len(far) / 5, rel=1e-5)


def test_cohorts_are_drawn_client_by_client_and_may_be_empty() -> None:
    seen: list[RoundRecord] = []
    train(cohort_size=1, num_rounds=60, seen=seen, noise=fixed(3))
    sizes = [len(record.cohort) for record in seen]
    assert min(sizes) == 0
    assert max(sizes) > 1
    # Binomial with mean 1 and variance .95: sixty of them are within five of its deviations.
    assert abs(np.mean(sizes) - 1) < 5 * math.sqrt(0.95 / 60)
    empty = next(record for record in seen if not record.cohort)
    assert empty.update_norm > 0


def test_cohorts_are_drawn_from_all_clients_and_who_is_not_connected_adds_nothing() -> None:
    charged: list[Mechanism] = []
    seen: list[RoundRecord] = []
    connected = [client for client in CLIENTS if CLIENTS[client] >= 10]

    def run(num_rounds: int, noise_multiplier: float) -> AdapterState:
        return federate(
            trainer=QuadraticClients(CLIENTS),
            clients=list(CLIENTS),
            connected=connected,
            initial=big_adapter(),
            num_rounds=num_rounds,
            cohort_size=10,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            min_updates=10,
            on_round=seen.append,
            privacy=ClientLevelRounds(
                noise_multiplier=noise_multiplier,
                clip_norm=0.5,
                adaptive_clipping=None,
                num_clients=len(CLIENTS),
                expected_cohort=10,
                charge=lambda round_num, mechanism: charged.append(mechanism),
                affordable=lambda mechanism: True,
                noise=fixed(6),
                trained=KEYS,
            ),
        )

    released = run(1, 1e-9)
    (record,) = seen
    absent = set(record.cohort) - set(connected)
    assert absent
    assert record.failed == dict.fromkeys(sorted(absent), "not connected")
    coming = len(record.cohort) - len(absent)
    assert np.linalg.norm(values(released)) == pytest.approx(0.5 * coming / 10, rel=1e-5)
    run(30, 1.0)
    assert set(charged[1:]) == {Mechanism(1.0, 10 / 20)}
    drawn = [client for record in seen[1:] for client in record.cohort]
    assert set(drawn) == set(CLIENTS)
    # Binomial with mean 300 and variance 150.
    assert abs(len(drawn) - 300) < 5 * math.sqrt(150)


@pytest.mark.parametrize("algorithm", TAKING_MEANS, ids=lambda algorithm: algorithm.name)
def test_every_algorithm_that_is_linear_takes_the_noisy_mean_also_of_empty_cohorts(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    seen: list[RoundRecord] = []
    train(
        algorithm=algorithm,
        states=ClientStates(tmp_path),
        cohort_size=1,
        num_rounds=12,
        noise=fixed(4),
        seen=seen,
    )
    assert len(seen) == 12
    assert not seen[0].cohort or any(not record.cohort for record in seen)
    assert all(math.isfinite(record.update_norm) and record.update_norm > 0 for record in seen)


@pytest.mark.parametrize("algorithm", TAKING_MEANS, ids=lambda algorithm: algorithm.name)
def test_what_is_released_depends_on_the_noisy_means_alone(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    class Loud(ClientLevelRounds):
        """Releases the same mean whatever came."""

        def release(self, round_num: int, before: AdapterState, updates: Sequence[Any]) -> Any:
            return super().release(round_num, before, [])

    def run(targets: Mapping[str, float]) -> RoundRecord:
        seen: list[RoundRecord] = []
        federate(
            trainer=QuadraticClients(targets),
            clients=list(targets),
            algorithm=algorithm,
            states=ClientStates(tmp_path / str(targets["p01"])),
            initial=big_adapter(),
            num_rounds=4,
            cohort_size=3,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            on_round=seen.append,
            privacy=Loud(
                noise_multiplier=1.0,
                clip_norm=1.0,
                adaptive_clipping=None,
                num_clients=len(targets),
                expected_cohort=3,
                charge=lambda round_num, mechanism: None,
                affordable=lambda mechanism: True,
                noise=fixed(9),
                trained=KEYS,
            ),
        )
        return seen[-1]

    one, other = run(CLIENTS), run({client: -7.0 * value for client, value in CLIENTS.items()})
    assert same_bytes(one.adapter, other.adapter)
    for key, value in one.state.items():
        assert torch.equal(value, other.state[key]), key


def test_a_round_that_cannot_be_charged_releases_nothing() -> None:
    seen: list[RoundRecord] = []

    def refuse(round_num: int, mechanism: Mechanism) -> None:
        if round_num == 3:
            raise PrivacyError("the ledger is full")

    with pytest.raises(PrivacyError, match="the ledger is full"):
        train(num_rounds=5, charge=refuse, seen=seen)
    assert [record.round_num for record in seen] == [1, 2]


def test_training_ends_before_the_round_that_would_exceed_the_budget() -> None:
    charged: list[Mechanism] = []
    seen: list[RoundRecord] = []
    adapter, _ = train(
        num_rounds=9,
        charge=lambda round_num, mechanism: charged.append(mechanism),
        affordable=lambda mechanism: len(charged) < 4,
        seen=seen,
    )
    assert len(seen) == len(charged) == 4
    assert same_bytes(adapter, seen[-1].adapter)
    assert set(charged) == {Mechanism(1.0, 5 / 20)}


def test_frozen_factors_get_neither_update_nor_noise() -> None:
    adapter, _ = train(trained=["layer.lora_B"])
    assert torch.equal(adapter["layer.lora_A"], torch.zeros(SIZE))
    assert (adapter["layer.lora_B"] != 0).all()


@pytest.mark.slow
def test_adaptive_clipping_follows_the_updates_and_noises_them_more() -> None:
    settings: dict[str, Any] = {"adaptive": True, "num_rounds": 20, "cohort_size": 15}
    _, high = train(clip_norm=1e4, noise_multiplier=1e-3, **settings)
    _, low = train(clip_norm=1e-4, noise_multiplier=1e-3, **settings)
    assert high.clip_norm < 1e4
    assert low.clip_norm > 1e-4


def test_the_unit_example_charges_the_whole_cohort_before_it_is_asked_also_who_fails() -> None:
    clients = QuadraticClients(dict.fromkeys("abc", 1.0), faults={"b": ZeroDivisionError()})
    charged: list[tuple[int, Sequence[str], int]] = []

    def charge(round_num: int, cohort: Sequence[str]) -> None:
        charged.append((round_num, cohort, len(clients.calls)))
        if round_num == 3:
            raise PrivacyError("the ledger is full")

    with pytest.raises(PrivacyError, match="the ledger is full"):
        federate(
            trainer=clients,
            clients=list("abc"),
            initial=big_adapter(),
            num_rounds=4,
            cohort_size=3,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            privacy=ExampleLevelRounds(lambda cohort: True, charge),
        )
    whole = ("a", "b", "c")
    assert charged == [(1, whole, 0), (2, whole, 1), (3, whole, 2)]
    assert len(clients.calls) == 2


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.97])
def test_an_audit_passes_the_draw_of_the_rounds(probability: float) -> None:
    findings = sampling_findings(probability, secure(), cohort_sample)
    assert all(finding.passed for finding in findings)


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        (
            lambda clients, share, noise: tuple(
                noise.choice(sorted(clients), round(share * len(clients)), replace=False)
            ),
            "variance of units drawn over Poisson's",
        ),
        (
            lambda clients, share, noise: poisson_cohort(clients, share / 2, noise),
            "units drawn over those expected",
        ),
    ],
)
def test_an_audit_notices_what_is_wrong_with_the_draw_of_the_rounds(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[..., tuple[str, ...]], case: str
) -> None:
    monkeypatch.setattr(round_privacy, "poisson_cohort", fault)
    findings = sampling_findings(0.2, secure(), cohort_sample)
    assert case in {finding.statistic for finding in findings if not finding.passed}
