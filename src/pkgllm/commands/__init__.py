"""The commands, but for those that stand alone: parse, call, print."""
