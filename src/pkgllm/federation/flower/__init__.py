"""The only importer of Flower. Importing any part of it first makes Flower quiet."""

from pkgllm.federation.flower import environment as environment
