"""Render a conversation for a base model, so that no text of its contents acts as a control token.

The structure of a prompt comes from the tokenizer's chat template, rendered once with placeholders;
contents are put in their places afterwards. A template therefore never reads data, and what it does
with a system turn and after an assistant's turn is known before any work.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from pkgllm.errors import ModelError

_UNASSIGNED = "\U0010fffd"
"""A character that no vocabulary knows."""

_PLACEHOLDERS: Mapping[str, str] = {
    "system": "SystemPlaceholder",
    "user": "UserPlaceholder",
    "assistant": "AssistantPlaceholder",
}


class PlainText:
    """Turns text from data into tokens, none of which is a control token.

    A control token is any token that was added to the vocabulary, special or not, such as
    ``<|im_end|>`` and ``<think>``; white space, single characters and the token of unknown
    characters are none. Text without control tokens is tokenised as the tokenizer does it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        unknown = set(self.with_control(_UNASSIGNED))
        texts = {
            number: str(token.content)
            for number, token in tokenizer.added_tokens_decoder.items()
            if len(str(token.content).strip()) > 1 and number not in unknown
        }
        self.control = frozenset(texts)
        """Ids of the control tokens."""
        by_length = sorted(texts.values(), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")

    def with_control(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a template's text, in which control tokens have their meaning."""
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        return tuple(ids)

    def ids(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text from data.

        The text of a control token is cut after its first character, and both parts are tokenised
        apart. A tokenizer that normalises may find a control token in other characters; there the
        text is halved until none is left.

        Raises:
            ModelError: If a single character is a control token after normalisation.
        """
        ids = self.with_control(text)
        if self.control.isdisjoint(ids):
            return ids
        cuts = [match.start() + 1 for match in self._pattern.finditer(text)]
        if not cuts:
            if len(text) == 1:
                raise ModelError(
                    f"the tokenizer reads the character U+{ord(text):04X} as a control token, so "
                    "text that holds it cannot be used; leave it out"
                )
            cuts = [len(text) // 2]
        bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
        return tuple(token for start, end in bounds for token in self.ids(text[start:end]))


@dataclass(frozen=True, slots=True)
class _Structure:
    """What a template writes for turns of some roles, before contents are put in."""

    pieces: tuple[str, ...]
    """Text of the template and placeholders, in turn."""
    control: tuple[int, ...]
    """Control tokens of the template's text."""


class ChatTemplate:
    """The chat template of a tokenizer, probed.

    Args:
        tokenizer: Of a base model.
        name: Of the base model, for messages.

    Raises:
        ModelError: If the tokenizer has no template, the template fails on a user's or an
            assistant's turn or drops its content, or nothing says what ends an assistant's turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, name: str = "the base model") -> None:
        self._tokenizer, self._name = tokenizer, name
        if tokenizer.chat_template is None:
            raise ModelError(
                f"base_model.name: {name} must have a tokenizer with a chat template; give an "
                "instruction-tuned model"
            )
        self.plain = PlainText(tokenizer)
        self._user = self._structure("user")
        self._system_user: _Structure | None = None
        notes = []
        try:
            self._system_user = self._structure("system", "user")
        except ModelError:
            notes.append(
                "The chat template takes no system turn, so instruction and facts stand at the "
                "beginning of the user's turn."
            )
        self.terminator: int = self._end_of_turn()
        """Token that ends an answer: what the template writes after an assistant's turn."""
        eos = tokenizer.eos_token_id
        if isinstance(eos, int) and eos != self.terminator:
            notes.append(
                f"An answer ends with {self._shown(self.terminator)}, as the chat template writes "
                f"it, not with the tokenizer's eos_token {self._shown(eos)}."
            )
        self.notes: tuple[str, ...] = tuple(notes)
        """What a reader of results must know."""

    def prompt(self, system: str, request: str, mark: str = "") -> tuple[str, tuple[int, ...]]:
        """Return text and tokens of a prompt, up to the first token of the answer.

        Where the template takes no system turn, its content begins the user's turn, an empty line
        before the request. A template's text is tokenised together with the contents where that
        makes no control token more or less, as transformers does it, and apart from them otherwise.

        Args:
            system: Content of the system turn; empty for none.
            request: Content of the user's turn.
            mark: Beginning of the answer; empty for none.
        """
        structure = self._user
        if system and self._system_user is not None:
            structure = self._system_user
        elif system:
            request = f"{system}\n\n{request}"
        contents = {_PLACEHOLDERS["system"]: system, _PLACEHOLDERS["user"]: request}
        parts = [(contents.get(piece, piece), piece in contents) for piece in structure.pieces]
        parts.append((mark, True))
        text = "".join(part for part, _ in parts)
        together = self.plain.with_control(text)
        if self._control_of(together) == structure.control:
            return text, together
        return text, tuple(
            token
            for part, is_content in parts
            for token in (self.plain.ids if is_content else self.plain.with_control)(part)
        )

    def _structure(self, *roles: str) -> _Structure:
        text = self._render(roles, add_generation_prompt=True)
        shown = [_PLACEHOLDERS[role] for role in roles]
        pieces = re.split("({})".format("|".join(shown)), text)
        return _Structure(tuple(pieces), self._control_of(self.plain.with_control(text)))

    def _end_of_turn(self) -> int:
        text = self._render(("user", "assistant"), add_generation_prompt=False)
        end = text.rpartition(_PLACEHOLDERS["assistant"])[2]
        control = self._control_of(self.plain.with_control(end))
        if control:
            return control[0]
        eos = self._tokenizer.eos_token_id
        if not isinstance(eos, int):
            raise ModelError(
                f"base_model.name: {self._name} must have an end-of-turn token: its chat template "
                "writes none after an assistant's turn, and its tokenizer has no eos_token; give "
                "an instruction-tuned model"
            )
        return eos

    def _render(self, roles: Sequence[str], *, add_generation_prompt: bool) -> str:
        """Render placeholders as the turns of some roles.

        Raises:
            ModelError: If the template fails, or leaves a content away.
        """
        turns = [{"role": role, "content": _PLACEHOLDERS[role]} for role in roles]
        place = f"base_model.name: the chat template of {self._name}"
        try:
            text = self._tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=False,
            )
        except Exception as error:  # a template raises whatever it likes
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"{place} fails on the turns {', '.join(roles)}: {reason}; mend "
                "chat_template.jinja, or give another base model"
            ) from error
        for role in roles:
            if _PLACEHOLDERS[role] not in str(text):
                raise ModelError(
                    f"{place} does not write the content of the {role} turn; mend "
                    "chat_template.jinja, or give another base model"
                )
        return str(text)

    def _control_of(self, ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(token for token in ids if token in self.plain.control)

    def _shown(self, token: int) -> str:
        return repr(self._tokenizer.decode([token]))
