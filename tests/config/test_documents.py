import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.config.documents import read_yaml, write_yaml
from pkgllm.errors import ConfigError

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(
        [
            "5e-5",
            "1.",
            "no",
            "017",
            "0o17",
            "0x1f",
            "1_000",
            "1:30",
            "~",
            "<<",
            "=",
            "a\x85b",
            "\u2028",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(plain_values)
def test_what_is_written_reads_back_equal(value: object) -> None:
    # Lists are written; tuples read back, because the tree is immutable.
    assert read_yaml(write_yaml(_with_lists(value)), "here") == (value, [])


def _with_lists(value: object) -> object:
    if isinstance(value, tuple):
        return [_with_lists(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _with_lists(entry) for key, entry in value.items()}
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 0.00005),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2", -2),
        ("-.inf", -math.inf),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("017", "017"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("", None),
        ("~", None),
        ('"4"', "4"),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = read_yaml(text, "here")[0]
    assert found == value
    assert type(found) is type(value)


def test_every_key_that_stands_twice_is_found_with_its_lines() -> None:
    text = "a: 1\nb:\n  c: 1\n  d: {e: 1, e: 2}\n  c: 3\na: 2\n"
    tree, problems = read_yaml(text, "here")
    assert tree == {"a": 2, "b": {"c": 3, "d": {"e": 2}}}
    assert sorted(map(str, problems)) == [
        "a: is on line 1 and again on line 6; keep one",
        "b.c: is on line 3 and again on line 5; keep one",
        "b.d.e: is on line 4 and again on line 4; keep one",
    ]


def test_aliases_that_multiply_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="here: aliases repeat more than 100000 values"):
        read_yaml("\n".join(lines), "here")
    assert read_yaml("{a: &a [1, 2], b: *a}", "here")[0] == {"a": (1, 2), "b": (1, 2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [2,\n", "here: line 3, column 1: this is not YAML: while parsing a flow"),
        ("a: b: c", "here: line 1, column 5: this is not YAML: mapping values are not allowed"),
        ("a: !!int x", "here: line 1, column 4: this is not YAML: a tag"),
        ("a: !!python/name:os.system x", "a tag (tag:yaml.org,2002:python/name:os.system) is not"),
        ("a: 1\n---\na: 2", "here: line 2, column 1: this is not YAML: expected a single document"),
        ("a: &x [*x]", "here: line 1, column 4: this is not YAML: found unconstructable recursive"),
        ("a: 1\nb: \x07", "here: line 2: a character that YAML forbids"),
        ("[" * 5000, "here: this is nested too deeply"),
        ("9" * 5000, "here: Exceeds the limit"),
        ("{{a: 1}: 2}", "found unhashable key"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "here")
    assert message in str(caught.value)


@given(st.text(alphabet="ab:{}[],&*!#-'\"\n ~|>?%@01e.", max_size=30))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    # Any other exception fails the test.
    with contextlib.suppress(ConfigError):
        read_yaml(text, "here")
