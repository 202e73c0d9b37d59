import io
import logging
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from pkgllm import terminal
from pkgllm.printable import printable
from pkgllm.terminal import PrintableConsole, TerminalProgress, WarningHandler


def plain_console() -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=False, width=40), written


def test_a_log_gets_the_last_line_however_fast_the_work_was() -> None:
    console, written = plain_console()
    with TerminalProgress(console).track("rounds", 3) as advance:
        for loss in ("loss 3", "loss 2"):
            advance(loss)
        assert written.getvalue() == ""
        advance("loss 1")
    assert written.getvalue() == "rounds: 3/3, 0 s, loss 1\n"


def test_a_log_gets_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    console, written = plain_console()
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0.0)
    with TerminalProgress(console).track("ranking", 2) as advance:
        advance()
        assert written.getvalue() == "ranking: 1/2, 0 s\n"
        advance()
    assert written.getvalue() == "ranking: 1/2, 0 s\nranking: 2/2, 0 s\n"


def test_lines_are_neither_folded_nor_read_as_markup() -> None:
    console, written = plain_console()
    detail = "[red]" + "x" * 100 + "[/red]"
    with TerminalProgress(console).track("[b]clients[/b]", 1) as advance:
        advance(detail)
    assert written.getvalue() == f"[b]clients[/b]: 1/1, 0 s, {detail}\n"


def test_work_that_ends_early_says_nothing_of_being_done() -> None:
    console, written = plain_console()
    with suppress(ZeroDivisionError), TerminalProgress(console).track("rounds", 2) as advance:
        advance()
        raise ZeroDivisionError
    assert written.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    with TerminalProgress(console).track("rounds", 2) as advance:
        advance("loss 0.5000")
        advance("loss 0.2500")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())
    last = shown.strip().splitlines()[-1]
    assert last.startswith("rounds")
    assert "2/2" in last
    assert "loss 0.2500" in last


def test_a_bar_over_nothing_and_one_that_fails() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with TerminalProgress(console).track("rounds", 0):
        pass
    with pytest.raises(ZeroDivisionError), TerminalProgress(console).track("rounds", 2):
        raise ZeroDivisionError
    # The display is closed again, so that another bar can be opened.
    with TerminalProgress(console).track("ranking", 1) as advance:
        advance()


def test_a_warning_is_one_literal_line() -> None:
    console, written = plain_console()
    logger = logging.Logger("pkgllm.test")
    logger.addHandler(WarningHandler(console))
    logger.warning("client %s failed: %s", "[b]7", "y" * 60)
    assert written.getvalue() == f"warning: client [b]7 failed: {'y' * 60}\n"


@given(st.text())
def test_no_control_character_of_others_reaches_a_terminal(text: str) -> None:
    out = io.StringIO()
    console = PrintableConsole(file=out, force_terminal=True, width=500)
    console.print(Text(text + "\x1b]0;owned\x07\x9b2J", style="bold"), soft_wrap=True)
    shown = re.sub(r"\x1b\[[01]m", "", out.getvalue())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert "owned" in shown


@given(st.text())
def test_what_commands_print_holds_none_either(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printable(text))
    assert len(printable(text)) == len(text)
