from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.schema import Experiment
from pkgllm.errors import PrivacyError
from pkgllm.federation.cohort import sample_cohort
from pkgllm.pipeline.privacy import check_run, noisy_unit, participation_of, plan_run
from pkgllm.pipeline.statement import privacy_statement
from pkgllm.privacy.accounting import epsilon, fact_epsilon
from pkgllm.privacy.mechanisms import Mechanism, NeighboringRelation, SamplingSchedule
from pkgllm.privacy.planner import settle_noise
from pkgllm.privacy.statements import guarantee_of
from pkgllm.privacy.unit import NoisyUnit

pytest_plugins = ["helpers.finished_runs"]

# The quicker accountant; what prices is proved beside it.
CLIENT = {
    "name": "client",
    "delta": 0.01,
    "clip_norm": 0.5,
    "noise_multiplier": 1.5,
    "accountant": "rdp",
}
EXAMPLE = {
    "name": "example",
    "delta": 0.01,
    "clip_norm": 1.0,
    "noise_multiplier": 2.0,
    "expected_batch_size": 2,
    "accountant": "rdp",
}
DPO = {"name": "dpo"}


@pytest.fixture(scope="module")
def make(data: Path, tiny_base_folder: Path) -> Callable[..., Experiment]:
    def experiment(privacy: dict[str, Any], **sections: Any) -> Experiment:
        return tiny_experiment(
            data, tiny_base_folder, **{"privacy": privacy, "objective": DPO, **sections}
        )

    return experiment


Make = Callable[..., Experiment]


def federated(rounds: int, cohort_size: int) -> dict[str, Any]:
    return {"name": "federated", "rounds": rounds, "cohort_size": cohort_size}


def unit_of(config: Experiment) -> NoisyUnit:
    unit = noisy_unit(config)
    assert unit is not None
    return unit


def planned_schedules(
    config: Experiment, num_groups: dict[str, int], rounds: int | None = None
) -> tuple[SamplingSchedule, ...]:
    participation = participation_of(config, num_groups)
    return unit_of(config).schedules(participation, rounds or participation.rounds)


def test_with_unit_client_all_share_one_schedule(make: Make) -> None:
    config = make(CLIENT, mode=federated(8, 3))
    groups = {f"{n}": 5 for n in range(12)}
    assert planned_schedules(config, groups) == (SamplingSchedule(0.25, 8),)
    assert planned_schedules(config, groups, rounds=2) == (SamplingSchedule(0.25, 2),)


LOCAL = {**CLIENT, "mechanism": "local"}


def test_with_local_noise_each_client_counts_the_rounds_it_is_drawn_in(make: Make) -> None:
    config = make(LOCAL, mode=federated(6, 2))
    groups = {"ann": 1, "bob": 2, "cem": 4, "dan": 8}
    drawn = [c for r in range(1, 7) for c in sample_cohort(sorted(groups), 2, 7, round_num=r)]
    expected = [SamplingSchedule(1.0, drawn.count(client)) for client in set(drawn)]
    assert sorted(planned_schedules(config, groups), key=repr) == sorted(expected, key=repr)


def test_a_plan_of_local_noise_by_hand(make: Make) -> None:
    plan = plan_run(make(LOCAL, mode={**federated(4, 10), "min_updates": 9}))
    # All ten are drawn in each of the four rounds.
    assert (plan.sampling_probability, plan.steps) == ((1.0, 1.0), (4, 4))
    assert plan.guarantee.neighboring_relation is NeighboringRelation.ZERO_OUT_ONE
    assert plan.guarantee.min_shares == 9
    for spending in plan.by_round:
        for multiplier, found in ((1.5, spending.epsilon), (0.5, spending.share_epsilon)):
            one = Mechanism(multiplier, 1.0, spending.round_num)
            assert found == epsilon([one], delta=0.01, accountant="rdp")
    assert plan.guarantee.share_epsilon == plan.by_round[-1].share_epsilon
    louder = (10 / 9) ** 0.5
    assert plan.noise_norm == pytest.approx(louder * 1.5 * plan.num_parameters**0.5 / 10)


def test_with_unit_example_each_client_counts_the_rounds_it_is_drawn_in(make: Make) -> None:
    config = make(EXAMPLE, mode=federated(5, 2), training={"local_steps": 3})
    groups = {"ann": 1, "bob": 2, "cem": 4, "dan": 8}
    drawn = [c for r in range(1, 6) for c in sample_cohort(sorted(groups), 2, 7, round_num=r)]
    # Two groups are expected in a step; who has fewer puts in all of them.
    probability = {"ann": 1.0, "bob": 1.0, "cem": 0.5, "dan": 0.25}
    expected = [SamplingSchedule(probability[c], 3 * drawn.count(c)) for c in set(drawn)]
    assert sorted(planned_schedules(config, groups), key=repr) == sorted(expected, key=repr)


def test_in_a_deployment_each_client_takes_itself_for_drawn_in_every_round(make: Make) -> None:
    mode = {**federated(5, 2), "runtime": {"name": "deployment"}}
    config = make({**EXAMPLE, "max_epsilon": 9.0}, mode=mode, training={"local_steps": 3})
    assert planned_schedules(config, {"ann": 1, "dan": 8}) == (
        SamplingSchedule(1.0, 15),
        SamplingSchedule(0.25, 15),
    )
    assert planned_schedules(config, {"dan": 8}, rounds=2) == (SamplingSchedule(0.25, 6),)


