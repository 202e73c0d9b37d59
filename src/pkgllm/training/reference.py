"""Reference log-probabilities: of the frozen base model, so computed once in a run and kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pkgllm.files import cannot
from pkgllm.prompts.groups import Group
from pkgllm.training.log_probabilities import Branch

ReferenceScore = Callable[[Sequence[Branch]], Tensor]
"""Computes ``log reference(completion | prompt)`` for all completions, in order.

Nats, shape ``(completions,)``, float32.
"""

_FLOAT = np.dtype("<f4")


class ReferenceColumn:
    """A column of numbers beside the groups: ``log reference(y | x)`` of each completion.

    A group's row says where its values are. Its values are computed together when one of them is
    asked for, each distinct completion once. A row that holds 0 is not computed yet.

    Whoever holds the column can test which prompt a client has, so it is private and enters no
    message. With a folder it is a file there that has no name: nobody else can open it, and it is
    gone when the process ends, however it ends. A resumed run computes the values again.

    Args:
        score: Computes what is missing.
        folder: Of the file; None to keep the column in memory.

    Example:
        >>> from pkgllm.prompts.groups import Completion
        >>> from pkgllm.prompts.prompts import Prompt
        >>> prompt = Prompt("p1", "", "", (5, 6), frozenset(), 0)
        >>> group = Group(prompt, (Completion("7", (3, 1), True, "liked"),))
        >>> column = ReferenceColumn(lambda branches: torch.tensor([-1.5]))
        >>> (placed,) = column.place("p1", [group])
        >>> placed.row, column.log_probabilities([(placed, placed.completions)]).tolist()
        (0, [-1.5])
    """

    def __init__(self, score: ReferenceScore, folder: Path | None = None) -> None:
        self._score = score
        self._folder = folder
        self._first_rows: dict[str, int] = {}
        self._num_rows = 0

    def place(self, client: str, groups: Sequence[Group]) -> tuple[Group, ...]:
        """Give each group of a client its row, the same in every call."""
        row = self._first_rows.setdefault(client, self._num_rows)
        placed = []
        for group in groups:
            placed.append(replace(group, row=row))
            row += len(group.completions) + len(group.mismatched)
        self._num_rows = max(self._num_rows, row)
        return tuple(placed)

    def log_probabilities(self, branches: Sequence[Branch]) -> Tensor:
        """Return the reference log-probabilities of all completions, in order.

        Args:
            branches: Groups with their completions, or with these and their mismatched ones. The
                values of a group without a row are computed in every call.

        Returns:
            Nats, shape ``(completions,)``, float32, on the CPU.

        Raises:
            RunError: If the file cannot be written.
            ValueError: If ``score`` does not return one value for each completion.
        """
        columns = [self._read(group.row, len(completions)) for group, completions in branches]
        missing = [index for index, values in enumerate(columns) if not values.all()]
        if missing:
            computed = self._computed([branches[index] for index in missing])
            for index, values in zip(missing, computed, strict=True):
                columns[index] = values
                self._write(branches[index][0].row, values)
        return torch.from_numpy(np.concatenate([np.empty(0, _FLOAT), *columns]))

    def _computed(self, branches: Sequence[Branch]) -> list[NDArray[np.float32]]:
        distinct = [{c.token_ids: c for c in completions} for _, completions in branches]
        scores = self._score(
            [
                (group, tuple(own.values()))
                for (group, _), own in zip(branches, distinct, strict=True)
            ]
        )
        if scores.shape != (sum(map(len, distinct)),):
            raise ValueError(
                f"score must return one value for each of {sum(map(len, distinct))} completions, "
                f"got the shape {tuple(scores.shape)}"
            )
        in_order = iter(scores.float().tolist())
        values = [dict(zip(own, in_order, strict=False)) for own in distinct]
        return [
            np.array([own[c.token_ids] for c in completions], _FLOAT)
            for (_, completions), own in zip(branches, values, strict=True)
        ]

    @cached_property
    def _file(self) -> IO[bytes]:
        return BytesIO() if self._folder is None else TemporaryFile(dir=self._folder)

    def _read(self, row: int | None, count: int) -> NDArray[np.float32]:
        values = np.zeros(count, _FLOAT)
        if row is not None:
            with self._at(row) as file:
                stored = np.frombuffer(file.read(values.nbytes), _FLOAT)
            values[: len(stored)] = stored
        return values

    def _write(self, row: int | None, values: NDArray[np.float32]) -> None:
        if row is not None:
            with self._at(row) as file:
                file.write(values.tobytes())

    @contextmanager
    def _at(self, row: int) -> Iterator[IO[bytes]]:
        try:
            self._file.seek(row * _FLOAT.itemsize)
            yield self._file
            self._file.flush()
        except OSError as error:
            raise cannot("write", self._folder or Path(), error) from error
