from dataclasses import replace

import pytest

from helpers.printed import printed
from pkgllm.privacy.audit import Finding
from pkgllm.privacy.planner import PrivacyPlan, Spending, plan_warnings
from pkgllm.privacy.statements import Guarantee
from pkgllm.report.document import Table
from pkgllm.report.privacy import audit_document, canaries_document, plan_document

PLAN = PrivacyPlan(
    guarantee=Guarantee("client", 2.0, 1e-4, "prv"),
    num_clients=500,
    num_units=(500, 500),
    sampling_probability=(0.1, 0.1),
    steps=(20, 20),
    noise_multiplier=1.5,
    calibrated=False,
    clip_norm=0.1,
    denominator=50,
    num_parameters=10_000,
    by_round=(Spending(1, 0.3, None), Spending(20, 2.0, None)),
    last_round=20,
    num_rounds=20,
    budget=None,
)


def shown(plan: PrivacyPlan) -> str:
    return " ".join(printed(plan_document(plan), 100).split())


def test_the_noise_is_stated_by_signal() -> None:
    # The root of 10,000 is 100, and 1.5 * 100 by 50 is 3.
    assert "noise by signal of a step 3 " in shown(PLAN)
    assert "noise multiplier 1.5, as given" in shown(PLAN)
    assert "20 2.00" in shown(PLAN)


def test_a_range_is_stated_where_clients_differ() -> None:
    text = shown(replace(PLAN, steps=(4, 28), num_units=(3, 7), calibrated=True))
    assert "noisy steps 4 to 28" in text
    assert "3 to 7" in text
    assert "1.5, computed from target_epsilon" in text


def test_good_numbers_give_no_warning() -> None:
    assert list(plan_warnings(PLAN)) == []
    assert len(plan_document(PLAN).notes) == 1


LOCAL = replace(
    PLAN,
    guarantee=replace(PLAN.guarantee, share_epsilon=7.0, min_shares=25),
    by_round=(Spending(1, 0.3, None, 0.7), Spending(20, 2.0, None, 7.0)),
)


def test_of_local_noise_both_views_are_stated() -> None:
    text = shown(LOCAL)
    assert "sums shares" in text
    assert "20 2.00 7.00" in text
    assert "shares that make it up 25, mode.min_updates" in text
    # 1.5 by the root of 25.
    assert "noise multiplier of one share 0.3" in text
    # Fifty shares come, so the noise is louder by the root of 2 than the plain one of 3.
    assert "noise by signal of a step 4.24" in text
    assert "among which one is hidden" not in text
    assert list(plan_warnings(LOCAL)) == []
    assert any("Who takes part counts as known" in remark for remark in plan_document(LOCAL).notes)


EXAMPLE = Guarantee("example", 2.0, 1e-4, "prv", fact_epsilon=5.0, max_groups_per_fact=2)


@pytest.mark.parametrize(
    ("plan", "piece"),
    [
        (replace(PLAN, guarantee=replace(PLAN.guarantee, delta=0.002)), "not below 1 / 500"),
        (replace(PLAN, num_units=(99, 99)), "99 clients are too few"),
        (
            replace(LOCAL, guarantee=replace(LOCAL.guarantee, share_epsilon=12.0)),
            "epsilon 12 guarantees next to nothing against the server",
        ),
        (
            replace(PLAN, guarantee=EXAMPLE, num_units=(9, 99)),
            "no client has more than 99",
        ),
        (replace(PLAN, budget=1.0, last_round=7), "budget of 1 ends the run after round 7 of 20"),
        (replace(PLAN, guarantee=replace(PLAN.guarantee, epsilon=12.0)), "next to nothing"),
        (
            replace(PLAN, guarantee=replace(PLAN.guarantee, not_private="losses leave")),
            "the run is not private, because losses leave",
        ),
    ],
)
def test_numbers_that_mean_little_are_warned_of(plan: PrivacyPlan, piece: str) -> None:
    (warning,) = plan_warnings(plan)
    assert piece in warning
    assert plan_document(plan).notes[-1] == f"Warning: {warning}."


def test_a_finding_out_of_its_range_is_a_fault() -> None:
    document = audit_document(
        [Finding("client level", "epsilon", 1.0, 0.0, 2.0), Finding("clip", "mean", 5.0, 0.5, 2.0)]
    )
    (table,) = document.blocks
    assert isinstance(table, Table)
    good, fault = table.rows
    assert [cell.text for cell in good[2:]] == ["1.000", "at most 2.000", "good"]
    assert [cell.text for cell in fault[2:]] == ["5.000", "0.500 to 2.000", "FAULT"]
    assert (good[-1].alarm, fault[-1].alarm) == (False, True)


def test_canaries_stand_under_their_measures() -> None:
    measures = ("auroc", "true_positive_rate", "one_run_epsilon", "f_dp_epsilon")
    values = {name: place / 8 for place, name in enumerate(measures)}
    row = {"repeats": 5, "num_canaries": 50, "num_included": 24, **values}
    text = printed(canaries_document([{**row, "clopper_pearson_epsilon": 2.0}]), 80)
    assert "5 x 50 24 0.000 0.125 0.250 0.375 2.000" in " ".join(text.split())
