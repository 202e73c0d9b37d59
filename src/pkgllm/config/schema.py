"""The configuration: one frozen, typed tree. Unknown keys are errors; choices are tagged by name.

A string under each field is its documentation and gives its unit.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the tree: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RedialCorpus(Section):
    """Dialogues in ReDial's files (Li et al. 2018)."""

    name: Literal["redial"]
    folder: str | None = None
    """Folder of the files; when absent ``$PKGLLM_DATA/redial``, then ``./data/redial``."""
    hub: str | None = None
    """A data set of the Hugging Face hub to read instead, ``community-datasets/re_dial``."""
    movie_facts: str | None = None
    """``movies.json`` with public facts; when absent ``movie_kg/movies.json`` beside the folder."""


class SmallWorldCorpus(Section):
    """The project's own invented movie world, written in ReDial's file formats."""

    name: Literal["small_world"]
    folder: str | None = None
    """Folder of the generated files; when absent the shipped one."""


class Clients(Section):
    """Who takes part."""

    min_liked: Positive = 1
    """Liked facts that a client needs, to have something to hold out."""
    below_min_liked: Literal["refuse", "leave_out"] = "refuse"
    """What a client with fewer is: an error, or left out and counted in the report."""
    unseen_share: Share = 0.1
    """Share of the clients that take no part in training."""


class Split(Section):
    """What is held out of each client's liked facts, latest first."""

    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the liked facts held out for the test, at least one fact."""
    validation_share: Share = 0.1
    """Share of the liked facts, before those, held out for validation."""
    restated_facts: Literal["latest", "first"] = "latest"
    """Which statement gives a fact its time that was stated more than once. With ``first`` nothing
    is asked for that the person had said before."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> "Split":
        if self.test_share + self.validation_share >= 1:
            raise ValueError(
                "test_share + validation_share must be below 1, "
                f"got {self.test_share + self.validation_share:g}"
            )
        return self


class BaseModelChoice(Section):
    """The frozen language model."""

    name: str
    """A folder, a name in ``$PKGLLM_MODELS``, ``data/models`` or the shipped ones, or a hub id."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen parameters; the adapter is always float32."""


class Adapter(Section):
    """The LoRA adapter (Hu et al. 2021)."""

    lora_rank: Positive = 16
    """Inner dimension of the factors."""
    lora_alpha: PositiveFloat = 32.0
    """Scale: the product of the factors is multiplied by ``lora_alpha / lora_rank``."""
    rank_stabilized: bool = False
    """Multiply by ``lora_alpha / sqrt(lora_rank)`` instead (rsLoRA, Kalajdzievski 2023)."""
    freeze_a: bool = False
    """Train only the second factor, ``B`` (FFA-LoRA, Sun et al. 2024): the mean of updates is then
    the update of the mean."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that are adapted; the LM head never is."""


class Prompt(Section):
    """How a graph becomes a prompt."""

    form: Literal["triples", "jsonld", "prose"] = "prose"
    """How the facts are written."""
    instruction: str = "Recommend what fits this person."
    """First line of the system message; empty for none."""
    max_tokens: Annotated[int, Field(ge=32)] = 512
    """Longest prompt, tokens; older facts are left out to fit, liked ones last, and counted."""
    request: str = "Recommend movies to me."
    """What the person asks."""
    answer_mark: Annotated[str, Field(pattern=r"^\S*$")] = ""
    """What stands before each title of an answer, ``-`` for example, where the base model was
    trained on lists that have it; the prompt then ends with it. Empty for none."""


class Negatives(Section):
    """Undesirable completions beside the films that the person disliked."""

    known: NotNegative = 0
    """Items per group that the context already holds."""
    uniform: NotNegative = 8
    """Items per group, drawn uniformly from the catalogue."""


class Groups(Section):
    """How training facts become groups: a prompt and the completions it is asked for."""

    hidden_facts: Positive = 8
    """Liked and disliked facts hidden from a prompt and asked for."""
    stride: Positive = 4
    """Facts between one window of hidden facts and the next."""
    min_context: NotNegative = 1
    """Facts that must stand before the hidden ones."""
    max_groups: Positive = 16
    """Groups per client; the latest windows are kept."""
    negatives: Negatives = Negatives()


