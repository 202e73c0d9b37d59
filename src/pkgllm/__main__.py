"""``python -m pkgllm`` is the command ``pkgllm``."""

from pkgllm.cli import main

main()
