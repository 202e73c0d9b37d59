"""Text of others on a terminal: without the characters that a terminal obeys."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""C0 but for tab and line feed, DEL, and C1."""


def printable(text: str) -> str:
    r"""Return a text in which U+FFFD stands for each control character but tab and line feed.

    So titles, names and messages of others cannot move the cursor, set colours or a window's title,
    or overwrite what stands on the screen.

    Example:
        >>> printable("Heat\x1b[2J (1995)") == "Heat\N{REPLACEMENT CHARACTER}[2J (1995)"
        True
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
