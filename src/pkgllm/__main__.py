"""``pkgllm`` and ``python -m pkgllm``: the command, which Ctrl-C ends cleanly from the start on."""

import sys


def main() -> None:
    """Run a command; see :func:`pkgllm.cli.app.main`."""
    try:
        # Half a second of imports, in which Ctrl-C is no other than later.
        from pkgllm.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("pkgllm: stopped; what was written stays\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
