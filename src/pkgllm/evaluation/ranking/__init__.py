"""The whole catalogue ranked exactly, over a trie of titles."""
