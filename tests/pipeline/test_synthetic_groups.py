from pathlib import Path

import pytest

from pkgllm.config.load import load_config
from pkgllm.errors import ConfigError
from pkgllm.pipeline.build import build_groups, make_writer, populate, read_corpus
from pkgllm.pipeline.run_record import load_base
from pkgllm.progress import Silent
from pkgllm.prompts.groups import Group

SYNTHETIC = ("synthetic.graph_edits=3", "synthetic.rule_facts=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, tuple[Group, ...]]]:
    found = {}
    for is_used in (False, True):
        config = load_config("quickstart.yaml", SYNTHETIC if is_used else ())
        writer = make_writer(config.prompt, load_base(config))
        path = tmp_path_factory.mktemp("groups") / "groups.arrow"
        population = populate(config, read_corpus(config))
        found[is_used] = dict(build_groups(config, population, writer, path, Silent()))
    return found


@pytest.mark.slow
def test_synthetic_groups_come_after_the_real_ones_which_they_leave_as_they_are(
    made: dict[bool, dict[str, tuple[Group, ...]]],
) -> None:
    assert len(made[False]) > 100
    for client, real in made[False].items():
        both = made[True][client]
        assert [g.completions for g in both[: len(real)]] == [g.completions for g in real]
        assert len(both) == len(real) + 4
        (rules,) = [g for g in both if any(c.source == "rule" for c in g.completions)]
        assert both[-1] == rules
        assert [c.source for c in rules.completions].count("rule") == 2
        # Mismatched completions go round over all of them.
        assert both[len(real) - 1].mismatched == both[len(real)].completions
        assert both[-1].mismatched == both[0].completions


@pytest.mark.parametrize("key", SYNTHETIC)
def test_the_unit_example_refuses_made_up_groups(key: str) -> None:
    with pytest.raises(ConfigError, match=r"must be 0 with privacy\.name example"):
        load_config("quickstart-dp.yaml", [key])


def test_a_relation_that_the_catalogue_lacks_is_an_error_before_training(tmp_path: Path) -> None:
    config = load_config("quickstart.yaml", [*SYNTHETIC, "synthetic.relations=[studio]"])
    writer = make_writer(config.prompt, load_base(config))
    population = populate(config, read_corpus(config))
    with pytest.raises(ConfigError, match="no item of the catalogue has a studio"):
        build_groups(config, population, writer, tmp_path / "groups.arrow", Silent())
    assert not list(tmp_path.iterdir())
