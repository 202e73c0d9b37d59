"""Federation over Flower. Importing any part of it first makes Flower quiet."""

from pkgllm.federation import quiet as quiet