class Kto(Section):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024)."""

    name: Literal["kto"]
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    desirable_weight: PositiveFloat = 1.0
    """Weight of a desirable completion."""
    undesirable_weight: PositiveFloat = 1.0
    """Weight of an undesirable completion."""
    nll_weight: NotNegativeFloat = 0.0
    """Weight of the likelihood of the desirable completions; 0 is the paper's form."""


class ApoZero(Section):
    """KTO with the KL baseline fixed at 0 (APO-zero for unpaired feedback)."""

    name: Literal["apo_zero"]
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    desirable_weight: PositiveFloat = 1.0
    """Weight of a desirable completion."""
    undesirable_weight: PositiveFloat = 1.0
    """Weight of an undesirable completion."""
    nll_weight: NotNegativeFloat = 0.0
    """Weight of the likelihood of the desirable completions."""


class Dpo(Section):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    name: Literal["dpo"]
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    pairs: Literal["all", "matched"] = "all"
    """Every desirable completion of a group with every undesirable one, or the first with the
    first, the second with the second; what is then over is left out."""
    nll_weight: NotNegativeFloat = 0.0
    """Weight of the likelihood of the desirable completions; 0 is the paper's form."""


class Sdpo(Section):
    """Softmax-DPO: against all undesirable completions of a group at once (Chen et al. 2024)."""

    name: Literal["sdpo"]
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    nll_weight: NotNegativeFloat = 0.0
    """Weight of the likelihood of the desirable completions; 0 is the paper's form."""


class Sft(Section):
    """Supervised fine-tuning on the desirable completions."""

    name: Literal["sft"]


Objective = Annotated[Kto | ApoZero | Dpo | Sdpo | Sft, Field(discriminator="name")]


class Training(Section):
    """Local training of one client."""

    engine: Literal["lanes", "sequential"] = "lanes"
    """How clients are trained: many in one pass over the frozen base model, or one after the other
    by PEFT, which is slower, takes any base model, and is what ``lanes`` must equal."""
    memory_gib: PositiveFloat | None = None
    """Memory that ``lanes`` may take beside the model's parameters, GiB; sets how many clients
    train at once. When absent 2 on a CPU, and 0.8 of what is free on a GPU."""
    attention: Literal["sdpa", "flex"] = "sdpa"
    """What computes the attention of ``lanes`` on a GPU: torch's scaled dot product with a mask, or
    FlexAttention, which leaves out what the mask hides and is compiled first."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The local optimiser; its state is fresh in every round."""
    learning_rate: PositiveFloat = 1e-3
    """Step size of the first round."""
    schedule: Literal["constant", "linear"] = "linear"
    """How the step size goes from round to round: unchanged, or falling linearly to 0."""
    weight_decay: NotNegativeFloat = 0.0
    """Decoupled weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Longest gradient of a step; longer ones are scaled down."""
    groups_per_step: Positive = 4
    """Groups in one optimiser step."""
    local_steps: Positive = 4
    """Optimiser steps of one client in one round."""


class FedAvg(Section):
    """Federated averaging (McMahan et al. 2017)."""

    name: Literal["fedavg"]


class Federated(Section):
    """Clients train apart; the server averages what they send."""

    name: Literal["federated"]
    rounds: Positive
    """Server iterations."""
    cohort_size: Positive
    """Clients drawn in each round."""
    weighting: Literal["uniform", "examples"] = "uniform"
    """Weight of a client's update: equal, or its number of groups (a private count)."""
    strategy: FedAvg = FedAvg(name="fedavg")
    """How updates become the next adapter."""
    round_timeout: PositiveFloat = 3600.0
    """Seconds after which a client counts as failed; in one process, clients that train together
    share their time equally."""


class Centralized(Section):
    """All training graphs in one place: what federation is measured against."""

    name: Literal["centralized"]
    rounds: Positive
    """Stretches of training between two lines of metrics."""
    cohort_size: Positive = 1
    """Multiplies ``training.local_steps``, so that a run sees as many groups as a federated one."""


