from collections.abc import Iterator
from typing import Any

from pkgllm.config.choices import documentation, keys, parts, tag
from pkgllm.config.fields import describe, known_keys, locate
from pkgllm.config.schema import KINDS, Experiment
from pkgllm.objectives import OBJECTIVES
from pkgllm.objectives.kto import Kto


def _all_parts(section: type[Any] = Experiment) -> Iterator[type[Any]]:
    yield section
    for field in keys(section).values():
        for inner in parts(field):
            yield from _all_parts(inner)


def test_every_field_can_be_described_and_every_value_has_its_documentation() -> None:
    for section in {section for kind in KINDS for section in _all_parts(kind)}:
        assert section.__doc__, section
        for name, field in keys(section).items():
            assert describe(field), (section, name)
            is_tag = name == "name" and tag(section) is not None
            if not is_tag and not parts(field):
                assert documentation(section, name), (section, name)


def test_every_default_among_choices_is_named() -> None:
    assert describe(Experiment.model_fields["privacy"]) == (
        "a section of keys and values named none or example or client"
    )
    assert describe(Experiment.model_fields["objective"]) == (
        f"a section of keys and values named {' or '.join(OBJECTIVES)}"
    )


def test_known_keys_hold_those_of_every_choice_once() -> None:
    keys = list(known_keys())
    assert len(keys) == len(set(keys))
    assert {("seed",), ("objective", "undesirable_weight"), ("mode", "strategy", "name")} <= {*keys}


def test_a_location_names_the_choice_that_it_went_through() -> None:
    key = locate(("objective", "kto", "betta"))
    assert (key.path, key.section, key.field) == (("objective", "betta"), Kto, None)
    assert key.choices == tuple(OBJECTIVES.own())
    assert locate(("mode", "federated", "strategy", "fedprox", "x")).path == (
        "mode",
        "strategy",
        "x",
    )
    assert locate(("objective", "kto")).path == ("objective",)
    assert locate(()).path == ()
