"""What must not leave a device, in every form in which a message could carry it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from flwr.app import Message
from flwr.common.serde import message_to_proto

from pkgllm.prompts.groups import Group
from pkgllm.training.reference import ReferenceColumn


def private_texts(
    films: Mapping[str, str], groups: Iterable[Sequence[Group]]
) -> Iterator[tuple[str, bytes]]:
    """Titles, ids and prompts.

    Args:
        films: Names by id; ids must be long, so that none stands in an array by chance.
        groups: Every client's.
    """
    for item, name in films.items():
        yield f"title {name}", name[:-7].encode()
        yield f"id {item}", item.encode()
    for group in (group for of_client in groups for group in of_client):
        ids = group.prompt.token_ids
        yield "prompt", group.prompt.facts_text.encode()
        # Eight tokens of it are enough; as numbers of any width, or written out.
        middle = ids[len(ids) // 2 :][:8]
        for dtype in ("<i8", "<i4", "<i2", "<f4", "<f8"):
            yield f"prompt tokens as {dtype}", np.array(middle, dtype).tobytes()
        yield "prompt tokens as text", str(list(middle))[1:-1].encode()


def private_scores(
    reference: ReferenceColumn, groups: Iterable[Sequence[Group]]
) -> Iterator[tuple[str, bytes]]:
    """Log-probabilities of completions."""
    for of_client in groups:
        asked = [(group, (*group.completions, *group.mismatched)) for group in of_client]
        for value in reference.log_probabilities(asked).tolist():
            yield "log-probability as <f4", np.array(value, "<f4").tobytes()
            yield "log-probability as <f8", np.array(value, "<f8").tobytes()
            yield "log-probability as text", f"{value:.4f}".encode()


def wire(message: Message) -> bytes:
    """Every byte of a message."""
    found: bytes = message_to_proto(message).SerializeToString()
    return found


def found_in(messages: Sequence[Message], secrets: Sequence[tuple[str, bytes]]) -> set[str]:
    """Names of the secrets that some message carries, looked for in every byte of it."""
    sent = [wire(message) for message in messages]
    return {what for what, secret in secrets if any(secret in one for one in sent)}
