"""What leaves clients that add their share of the noise, and what a round of them releases."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message

from helpers.noisy_rounds import (
    CLIENTS,
    KEYS,
    NUM_VALUES,
    SIZE,
    TAKING_MEANS,
    big_adapter,
    clipped,
    fits,
    values,
)
from helpers.one_process import federate
from helpers.quadratic_clients import QuadraticClients, same_bytes
from pkgllm.errors import FederationError, PrivacyError
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.algorithms.scaffold import Scaffold
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.cohort import sample_cohort
from pkgllm.federation.flower.records import ARRAYS, CONFIG, to_adapter
from pkgllm.federation.messages import Instruction
from pkgllm.federation.round_privacy import LocalNoiseRounds
from pkgllm.federation.rounds import RoundRecord
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.noise import NoiseSource, fixed, secure

SETTINGS = LocalNoise(clip_norm=2.0, noise_multiplier=1.5, min_shares=4)


def free_rounds(kind: type[LocalNoiseRounds] = LocalNoiseRounds) -> LocalNoiseRounds:
    """Rounds of nine that anybody can afford."""
    return kind(
        SETTINGS,
        expected_cohort=9,
        charge=lambda round_num, cohort: None,
        affordable=lambda cohort: True,
        trained=KEYS,
    )


class Bare(ClientNoise):
    """Forgets the share of some clients, and the clip with it."""

    forgetful: Sequence[str] = ()

    def protect(self, client: str, asked: Instruction, trained: AdapterState) -> AdapterState:
        return trained if client in self.forgetful else super().protect(client, asked, trained)


class Recorded:
    """A federation of quadratic clients, with all that it sent and charged."""

    def __init__(
        self,
        settings: LocalNoise = SETTINGS,
        *,
        own: LocalNoise | None = None,
        targets: Mapping[str, float] = CLIENTS,
        cohort_size: int = 9,
        algorithm: Algorithm | None = None,
        trained: Sequence[str] = KEYS,
        source: NoiseSource | None = None,
        folder: Path | None = None,
        faults: Mapping[str, AdapterState | Exception] | None = None,
        noise: ClientNoise | None = None,
        affordable: Any = lambda cohort: True,
        **more: Any,
    ) -> None:
        self.messages: list[Message] = []
        self.charged: list[tuple[int, tuple[str, ...]]] = []
        self.sent_before: list[int] = []
        self.records: list[RoundRecord] = []
        self.trainer = QuadraticClients(targets, faults=faults)
        self.adapter = federate(
            trainer=self.trainer,
            clients=list(targets),
            initial=big_adapter(),
            cohort_size=cohort_size,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            algorithm=algorithm,
            states=ClientStates(folder) if folder else None,
            min_updates=settings.min_shares,
            on_round=self.records.append,
            on_message=self.messages.append,
            noise=noise or ClientNoise(own or settings, source=source or secure(), trained=trained),
            privacy=LocalNoiseRounds(
                settings,
                expected_cohort=cohort_size,
                charge=self.charge,
                affordable=affordable,
                trained=trained,
            ),
            **{"num_rounds": 1, **more},
        )

    def charge(self, round_num: int, cohort: Sequence[str]) -> None:
        self.charged.append((round_num, tuple(cohort)))
        self.sent_before.append(len(self.instructions()))

    def instructions(self) -> list[Message]:
        return [
            message
            for message in self.messages
            if message.metadata.message_type == "train" and not message.metadata.reply_to_message_id
        ]

    def shares(self) -> list[np.ndarray]:
        """What clients sent, as steps from the adapter of round 1."""
        return list(map(values, self.adapters()))

    def adapters(self) -> list[AdapterState]:
        """What clients sent."""
        return [
            to_adapter(message.content.array_records[ARRAYS])
            for message in self.messages
            if message.metadata.message_type == "train"
            and message.metadata.reply_to_message_id
            and message.has_content()
        ]


@pytest.mark.parametrize(("min_shares", "louder"), [(9, 1.0), (4, 1.5), (1, 3.0)])
def test_the_released_noise_has_its_standard_deviation_and_no_other(
    min_shares: int, louder: float
) -> None:
    run = Recorded(LocalNoise(2.0, 1.5, min_shares), cohort_size=9)
    (record,) = run.records
    assert len(record.cohort) == 9
    residuals = values(run.adapter) - sum(clipped(c, 2.0) for c in record.cohort) / 9
    # Nine shares came, and as few as min_shares make up the noise that was promised.
    std = louder * 1.5 * 2.0 / 9
    assert fits(residuals, std)
    assert not fits(residuals, 0.9 * std)
    assert not fits(residuals, 1.1 * std)


def test_every_share_by_itself_has_its_standard_deviation_and_no_other() -> None:
    run = Recorded(cohort_size=9)
    std = 1.5 * 2.0 / math.sqrt(4)
    assert len(run.shares()) == 9
    for client, share in zip(run.records[0].cohort, run.shares(), strict=True):
        residuals = share - clipped(client, 2.0)
        assert fits(residuals, std), client
        assert not fits(residuals, 0.9 * std), client
        assert not fits(residuals, 1.1 * std), client


def test_every_share_is_clipped_before_it_is_noised() -> None:
    run = Recorded(LocalNoise(0.5, 1e-9, 4))
    for client, share in zip(run.records[0].cohort, run.shares(), strict=True):
        expected = 0.5 if CLIENTS[client] else 0.0
        assert np.linalg.norm(share) == pytest.approx(expected, rel=1e-5, abs=1e-6), client


@pytest.mark.parametrize("source", [secure(), fixed(2)], ids=["secure", "fixed"])
def test_no_two_clients_and_no_two_rounds_share_noise(source: NoiseSource) -> None:
    run = Recorded(num_rounds=3, targets=dict.fromkeys(CLIENTS, 0.0), source=source)
    sent = np.stack(run.shares())
    # Rounds start from different adapters, but what is the same in all of a round's shares has no
    # part in how they differ.
    rounds = sent.reshape(3, 9, NUM_VALUES)
    noise = (rounds - rounds.mean(1, keepdims=True)).reshape(27, NUM_VALUES)
    found = np.corrcoef(noise)
    same_round = np.kron(np.eye(3), np.ones((9, 9))) > 0
    # Taking off the mean of nine correlates those of one round by -1/8.
    expected = np.where(same_round, -1 / 8, 0.0)
    off_diagonal = ~np.eye(27, dtype=bool)
    assert np.abs(found - expected)[off_diagonal].max() < 6 / math.sqrt(NUM_VALUES)


def test_a_forgotten_share_would_show_in_what_is_sent_and_in_the_sum() -> None:
    cohort = sample_cohort(list(CLIENTS), 4, 0, 1)
    noise = Bare(SETTINGS, source=secure(), trained=KEYS)
    noise.forgetful = cohort[:1]
    run = Recorded(noise=noise, cohort_size=4)
    shares = dict(zip(cohort, run.shares(), strict=True))
    std = SETTINGS.share_std
    fitting = {c for c, share in shares.items() if fits(share - clipped(c, 2.0), std)}
    assert fitting == set(cohort[1:])
    residuals = values(run.adapter) - run.adapter["layer.lora_A"].mean().item()
    assert not fits(residuals, std * math.sqrt(4) / 4)
    assert fits(residuals, std * math.sqrt(3) / 4)


def test_a_round_is_charged_before_anything_of_it_is_sent() -> None:
    run = Recorded(num_rounds=3)
    assert run.charged == [(r, sample_cohort(list(CLIENTS), 9, 0, r)) for r in (1, 2, 3)]
    assert run.sent_before == [0, 9, 18]


def test_a_round_that_cannot_be_charged_asks_nobody() -> None:
    class Full(LocalNoiseRounds):
        """Cannot write its second round down."""

        def begin(self, round_num: int, cohort: Sequence[str]) -> LocalNoise:
            if round_num == 2:
                raise PrivacyError("the ledger is full")
            return super().begin(round_num, cohort)

    trainer = QuadraticClients(CLIENTS)
    with pytest.raises(PrivacyError, match="the ledger is full"):
        federate(
            trainer=trainer,
            clients=list(CLIENTS),
            initial=big_adapter(),
            num_rounds=3,
            cohort_size=9,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            min_updates=4,
            noise=ClientNoise(SETTINGS, source=secure(), trained=KEYS),
            privacy=free_rounds(Full),
        )
    assert [round_num for round_num, _, _ in trainer.calls] == [1]


def test_a_round_with_too_few_shares_is_not_released_and_stays_charged() -> None:
    cohort = sample_cohort(list(CLIENTS), 9, 0, 2)
    failing: dict[str, AdapterState | Exception] = dict.fromkeys(cohort[:6], ValueError())
    first = set(sample_cohort(list(CLIENTS), 9, 0, 1))
    assert len(first - set(failing)) >= 4
    recorded: list[Recorded] = []

    class Kept(Recorded):
        def charge(self, round_num: int, cohort: Sequence[str]) -> None:
            super().charge(round_num, cohort)
            recorded[:] = [self]

    with pytest.raises(FederationError, match="round 2: at least 4 of 9 clients must send"):
        Kept(num_rounds=2, faults=failing)
    (run,) = recorded
    assert [round_num for round_num, _ in run.charged] == [1, 2]
    assert [record.round_num for record in run.records] == [1]


def test_who_fails_is_left_out_and_the_denominator_stays() -> None:
    cohort = sample_cohort(list(CLIENTS), 9, 0, 1)
    run = Recorded(
        LocalNoise(0.5, 1e-9, 4), faults=dict.fromkeys(cohort[-3:], ValueError("private"))
    )
    assert set(run.records[0].failed) == set(cohort[-3:])
    moving = [client for client in cohort[:-3] if CLIENTS[client]]
    assert np.linalg.norm(values(run.adapter)) == pytest.approx(0.5 * len(moving) / 9, rel=1e-5)


def test_who_is_drawn_and_not_connected_leaves_too_few_shares() -> None:
    def run(num_connected: int) -> RoundRecord:
        seen: list[RoundRecord] = []
        cohort = sample_cohort(list(CLIENTS), 9, 0, 1)
        federate(
            trainer=QuadraticClients(CLIENTS),
            clients=list(CLIENTS),
            connected=cohort[:num_connected],
            initial=big_adapter(),
            num_rounds=1,
            cohort_size=9,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            min_updates=4,
            on_round=seen.append,
            noise=ClientNoise(SETTINGS, source=secure(), trained=KEYS),
            privacy=free_rounds(),
        )
        return seen[0]

    record = run(4)
    assert len(record.cohort) == 9
    assert record.failed == dict.fromkeys(record.cohort[4:], "not connected")
    with pytest.raises(FederationError, match="at least 4 shares, got 3; the round is not"):
        run(3)


def test_a_client_that_trained_to_no_number_sends_noise_alone() -> None:
    cohort = sample_cohort(list(CLIENTS), 9, 0, 1)
    run = Recorded(faults={cohort[0]: big_adapter(math.nan)})
    assert run.records[0].failed == {}
    assert fits(run.shares()[0], SETTINGS.share_std)


def test_training_ends_before_a_round_that_somebody_cannot_afford() -> None:
    asked: list[tuple[str, ...]] = []

    def affordable(cohort: Sequence[str]) -> bool:
        asked.append(tuple(cohort))
        return len(asked) < 3

    run = Recorded(num_rounds=9, affordable=affordable)
    assert len(run.records) == len(run.charged) == 2
    assert same_bytes(run.adapter, run.records[-1].adapter)


def test_frozen_factors_are_sent_as_they_came() -> None:
    run = Recorded(trained=["layer.lora_B"])
    half = math.prod(SIZE)
    for share in run.shares():
        assert not share[:half].any()
        assert share[half:].all()
    assert torch.equal(run.adapter["layer.lora_A"], torch.zeros(SIZE))


def test_fixed_noise_repeats_itself_whatever_the_cohort_trained_together() -> None:
    one, other = (Recorded(source=fixed(3), num_rounds=2) for _ in range(2))
    assert same_bytes(one.adapter, other.adapter)
    assert not same_bytes(one.adapter, Recorded(num_rounds=2).adapter)


def test_the_server_says_what_it_counts_on() -> None:
    run = Recorded()
    for message in run.instructions():
        config = message.content.config_records[CONFIG]
        told = {key: config[key] for key in ("clip_norm", "noise_multiplier", "min_shares")}
        assert told == {"clip_norm": 2.0, "noise_multiplier": 1.5, "min_shares": 4}


@pytest.mark.parametrize(
    "own", [LocalNoise(2.0, 1.5, 5), LocalNoise(2.0, 0.5, 4), LocalNoise(3.0, 1.5, 4)]
)
def test_a_client_with_other_settings_trains_and_sends_nothing(
    own: LocalNoise, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FederationError, match="raised FederationError"):
        Recorded(own=own)
    assert "give both sides the same privacy section and mode.min_updates" in caplog.text


@pytest.mark.parametrize("forgetful", ["client", "server"])
def test_both_sides_must_know_of_the_noise(
    forgetful: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = QuadraticClients(CLIENTS)
    rounds = free_rounds()
    noise = ClientNoise(SETTINGS, source=secure(), trained=KEYS)
    sent: list[Message] = []
    with pytest.raises(FederationError, match="raised FederationError"):
        federate(
            trainer=trainer,
            clients=list(CLIENTS),
            initial=big_adapter(),
            num_rounds=1,
            cohort_size=9,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            on_message=sent.append,
            noise=None if forgetful == "client" else noise,
            privacy=rounds if forgetful == "client" else None,
        )
    assert "give both sides the same privacy section" in caplog.text
    assert trainer.calls == []
    replies = [m for m in sent if m.metadata.reply_to_message_id and m.has_content()]
    assert not any(reply.content.array_records for reply in replies)


@pytest.mark.parametrize("algorithm", TAKING_MEANS, ids=lambda algorithm: algorithm.name)
def test_what_the_server_remembers_comes_from_the_sums_alone(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    def run(label: str, targets: Mapping[str, float]) -> RoundRecord:
        class SameShares(LocalNoiseRounds):
            """Releases the same mean whatever came."""

            def release(
                self, round_num: int, before: AdapterState, updates: Sequence[Any]
            ) -> AdapterState:
                return super().release(
                    round_num, before, Recorded(source=fixed(round_num)).adapters()
                )

        seen: list[RoundRecord] = []
        federate(
            trainer=QuadraticClients(targets),
            clients=list(targets),
            initial=big_adapter(),
            num_rounds=3,
            cohort_size=9,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            algorithm=algorithm,
            states=ClientStates(tmp_path / label),
            min_updates=4,
            on_round=seen.append,
            noise=ClientNoise(SETTINGS, source=secure(), trained=KEYS),
            privacy=free_rounds(SameShares),
        )
        return seen[-1]

    one = run("one", CLIENTS)
    other = run("other", {client: -7.0 * value for client, value in CLIENTS.items()})
    assert same_bytes(one.adapter, other.adapter)
    assert one.state.keys() == other.state.keys()
    for key, value in one.state.items():
        assert torch.equal(value, other.state[key]), key


def test_scaffold_keeps_control_variates_and_sends_shares(tmp_path: Path) -> None:
    run = Recorded(
        algorithm=Scaffold(),
        folder=tmp_path,
        num_rounds=2,
    )
    assert [record.failed for record in run.records] == [{}, {}]
    first = run.shares()[:9]
    for client, share in zip(run.records[0].cohort, first, strict=True):
        assert fits(share - clipped(client, 2.0), SETTINGS.share_std)
