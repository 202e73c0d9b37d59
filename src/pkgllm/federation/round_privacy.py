"""Where privacy has its say in a round: who is drawn, whether it may be, what is aggregated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.adaptive_clipping import AdaptiveClipping
from pkgllm.privacy.client_level import poisson_cohort, privatise_updates
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.local_noise import LocalNoise, sum_shares
from pkgllm.privacy.mechanisms import RUN, Mechanism
from pkgllm.privacy.noise import NoiseSource
from pkgllm.privacy.run_privacy import RunPrivacy
from pkgllm.privacy.units.client import ClientPrivacy


class RoundPrivacy(Protocol):
    """What the round loop asks."""

    def draw(self, clients: Sequence[str], round_num: int) -> tuple[str, ...] | None:
        """Return the cohort, sorted; None where the loop is to draw it as usual."""
        ...

    def admits(self, round_num: int, cohort: Sequence[str]) -> bool:
        """Return whether a round is within the budget; training ends before one that is not."""
        ...

    def begin(self, round_num: int, cohort: Sequence[str]) -> LocalNoise | None:
        """Get ready for a round before anything of it is sent; raise where it must not be.

        Returns:
            How the cohort must protect its updates by itself; None where the server does it.
        """
        ...

    def release(
        self, round_num: int, before: AdapterState, updates: Sequence[AdapterState]
    ) -> AdapterState | None:
        """Return the one adapter that may be aggregated; None where each update may be.

        Args:
            round_num: The round.
            before: What the cohort received.
            updates: The adapters that came back and can be used.
        """
        ...


class ClientLevelRounds:
    """Privacy of a client: Poisson cohorts, and one noisy mean that is charged before it is made.

    Args:
        noise_multiplier: Of a whole round, which is accounted for.
        clip_norm: Of the first round.
        adaptive_clipping: How the clip norm changes; None where it stays as it is.
        num_clients: All training clients, whether they are connected or not.
        expected_cohort: Clients in a round on average.
        charge: Writes a release down before it is made; raises where it cannot.
        affordable: Whether one more round is within the budget.
        noise: Of the sums and of the draws of cohorts.
        trained: Keys of the tensors that are trained.
    """

    def __init__(
        self,
        *,
        noise_multiplier: float,
        clip_norm: float,
        adaptive_clipping: AdaptiveClipping | None,
        num_clients: int,
        expected_cohort: float,
        charge: Callable[[int, Mechanism], None],
        affordable: Callable[[Mechanism], bool],
        noise: NoiseSource,
        trained: Sequence[str],
    ) -> None:
        self.clip_norm = clip_norm
        """Of the round to come; private with the others."""
        self._adaptive_clipping = adaptive_clipping
        self._expected_cohort = expected_cohort
        self._mechanism = Mechanism(noise_multiplier, expected_cohort / num_clients)
        self._update_noise_multiplier = (
            adaptive_clipping.update_noise_multiplier(noise_multiplier)
            if adaptive_clipping
            else noise_multiplier
        )
        self._charge = charge
        self._affordable = affordable
        self._noise = noise
        self._trained = trained

    def draw(self, clients: Sequence[str], round_num: int) -> tuple[str, ...]:
        """Draw each client by itself; the cohort may be empty."""
        return poisson_cohort(
            clients,
            self._mechanism.sampling_probability,
            self._noise.generator("cohort", round_num),
        )

    def admits(self, round_num: int, cohort: Sequence[str]) -> bool:
        """Return whether the budget has room for one more round."""
        return self._affordable(self._mechanism)

    def begin(self, round_num: int, cohort: Sequence[str]) -> None:
        """Do nothing yet: the sum is what is charged."""

    def release(
        self, round_num: int, before: AdapterState, updates: Sequence[AdapterState]
    ) -> AdapterState:
        """Charge the round, then clip, sum, noise, and divide by the expected cohort."""
        self._charge(round_num, self._mechanism)
        mean = privatise_updates(
            before,
            updates,
            GaussianSettings(self.clip_norm, self._update_noise_multiplier, self._expected_cohort),
            self._noise.generator("sum", round_num),
            trained=self._trained,
        )
        if self._adaptive_clipping:
            self.clip_norm = self._adaptive_clipping.next_clip_norm(
                self.clip_norm,
                num_updates=mean.num_updates,
                num_within=mean.num_within,
                expected_cohort=self._expected_cohort,
                noise=self._noise.generator("count", round_num),
            )
        return mean.adapter


@dataclass(frozen=True, slots=True)
class _OneStream:
    """A noise source whose streams are all the same one."""

    stream: np.random.Generator
    reproducible: bool = True

    def generator(self, *names: str | int) -> np.random.Generator:
        return self.stream


def cohort_sample(
    num_units: int, sampling_probability: float, noise: np.random.Generator
) -> Sequence[int]:
    """Draw as the rounds of a run draw their cohorts, for an audit.

    This is :meth:`ClientLevelRounds.draw` itself, so an audit sees whatever is wrong with it.

    Args:
        num_units: Clients there are.
        sampling_probability: The expected cohort by the number of clients.
        noise: The stream.

    Returns:
        The places of those drawn, in order.
    """
    rounds = ClientLevelRounds(
        noise_multiplier=1.0,
        clip_norm=1.0,
        adaptive_clipping=None,
        num_clients=max(num_units, 1),
        expected_cohort=sampling_probability * max(num_units, 1),
        charge=lambda round_num, mechanism: None,
        affordable=lambda mechanism: True,
        noise=_OneStream(noise),
        trained=(),
    )
    width = len(str(num_units))
    names = [f"{place:0{width}}" for place in range(num_units)]
    return [int(name) for name in rounds.draw(names, 1)]


class LocalNoiseRounds:
    """Privacy of a client without a trusted server: each client adds its share of the noise.

    Who takes part is known, so cohorts are drawn as usual. A round is charged to its cohort before
    it is asked, since noisy values leave the clients at once; it stays charged where it fails.

    Args:
        settings: How clients protect what they send.
        expected_cohort: Clients in a round.
        charge: Writes down what a cohort releases, before it is asked; raises where it cannot.
        affordable: Whether one more round of a cohort is within every client's budget.
        trained: Keys of the tensors that are trained.
    """

    def __init__(
        self,
        settings: LocalNoise,
        *,
        expected_cohort: int,
        charge: Callable[[int, Sequence[str]], None],
        affordable: Callable[[Sequence[str]], bool],
        trained: Sequence[str],
    ) -> None:
        self._settings = settings
        self._expected_cohort = expected_cohort
        self._charge = charge
        self._affordable = affordable
        self._trained = trained

    def draw(self, clients: Sequence[str], round_num: int) -> None:
        """Leave the draw to the loop: how many came shows in the noise, so nobody is hidden."""

    def admits(self, round_num: int, cohort: Sequence[str]) -> bool:
        """Return whether all of the cohort can afford the round."""
        return self._affordable(cohort)

    def begin(self, round_num: int, cohort: Sequence[str]) -> LocalNoise:
        """Charge the cohort, and say how it must protect its updates."""
        self._charge(round_num, cohort)
        return self._settings

    def release(
        self, round_num: int, before: AdapterState, updates: Sequence[AdapterState]
    ) -> AdapterState:
        """Sum the shares and divide by the expected cohort.

        Raises:
            FederationError: If too few came to make up the noise.
        """
        return sum_shares(
            before,
            updates,
            expected_cohort=self._expected_cohort,
            min_shares=self._settings.min_shares,
            trained=self._trained,
        )


class ExampleLevelRounds:
    """Privacy of an example: the clients add the noise, and cohorts are drawn as usual.

    Args:
        affordable: Whether one more round of a cohort is within every client's budget.
        charge: Writes down what a cohort is about to release; raises where it cannot. It is called
            before the cohort is asked, so that a client that fails has paid: what it gave away
            before is not known. None where whoever trains the clients charges.
    """

    def __init__(
        self,
        affordable: Callable[[Sequence[str]], bool],
        charge: Callable[[int, Sequence[str]], None] | None = None,
    ) -> None:
        self._affordable = affordable
        self._charge = charge

    def draw(self, clients: Sequence[str], round_num: int) -> None:
        """Leave the draw to the loop: against a server that knows the cohort it hides nobody."""

    def admits(self, round_num: int, cohort: Sequence[str]) -> bool:
        """Return whether all of the cohort can afford the round."""
        return self._affordable(cohort)

    def begin(self, round_num: int, cohort: Sequence[str]) -> None:
        """Charge the whole cohort, where nobody else will."""
        if self._charge is not None:
            self._charge(round_num, cohort)

    def release(
        self, round_num: int, before: AdapterState, updates: Sequence[AdapterState]
    ) -> None:
        """Let the updates pass, which were private when they left the clients."""


def rounds_of_run(
    privacy: RunPrivacy, *, cohort_size: int, trained: Sequence[str], charges_here: bool
) -> RoundPrivacy:
    """Return what makes the rounds of a run private.

    Args:
        privacy: Of the run.
        cohort_size: Expected clients of a round.
        trained: Keys of the tensors that are trained.
        charges_here: Whether the rounds charge the ledger for what clients train with noise; else
            the trainer in this process does.
    """

    def charge(round_num: int, cohort: Sequence[str]) -> None:
        privacy.charge(round_num, privacy.releases(cohort))

    def affordable(cohort: Sequence[str]) -> bool:
        return privacy.affordable(privacy.releases(cohort))

    if privacy.unit.hides_examples:
        return ExampleLevelRounds(affordable, charge if charges_here else None)
    if (settings := privacy.local_noise) is not None:
        return LocalNoiseRounds(
            settings,
            expected_cohort=cohort_size,
            charge=charge,
            affordable=affordable,
            trained=trained,
        )
    assert isinstance(privacy.unit, ClientPrivacy)
    return ClientLevelRounds(
        noise_multiplier=privacy.noise_multiplier,
        clip_norm=privacy.clip_norm,
        adaptive_clipping=privacy.unit.adaptive_clipping,
        num_clients=privacy.participation.num_clients,
        expected_cohort=cohort_size,
        charge=lambda round_num, mechanism: privacy.charge(round_num, {RUN: mechanism}),
        affordable=lambda mechanism: privacy.affordable({RUN: mechanism}),
        noise=privacy.noise,
        trained=trained,
    )
