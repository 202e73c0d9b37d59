"""``pkgllm`` and ``python -m pkgllm``: the command, which Ctrl-C ends cleanly from the start on."""

import sys
from typing import NoReturn


def main() -> None:
    """Run a command; see :func:`pkgllm.cli.app.main`."""
    try:
        # Half a second of imports, in which Ctrl-C is no other than later.
        from pkgllm.cli.app import main as run

        run()
    except KeyboardInterrupt:
        _stop()
    except Exception as error:
        # A library that is interrupted while it is imported may raise an error of its own instead.
        if not _interrupted(error):
            raise
        _stop()


def _interrupted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _stop() -> NoReturn:
    sys.stderr.write("pkgllm: stopped; what was written stays\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