class Local(Section):
    """Every client trains its own adapter and sends nothing."""

    name: Literal["local"]
    rounds: Positive
    """Stretches of ``training.local_steps`` for each client."""


Mode = Annotated[Federated | Centralized | Local, Field(discriminator="name")]


class NoPrivacy(Section):
    """No guarantee: updates leave the clients as they are."""

    name: Literal["none"]
    report_private_metrics: bool = False
    """Let losses and counts leave the clients; marks the run as not private."""


class Baselines(Section):
    """What a run is compared with beside its own base model; tune on ``validation`` only."""

    names: tuple[
        Literal["popularity", "item_knn", "ease", "random", "constant", "prompt_copy"], ...
    ] = ("popularity", "item_knn", "ease")
    """Which are ranked. The last three are controls that show a faulty protocol."""
    neighbours: Positive = 100
    """Most similar items that an item of ``item_knn`` is scored by (Sarwar et al. 2001)."""
    shrinkage: NotNegativeFloat = 300.0
    """Is added to the denominator of ``item_knn``: takes from pairs that few clients vouch for."""
    l2: PositiveFloat = 1000.0
    """Regularisation of ``ease`` (Steck 2019): how far its item weights are drawn to 0."""


class Lists(Section):
    """Recommendations that the model writes itself, the secondary protocol."""

    k: Annotated[int, Field(ge=1, le=10)] = 10
    """Longest list, items; longer ones are cut. Of rankers no more than the best 10 are kept."""
    max_new_tokens: Positive = 160
    """Tokens after which an unconstrained answer is cut off."""
    temperature: PositiveFloat = 1.0
    """Of the sampled answers; below 1 likely tokens become likelier."""
    samples: Positive = 5
    """Sampled answers per client, each with a stream of its own."""
    prompts_at_once: Positive = 16
    """Prompts that are answered together; bounds the memory."""


class Evaluation(Section):
    """What is ranked, and how sure the numbers are."""

    part: Literal["test", "validation"] = "test"
    """Which held-out facts are asked for; tune on ``validation`` only."""
    max_clients: Positive | None = None
    """Clients to rank, drawn with the seed; all when absent."""
    bootstrap_resamples: Annotated[int, Field(ge=100)] = 10_000
    """Resamples of the clients behind each 95 % interval."""
    score: Literal["sum", "mean", "pmi", "policy_reference_ratio"] = "sum"
    """A title's score by a language model: its log-probability, that per token, what the facts add
    to it, or what tuning added (the base model keeps ``sum`` then). Only ``sum`` can leave out
    parts of the catalogue; choose on ``validation`` only."""
    memory_gib: PositiveFloat = 2.0
    """Memory that ranking may take beside the model's parameters, GiB; sets how much goes through
    the model at once."""
    baselines: Baselines = Baselines()
    lists: Lists = Lists()


class Experiment(Section):
    """The whole run."""

    seed: NotNegative = 0
    """Every random stream of the run is derived from it."""
    corpus: Annotated[RedialCorpus | SmallWorldCorpus, Field(discriminator="name")]
    clients: Clients = Clients()
    split: Split = Split()
    base_model: BaseModelChoice
    adapter: Adapter = Adapter()
    prompt: Prompt = Prompt()
    groups: Groups = Groups()
    objective: Objective
    training: Training = Training()
    mode: Mode
    privacy: NoPrivacy = NoPrivacy(name="none")
    evaluation: Evaluation = Evaluation()
    output: str = "runs"
    """Folder in which the run folder is made; ``--output`` names the run folder itself."""

    @model_validator(mode="after")
    def _possible(self) -> "Experiment":
        problems = []
        if self.evaluation.part == "validation" and self.split.validation_share == 0:
            problems.append(
                "evaluation.part validation needs split.validation_share above 0, because nothing "
                "is held out for it; got 0"
            )
        if (
            self.mode.name == "federated"
            and self.mode.weighting == "examples"
            and not self.privacy.report_private_metrics
        ):
            problems.append(
                "mode.weighting examples sends private counts; set privacy.report_private_metrics "
                "to mark the run as not private, or use uniform"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self
