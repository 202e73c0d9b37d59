import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.json_text import JsonError, loads

_texts = st.text(max_size=6)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@given(_values, st.booleans(), st.sampled_from([None, 1]))
def test_any_value_is_read_as_pythons_reader_does_unless_it_is_no_text(
    value: object, ascii_: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent)
    assert loads(text) == json.loads(text) == value


@given(st.text(st.sampled_from('a\\"\n\ud83d\ude00\U0001f3ac'), max_size=5), st.text(max_size=2))
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(text: str, before: str) -> None:
    value = [before, text, {text: 1}]
    written = json.dumps(value)
    read = json.loads(written)
    try:
        json.dumps(read, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(JsonError, match="half of a surrogate pair"):
            loads(written)
    else:
        assert loads(written) == read


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('{"a": 1, "a": 1}', 1, "a"),
        ('{"a": {"b": 1,\n"b": 2}}', 2, "b"),
        ('[{"a": 1}, {"a": "{",\n"x": [{"a": "}"}],\n"\\u0061": "y"}]', 3, "a"),
        ('{"a\\"b": 1, "c": "\\n",\n "a\\"b": 2}', 2, 'a\\\\"b'),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(text: str, line: int, key: str) -> None:
    with pytest.raises(JsonError, match=f'the key "{key}" stands twice') as error:
        loads(text)
    assert error.value.line == line


def test_broken_json_has_its_line() -> None:
    with pytest.raises(JsonError, match=r"not JSON: .*\(column 2\); the file may be cut") as error:
        loads('{"a":\n }')
    assert error.value.line == 2
    with pytest.raises(JsonError, match="nested too deeply"):
        loads("[" * 100_000)
