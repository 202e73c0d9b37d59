"""What an aggregator needs of the rest of the configuration."""

from pkgllm.config.mode_sections import Federated
from pkgllm.config.training_sections import Adapter, Training

_EQUAL_WEIGHTS = ("scaffold", "fedmedian", "fedtrimmedavg", "krum")
_WITHOUT_MEMORY = ("fedavg", "fedprox")


def strategy_problems(mode: Federated, training: Training, adapter: Adapter) -> list[str]:
    """Return what does not fit the mode's strategy, one line each."""
    chosen, problems = mode.strategy, []
    if chosen.name in _EQUAL_WEIGHTS and mode.weighting != "uniform":
        problems.append(
            f"mode.strategy {chosen.name} gives every update the same weight; set mode.weighting "
            f"to uniform, got {mode.weighting}"
        )
    if chosen.name == "scaffold":
        problems += _scaffold_problems(training)
    if chosen.name == "krum" and mode.cohort_size < 2 * chosen.num_malicious + 3:
        problems.append(
            "mode.strategy krum needs a mode.cohort_size of at least 2 * num_malicious + 3 = "
            f"{2 * chosen.num_malicious + 3}, got {mode.cohort_size}; raise it, or lower "
            "mode.strategy.num_malicious"
        )
    if mode.aggregation == "stack_svd":
        problems += _stack_svd_problems(chosen.name, adapter)
    return problems


def _scaffold_problems(training: Training) -> list[str]:
    problems = []
    if training.optimizer != "sgd":
        problems.append(
            "mode.strategy scaffold takes a client's mean gradient from the length of its steps, "
            "which holds for plain gradient descent only; set training.optimizer to sgd, and a "
            f"training.learning_rate that fits it, got {training.optimizer}"
        )
    if training.weight_decay:
        problems.append(
            "mode.strategy scaffold would take weight decay for a gradient; set "
            f"training.weight_decay to 0, got {training.weight_decay:g}"
        )
    return problems


def _stack_svd_problems(strategy: str, adapter: Adapter) -> list[str]:
    problems = []
    if strategy not in _WITHOUT_MEMORY:
        problems.append(
            "mode.aggregation stack_svd gives the factors new axes in each round, and "
            f"mode.strategy {strategy} compares their single values; use "
            f"{' or '.join(_WITHOUT_MEMORY)}, or aggregation factor_mean"
        )
    if adapter.freeze_a:
        problems.append(
            "mode.aggregation stack_svd would change the factor that adapter.freeze_a holds; use "
            "factor_mean, which is the mean of products then"
        )
    return problems
