"""What is measured while a run trains, beside what training itself tells."""

from pkgllm.config.section import NotNegative, Positive, Section


class Observation(Section):
    """Looks at a run while it trains, and changes nothing in what is trained."""

    evaluate_every: NotNegative = 0
    """Rounds from one ranking of the ``validation`` part to the next; 0 for none. The test part is
    never asked for during training."""
    max_clients: Positive | None = 100
    """Clients to rank each time, always the same, drawn with the seed; all when null."""
    tensorboard: bool = True
    """Write what each round tells to the run folder's ``tensorboard`` as well."""
