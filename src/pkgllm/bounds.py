"""Types of settings with the bounds that a configuration is checked against."""

from typing import Annotated

from annotated_types import Ge, Gt, Lt

Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
"""Above 0; as every float of a configuration, finite."""
NotNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Probability = Annotated[float, Gt(0), Lt(1)]
"""Neither impossible nor certain."""