def test_pooled_graphs_are_one_client(make: Make) -> None:
    mode = {"name": "centralized", "rounds": 5, "cohort_size": 4}
    config = make(EXAMPLE, mode=mode, training={"local_steps": 3})
    assert planned_schedules(config, {"ann": 6, "bob": 2}) == (SamplingSchedule(0.25, 60),)


@pytest.mark.slow
def test_a_plan_of_the_unit_client_by_hand(make: Make) -> None:
    # Twelve people, two of them unseen.
    plan = plan_run(make(CLIENT, mode=federated(8, 4)))
    assert (plan.num_clients, plan.num_units) == (10, (10, 10))
    assert plan.sampling_probability == (0.4, 0.4)
    assert plan.steps == (8, 8)
    assert [s.round_num for s in plan.by_round] == [1, 2, 4, 6, 8]
    for spending in plan.by_round:
        one = Mechanism(1.5, 0.4, spending.round_num)
        assert spending.epsilon == epsilon([one], delta=0.01, accountant="rdp")
        assert spending.fact_epsilon is None
    assert plan.guarantee.epsilon == plan.by_round[-1].epsilon
    # Two layers of width 32: q, k, v, o, gate, up and down of rank 2.
    widths = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    num_parameters = 2 * 2 * sum(a + b for a, b in widths)
    assert plan.num_parameters == num_parameters
    assert plan.noise_norm == pytest.approx(1.5 * num_parameters**0.5 / 4)


@pytest.mark.slow
def test_a_plan_of_the_unit_example_tells_what_a_fact_costs(make: Make) -> None:
    plan = plan_run(make({**EXAMPLE, "expected_batch_size": 1}, mode=federated(2, 10)))
    # Everybody is drawn in both rounds and makes one step in each. Of three windows the oldest
    # would be the third group of its facts.
    assert (plan.num_units, plan.steps) == ((2, 2), (2, 2))
    one = Mechanism(2.0, 1 / 2, 2)
    assert plan.guarantee.epsilon == epsilon([one], delta=0.01, accountant="rdp")
    assert plan.guarantee.fact_epsilon == fact_epsilon(
        [one], max_groups=2, delta=0.01, accountant="rdp"
    )


def test_the_budget_ends_the_plan_where_it_ends_the_run(make: Make) -> None:
    config = make({**CLIENT, "max_epsilon": 1.5}, mode=federated(8, 4))
    plan = plan_run(config)

    def after(rounds: int) -> float:
        return epsilon([Mechanism(1.5, 0.4, rounds)], delta=0.01, accountant="rdp")

    assert 0 < plan.last_round < 8
    assert after(plan.last_round) <= 1.5 < after(plan.last_round + 1)


@pytest.mark.slow
def test_a_target_is_reached_at_the_end_of_the_worst_client(make: Make) -> None:
    chosen = {**EXAMPLE, "noise_multiplier": None, "target_epsilon": 4.0}
    config = make(chosen, mode=federated(6, 2))
    groups = {"ann": 2, "bob": 5, "cem": 9, "dan": 9}
    noise = settle_noise(unit_of(config), participation_of(config, groups))
    spent = [
        epsilon([s.mechanism(noise)], delta=0.01, accountant="rdp")
        for s in planned_schedules(config, groups)
    ]
    assert 3.95 < max(spent) <= 4.0


def test_adaptive_clipping_may_not_spend_all_of_a_target(make: Make) -> None:
    chosen = {
        **CLIENT,
        "noise_multiplier": None,
        "target_epsilon": 1.0,
        "adaptive_clipping": {"count_noise_std": 0.1},
    }
    config = make(chosen, mode=federated(2, 2))
    with pytest.raises(PrivacyError, match=r"count_noise_std must be above half of the noise"):
        settle_noise(unit_of(config), participation_of(config, {f"{n}": 1 for n in range(20)}))


@pytest.mark.parametrize(
    ("privacy", "groups", "limit"),
    [
        (CLIENT, {f"{n}": 3 for n in range(100)}, r"1 / 100 = 0\.01, .* 100 training clients"),
        (EXAMPLE, {"ann": 3, "bob": 200}, r"1 / 200 = 0\.005, .* 200 examples of a client"),
    ],
)
def test_delta_is_below_one_by_the_number_of_units(
    make: Make, privacy: dict[str, Any], groups: dict[str, int], limit: str
) -> None:
    with pytest.raises(PrivacyError, match=f"privacy.delta must be below {limit}"):
        check_run(make(privacy), groups)


def test_what_a_table_says_of_privacy(make: Make) -> None:
    assert privacy_statement(make({"name": "none"})) == (
        "Privacy: none, no epsilon can be given; nothing but updates leaves the clients."
    )
    marked = make({**EXAMPLE, "report_private_metrics": True})
    said = privacy_statement(marked, guarantee_of(unit_of(marked), 2.991, 6.2))
    assert said == (
        "Privacy: not private, because losses and counts leave the clients without noise; without "
        "that epsilon 3.00 at delta 0.01; unit example, add or remove one; accountant rdp; of one "
        "fact, which enters at most 2 groups, epsilon 6.20."
    )
    assert privacy_statement(make(CLIENT)) == (
        "Privacy: unit client; the epsilon that was spent is not on record."
    )
