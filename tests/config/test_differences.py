import pytest

from pkgllm.config.differences import differences
from pkgllm.config.load import load_config


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("seed=3", ["seed: 0 there, 3 given"]),
        ("training.learning_rate=0.25", ["training.learning_rate: 0.003 there, 0.25 given"]),
        ("output=elsewhere", []),
        ("prompt.answer_mark='-'", ["prompt.answer_mark: '' there, '-' given"]),
        (
            "mode={name: centralized, rounds: 16}",
            [
                "mode.name: 'federated' there, 'centralized' given",
                "mode.cohort_size: 12 there, 1 given",
            ],
        ),
    ],
)
def test_each_differing_key_is_named_once(change: str, expected: list[str]) -> None:
    one = load_config("quickstart.yaml")
    found = differences(one, load_config("quickstart.yaml", [change]))
    # A choice of another name lacks keys, or has more.
    assert [line for line in found if "absent" not in line] == expected
    assert all(line.split(":")[0].count("mode.") for line in found if "absent" in line)


def test_equal_ones_do_not_differ() -> None:
    assert differences(load_config("quickstart.yaml"), load_config("quickstart.yaml")) == []
