"""One person's folder on the person's own machine, and what trains on it in a real federation.

    FOLDER/config.yaml      what to do, the same for all but for device and memory
    FOLDER/catalogue.json   the films that can be asked for, the same for all
    FOLDER/graph.jsonld     the person's graph; or graph.ttl
    FOLDER/ca.crt           certificate of the authority that signed the server's
    FOLDER/client.key       proves to the server which client this is
    FOLDER/privacy_ledger.jsonl  what was released in all runs, where the client noises it itself
    FOLDER/private/         groups, reference log-probabilities and what else a run leaves there

Nothing of ``private``, ``graph``, ``client.key`` and the ledger leaves the machine.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pkgllm.config import schema
from pkgllm.config.load import load_config
from pkgllm.corpora.catalogue_file import CATALOGUE, read_catalogue_file
from pkgllm.corpora.clients import Corpus
from pkgllm.errors import ConfigError, DataError
from pkgllm.files import make_folder
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.graph.rdf import read_graph
from pkgllm.pipeline.build import build_groups, populate
from pkgllm.pipeline.privacy import configured_noise, device_participation, noisy_unit
from pkgllm.pipeline.trainers import load_policy, make_trainer
from pkgllm.privacy.device_ledger import HEAD, SHARE, DevicePrivacy, DeviceShares
from pkgllm.privacy.run_privacy import LEDGER
from pkgllm.progress import Progress
from pkgllm.prompts.partition.stored import drop_unusable
from pkgllm.runs.folder import RunFolder

if TYPE_CHECKING:
    from pkgllm.federation.flower.client_app import CohortApp

CONFIG = "config.yaml"
GRAPHS = ("graph.jsonld", "graph.json", "graph.ttl")
PRIVATE = "private"

_GROUPS = "groups.arrow"


class ClientFolder:
    """A person's folder, opened.

    ``overrides`` are values to set over those of its configuration, each ``KEY=VALUE``.

    Raises:
        PkgllmError: If a file is missing or wrong, or the mode is not ``federated``.
    """

    def __init__(self, path: Path, overrides: Sequence[str] = ()) -> None:
        if not path.is_dir():
            raise DataError(f"{path}: no such folder; name that of one client")
        self.path = path
        self.config = load_config(str(path / CONFIG), overrides)
        self.graph = self._read_graph()
        self._catalogue = read_catalogue_file(path / CATALOGUE)
        make_folder(self.private)

    @property
    def client(self) -> str:
        """The client's id: the owner of the graph."""
        return self.graph.owner

    @property
    def private(self) -> Path:
        """Where the process keeps what nobody else is to see."""
        return self.path / PRIVATE

    def make_app(
        self, progress: Progress, log: Callable[[str], None] = lambda line: None
    ) -> "CohortApp":
        """Load the base model, build the groups, and return what answers the server.

        Split, groups and training are those that the local runtime makes for this client.

        ``log`` is called with a line on what of the privacy budget is spent.

        Raises:
            PkgllmError: If anything that is needed cannot be used.
        """
        from pkgllm.federation.client_noise import make_device_noise
        from pkgllm.federation.flower.client_app import CohortApp
        from pkgllm.pipeline.trainers import make_clients

        config = self.config
        mode = config.mode
        if not isinstance(mode, schema.Federated):
            raise ConfigError(f"{self.path / CONFIG}: mode.name must be federated, got {mode.name}")
        population = populate(config, Corpus("graph", self._catalogue, (self.graph,), {}))
        base, writer, policy = load_policy(config, self._catalogue)
        groups, _, _ = drop_unusable(
            build_groups(config, population, writer, self.private / _GROUPS, progress),
            config.objective,
        )
        release, unit = None, noisy_unit(config)
        if unit is not None and unit.hides_examples:
            own = DevicePrivacy(
                unit,
                device_participation(config, self.client, groups.num_groups(self.client)),
                ledger=self.path / LEDGER,
                head=self.private / HEAD,
            )
            log(str(own))
            release = own.release
        shares = self._shares(log)
        trainer = make_trainer(
            config,
            policy,
            base,
            groups,
            RunFolder(self.private),
            local_steps=config.training.local_steps,
            release=release,
        )
        noise = make_device_noise(shares, policy, self.private / SHARE) if shares else None
        return CohortApp(make_clients(config, mode, trainer, self.private, noise))

    def _shares(self, log: Callable[[str], None]) -> DeviceShares | None:
        """Return what sees to the client's share of the noise; None where it adds none."""
        unit, settings = noisy_unit(self.config), configured_noise(self.config)
        if unit is not None and settings is not None:
            shares = DeviceShares(
                unit, settings, ledger=self.path / LEDGER, head=self.private / HEAD
            )
            log(str(shares))
            return shares
        if unit is not None and unit.hides_clients:
            log("privacy unit client, mechanism central: the server has the updates as they are")
        return None

    def _read_graph(self) -> PersonalGraph:
        paths = [self.path / name for name in GRAPHS if (self.path / name).is_file()]
        if len(paths) != 1:
            names = " and ".join(path.name for path in paths) or "none"
            raise DataError(f"{self.path}: must hold one of {', '.join(GRAPHS)}, got {names}")
        return read_graph(paths[0])
