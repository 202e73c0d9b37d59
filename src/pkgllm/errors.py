"""What can go wrong, as one tree.

    PkgllmError            exit code 1: the run could not be done
    |-- ConfigError        exit code 2: the configuration or the call is off
    |-- DataError          a file, a graph or a corpus is not what it must be
    |   `-- LeakError      a held-out answer stands in a prompt
    |-- ModelError         a base model or an adapter cannot be used
    |-- FederationError    a round could not be completed
    |-- PrivacyError       a privacy guarantee cannot be given, or its record is not whole
    |   `-- BudgetError    a release would exceed a privacy budget
    `-- RunError           a run folder cannot be made, read or written
        `-- StoppedError   somebody asked the run to stop; it can go on

Every message says where, what must hold, what was given and what to do. Wrong arguments to a
library function stay ``ValueError`` or ``TypeError``.
"""


class PkgllmError(Exception):
    """A failure whose message is written for the person who runs the command."""

    exit_code = 1


class ConfigError(PkgllmError):
    """The configuration or the command line asks for something that cannot be."""

    exit_code = 2


class DataError(PkgllmError):
    """A file, a graph or a corpus does not hold what it must."""


class LeakError(DataError):
    """A held-out answer stands in a prompt, so any score would be worthless."""


class ModelError(PkgllmError):
    """A base model or an adapter cannot be loaded or does not fit."""


class FederationError(PkgllmError):
    """A round could not be completed."""


class PrivacyError(PkgllmError):
    """A privacy guarantee cannot be given, or the record of what was spent is not whole."""


class BudgetError(PrivacyError):
    """A release would exceed a privacy budget, so it is not made."""


class RunError(PkgllmError):
    """A run folder cannot be created, read or written."""


class StoppedError(RunError):
    """Somebody asked the run to stop, and it did so where it can go on."""
