"""Knowledge graph embeddings. Importing any part keeps PyKEEN's folders out of the home."""

from pkgllm.kge import pykeen_logging as pykeen_logging
