"""Types of settings with the bounds that a configuration is checked against."""

import math
import operator
from collections.abc import Callable
from typing import Annotated, Any, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
"""Above 0; as every float of a configuration, finite."""
NotNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]

_COMPARISONS: dict[type, tuple[str, str, Callable[[Any, Any], bool]]] = {
    Gt: ("gt", ">", operator.gt),
    Ge: ("ge", ">=", operator.ge),
    Lt: ("lt", "<", operator.lt),
    Le: ("le", "<=", operator.le),
}


def check_bounds(settings: Any) -> None:
    """Check the fields of a dataclass against the bounds in their types.

    Raises:
        ValueError: If a value is outside its bounds, or a number is not finite.

    Example:
        >>> from pkgllm.baselines.ease import Ease
        >>> Ease(l2=0.0)
        Traceback (most recent call last):
        ...
        ValueError: l2 must be > 0, got 0.0
    """
    for name, bounds in _bounds_of(type(settings)).items():
        value = getattr(settings, name)
        if not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
        for bound in bounds:
            attribute, sign, keeps = _COMPARISONS[type(bound)]
            limit = getattr(bound, attribute)
            if not keeps(value, limit):
                raise ValueError(f"{name} must be {sign} {limit}, got {value}")


def _bounds_of(settings: type) -> dict[str, tuple[Any, ...]]:
    kinds = get_type_hints(settings, include_extras=True)
    return {
        name: kind.__metadata__ for name, kind in kinds.items() if get_origin(kind) is Annotated
    }


Probability = Annotated[float, Gt(0), Lt(1)]
"""Neither impossible nor certain."""
