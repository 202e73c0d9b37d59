import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pkgllm.privacy.mechanisms import NeighboringRelation
from pkgllm.privacy.statements import Guarantee, statement, written


@given(st.floats(0, 1e6))
def test_the_written_epsilon_is_no_smaller_than_the_real_one(epsilon: float) -> None:
    assert epsilon - 1e-6 <= float(written(epsilon)) <= epsilon + 0.01 + 1e-6


def test_a_statement_of_local_noise_says_what_is_promised_against_whom() -> None:
    found = Guarantee(
        "client",
        2.991,
        1e-3,
        "prv",
        neighboring_relation=NeighboringRelation.ZERO_OUT_ONE,
        share_epsilon=7.301,
        min_shares=4,
    )
    assert statement(found) == (
        "Privacy: epsilon 3.00 at delta 0.001 for whoever sees only sums of at least 4 shares of "
        "the noise, and epsilon 7.31 for the server, which sees single shares; unit client, zero "
        "out one; accountant prv."
    )
    assert statement(replace(found, share_epsilon=2.991, min_shares=1)) == (
        "Privacy: epsilon 3.00 at delta 0.001 for everybody, the server included; unit client, "
        "zero out one; accountant prv."
    )


def test_a_statement_names_all_that_makes_the_number_mean_something() -> None:
    said = statement(Guarantee("example", math.inf, 1e-5, "rdp"))
    assert said == (
        "Privacy: epsilon infinite at delta 1e-05; unit example, add or remove one; accountant rdp."
    )


def test_where_clients_keep_the_ledgers_a_statement_names_the_bound() -> None:
    said = statement(Guarantee("example", 8.0, 1e-5, "prv", kept_by_clients=True))
    assert said == (
        "Privacy: epsilon at most 8.00 at delta 1e-05; unit example, add or remove one; "
        "accountant prv; each client's ledger is on its device."
    )
