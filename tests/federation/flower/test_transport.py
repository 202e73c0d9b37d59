import pytest

from helpers.quadratic_clients import QuadraticClients
from pkgllm.errors import FederationError
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.clients import LocalClients
from pkgllm.federation.flower import client_app
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.transport import FlowerTransport


def test_two_nodes_of_one_client_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_app, "_client", lambda context: "twin")
    app = CohortApp(LocalClients(QuadraticClients({"twin": 1.0}), FedAvg()))
    with pytest.raises(
        FederationError, match="2 nodes are connected, 2 answered, with 1 different"
    ):
        FlowerTransport(LocalGrid(app, ["a", "b"])).clients(timeout=60)
