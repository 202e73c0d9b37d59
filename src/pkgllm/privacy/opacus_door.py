"""Opacus's accountants, imported without its side effect: it configures the root logger.

Every library's messages would then be printed, Flower's of each round among them.
"""

import logging

_guard = logging.NullHandler()
# What configures the root logger does nothing where that has a handler.
logging.getLogger().addHandler(_guard)
try:
    from opacus.accountants import PRVAccountant as PRVAccountant
    from opacus.accountants import RDPAccountant as RDPAccountant
finally:
    logging.getLogger().removeHandler(_guard)
