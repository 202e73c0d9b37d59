"""Write the small world: its dialogues and films in ReDial's formats, and its public text.

Example:
    python -m tools.make_small_world --output data/small_world
    python -m tools.make_small_world --public-text build/public_text
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pkgllm.errors import PkgllmError
from tools.small_world import generate_small_world
from tools.small_world_text import write_public_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="folder of the world's files")
    parser.add_argument("--public-text", type=Path, help="folder of the public text")
    parser.add_argument("--seed", type=int, default=0, help="of the world (default: 0)")
    parser.add_argument("--num-films", type=int, default=300, help="films (default: 300)")
    parser.add_argument("--num-people", type=int, default=120, help="people (default: 120)")
    parser.add_argument(
        "--num-documents", type=int, default=20_000, help="public documents (default: 20000)"
    )
    parser.add_argument(
        "--personal-share",
        type=float,
        default=0.005,
        help="share of public documents about the taste of invented people (default: 0.005)",
    )
    options = parser.parse_args(arguments)
    if options.output is None and options.public_text is None:
        parser.error("give --output, --public-text, or both")
    try:
        if options.output is not None:
            generate_small_world(
                options.output,
                seed=options.seed,
                num_films=options.num_films,
                num_people=options.num_people,
            )
        if options.public_text is not None:
            write_public_text(
                options.public_text,
                seed=options.seed,
                num_films=options.num_films,
                num_documents=options.num_documents,
                personal_share=options.personal_share,
            )
    except (PkgllmError, ValueError) as error:
        print(f"make_small_world: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
