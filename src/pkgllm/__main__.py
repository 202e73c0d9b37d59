"""``python -m pkgllm`` is the command ``pkgllm``."""

from pkgllm.cli.app import main

main()
