"""What a config may say: typed, strict, every key with its meaning, unit and range.

Two trees. :class:`RunConfig` is one run: every parameter that can change its outcome, and nothing else; it is what a
run's id is a hash of. :class:`PhaseConfig` is a phase file: the same sections, how to vary them, and where and how
to run them. Both get the sections of the phase's world, see :mod:`vendomini.config.worlds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoints, entry_points
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError

PredictionMode = Literal["required", "optional", "required+confidence", "required+uncertainty", "required+full"]
PredictionFormat = Literal["minimal", "structured", "rich"]
MemoryTools = Literal["none", "basic", "full"]
RecoveryTools = Literal["none", "reset", "audit", "help", "all"]
Thresholds = Literal["strict", "moderate", "lenient"]
BACKENDS = ("auto", "vllm", "hf", "scripted", "openai")
"""Values of ``engine.backend`` that need no other package."""

SCRIPTED_PREFIX = "scripted/"
"""Model names with this prefix are the controls of the scripted engine."""

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
"""The keys of ``agent.model`` that say how a token is chosen."""

REPLY_FORMATS = (
    *("plain", "think", "thinking", "mistral", "harmony", "cohere", "gemma", "seed", "minimax", "solar", "granite-3.2"),
    *("apriel", "kimi-vl", "kimi-k3", "medgemma", "inkling", "plamo", "apertus", "open-thoughts", "muse"),
)
"""The families that :mod:`vendomini.model_info.formats` describes."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
DATE_PATTERN = r"^\d{4}-\d{2}-\d{2}$"

DEFAULT_WORLD = "vending"

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=10**12)]
NonNegative = Annotated[int, Field(ge=0, le=10**12)]
Amount = Annotated[float, Field(ge=0, le=1e12)]


Penalty = Annotated[float, Field(ge=-2, le=2)]

_OWN_DEFAULT = "Null: as the model's generation_config.json says."


def engine_entry_points() -> EntryPoints:
    """What other packages add to ``engine.backend``."""
    return entry_points(group="vendomini.engines")


def _known_backend(name: str) -> str:
    if name in BACKENDS:
        return name
    names = [*BACKENDS, *sorted(engine_entry_points().names)]
    return _one_of(names, name)


def _one_of(names: Sequence[str], name: str) -> str:
    if name in names:
        return name
    expected = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
    raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})


BACKEND_SCHEMA: JsonSchemaValue = {"anyOf": [{"enum": list(BACKENDS)}, {"type": "string"}]}
Backend = Annotated[str, AfterValidator(_known_backend), WithJsonSchema(BACKEND_SCHEMA)]
Family = Annotated[
    str, AfterValidator(lambda name: _one_of(REPLY_FORMATS, name)), WithJsonSchema({"enum": list(REPLY_FORMATS)})
]


class Section(BaseModel):
    """A mapping in a config. Unknown keys are errors, and so are values of another type ("3" is no number)."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )


class ReplyMarkers(Section):
    """How a model marks its thoughts, where no known family does it so."""

    start: Annotated[str, Field(min_length=1)] = Field(description="What stands before a thought.")
    end: Annotated[str, Field(min_length=1)] = Field(description="What stands behind it.")
    answer: str = Field("", description="A header before the answer, if there is one.")
    opened: bool = Field(False, description="The prompt itself ends with the start of a thought.")


class Model(Section):
    """The language model and how it is sampled."""

    name: Annotated[str, Field(min_length=1)] = Field(
        "scripted/reactive", description="Hugging Face id, a local folder, or scripted/<control>."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of the model repository.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="Data type of the weights. auto: as stored; on a CPU without instructions for bfloat16, float32.",
    )
    quantization: str | None = Field(None, description="vLLM's quantization method, where the weights need one named.")
    trust_remote_code: bool = Field(False, description="Run code that comes with the model. Never implied.")
    context_length: Annotated[int, Field(ge=512)] = Field(
        16384, description="Tokens of conversation that the agent keeps; older turns are dropped in chunks."
    )
    max_tokens: Positive = Field(
        512, description="Tokens of an answer, at most; of thought and answer together without max_thinking_tokens."
    )
    max_thinking_tokens: Positive | None = Field(
        None, description="Tokens of a thought before it is ended, on top of max_tokens. Null: no limit of its own."
    )
    temperature: Annotated[float, Field(ge=0, le=10)] | None = Field(0.7, description=f"0 is greedy. {_OWN_DEFAULT}")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(1.0, description=f"Nucleus sampling. {_OWN_DEFAULT}")
    top_k: NonNegative | None = Field(
        None, description=f"Only so many of the most likely tokens; 0 is all of them. {_OWN_DEFAULT}"
    )
    min_p: Probability | None = Field(
        None, description=f"Only tokens at least this fraction as likely as the most likely one. {_OWN_DEFAULT}"
    )
    presence_penalty: Penalty | None = Field(
        None, description=f"Against tokens that the completion holds already. {_OWN_DEFAULT}"
    )
    frequency_penalty: Penalty | None = Field(
        None, description=f"The same, times how often it holds them. {_OWN_DEFAULT}"
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None, description=f"Against tokens that prompt or completion hold; 1 is none. {_OWN_DEFAULT}"
    )
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict, description="Passed to the model's chat template, e.g. {enable_thinking: false}."
    )
    prompt_date: Annotated[str, Field(pattern=DATE_PATTERN)] | None = Field(
        None, description="Today, in prompts of models whose chat template writes a date. Null: 2026-01-01."
    )
    reply_format: (
        Annotated[
            Annotated[Family, Tag("[name]")] | Annotated[ReplyMarkers, Tag("[mapping]")],
            Discriminator(lambda value: "[mapping]" if isinstance(value, dict | ReplyMarkers) else "[name]"),
        ]
        | None
    ) = Field(
        None,
        description="How thoughts are marked: the name of a family (docs/replies.md), or start, end, answer, opened. "
        "Null: as the chat template and the tokenizer show.",
    )

    @property
    def completion_tokens(self) -> int:
        """Tokens of a completion, at most: thought and answer."""
        return self.max_tokens + (self.max_thinking_tokens or 0)


class Interface(Section):
    """What the agent is asked for and offered."""

    prediction_mode: PredictionMode = Field("required", description="Whether a prediction card must come with a call.")
    prediction_format: PredictionFormat = Field("structured", description="Which fields a card has.")
    memory_tools: MemoryTools = Field("basic", description="Scratchpad: none, write and read, or also delete and list.")
    recovery_tools: RecoveryTools = Field("none", description="Tools for getting back on track.")
    structured_output: bool = Field(False, description="Constrain completions to the reply's JSON schema.")


class Agent(Section):
    model: Model = Model()
    interface: Interface = Interface()


class CrashDetector(Section):
    """When behaviour counts as broken down."""

    thresholds: Thresholds = Field("moderate", description="How early the detectors call it a crash.")
    continue_after_crash: NonNegative = Field(
        50, description="Steps the episode goes on after the first crash, to see whether it lets go."
    )


class Measurement(Section):
    pe_windows: Annotated[list[Positive], Field(min_length=1)] = Field(
        [10, 100, 500], description="Window means of prediction errors, in resolved errors."
    )


@dataclass(frozen=True, slots=True)
class Lookup:
    """A key of a phase file that sets one parameter of a run by the value of another.

    Attributes:
        key: in the phase file: ``max_steps_by_level``.
        by: dot path of the parameter whose value is looked up.
        sets: dot path of the parameter that is set.
        annotation: the mapping's type, as pydantic understands it.
        description: for the JSON Schema.
    """

    key: str
    by: str
    sets: str
    annotation: object
    description: str


class RunConfig(Section):
    """One run: every parameter that can change its outcome. Worlds derive from it, with their own sections."""

    former_names: ClassVar[dict[str, str]] = {
        "model": "agent.model",
        "interface": "agent.interface",
        "prediction": "agent.interface",
        "detector": "crash_detector",
        "crash_detection": "crash_detector",
        "seeds": "experiment.replications",
        "replications": "experiment.replications",
    }
    """Names that earlier configs used, and where their content belongs now."""
    lookups: ClassVar[tuple[Lookup, ...]] = ()
    """Keys of a phase file that a world adds besides its sections."""
    hashed_nulls: ClassVar[frozenset[str]] = frozenset({"agent.model.revision", "agent.model.quantization"})
    """Paths that are part of an id even where they are null, as they were before nulls were left out."""

    agent: Agent = Agent()
    crash_detector: CrashDetector = CrashDetector()
    measurement: Measurement = Measurement()

    @model_validator(mode="after")
    def _completion_fits(self) -> RunConfig:
        model = self.agent.model
        if model.completion_tokens * 2 > model.context_length:
            both = f" + agent.model.max_thinking_tokens ({model.max_thinking_tokens})"
            raise ValueError(
                f"agent.model.max_tokens ({model.max_tokens}){both if model.max_thinking_tokens else ''} "
                "must be at most half of "
                f"agent.model.context_length ({model.context_length}): the conversation needs the other half"
            )
        return self


class Replications(Section):
    """As many replications as the answer needs: seeds are added while a dose is undecided and below its maximum."""

    min: Annotated[int, Field(ge=2, le=1000)] = Field(
        description="Seeds before the first look at the results, and from each look to the next."
    )
    max: Annotated[int, Field(ge=3, le=1000)] = Field(description="Seeds, at most.")
    alpha: Annotated[float, Field(gt=0, le=0.2)] = Field(
        0.05, description="Chance, over all looks together, that a dose without effect is found to have one."
    )

    @model_validator(mode="after")
    def _more_than_one_look(self) -> Replications:
        if self.min >= self.max:
            raise ValueError(
                f"experiment.replications.min ({self.min}) must be below max ({self.max}): for the same number in "
                "every cell, write that number alone"
            )
        return self


class Experiment(Section):
    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        "experiment", description="Name of the experiment and of its results folder."
    )
    description: str = Field("", description="What it asks.")
    world: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        DEFAULT_WORLD, description="What the agent acts in: the name of a world, or module:Class."
    )
    replications: Annotated[
        Annotated[Positive, Tag("[number]")] | Annotated[Replications, Tag("[mapping]")],
        Discriminator(lambda value: "[mapping]" if isinstance(value, dict | Replications) else "[number]"),
    ] = Field(
        1,
        description="Runs of each cell of the grid; they differ in their seed. Or {min, max}: as many as it takes to "
        "decide whether a dose differs from none.",
    )
    seed: NonNegative = Field(0, description="Seed of the first replication; the others count up from it.")

    @property
    def most(self) -> int:
        """Replications of a cell, at most."""
        return self.replications.max if isinstance(self.replications, Replications) else self.replications


class EngineConfig(Section):
    """Where and how the model runs. Nothing here is part of a run's identity."""

    backend: Backend = Field("auto", description="auto tries vLLM where it can work, then Hugging Face.")
    fallback: Literal["auto", "never"] = Field(
        "auto", description="never: an engine that should run here and does not start is not replaced by a slower one."
    )
    gpus: NonNegative | None = Field(None, description="GPUs of a job. Null: from the model's size.")
    nodes: Positive = Field(1, description="Nodes for one model, each with engine.gpus (vLLM only).")
    max_num_seqs: Positive | None = Field(None, description="Episodes in flight on one model. Null: the engine's own.")
    startup_timeout: Positive = Field(1800, description="Seconds a model may take to load.")
    request_timeout: Positive = Field(600, description="Seconds one completion may take.")
    max_model_len: Positive | None = Field(None, description="vLLM's context. Null: agent.model.context_length.")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="Fraction of GPU memory vLLM takes."
    )
    batch_invariant: bool = Field(
        False, description="vLLM's kernels whose answers do not depend on the batch (VLLM_BATCH_INVARIANT); slower."
    )
    enforce_eager: bool = Field(False, description="vLLM without compilation and CUDA graphs.")
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = Field(
        "auto", description="Attention of the Hugging Face engine. auto: the fastest that can run here."
    )
    engine_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Passed to vLLM's AsyncEngineArgs as they are."
    )
    base_url: str | None = Field(None, description="Of a server that speaks OpenAI's API, for backend openai.")
    request: dict[str, JsonValue] = Field(
        default_factory=dict, description="Into every request to such a server, as it is. Null leaves a field out."
    )

    @model_validator(mode="after")
    def _no_secret(self) -> EngineConfig:
        """What a config says is kept in plans and shown in reports."""
        if "@" in (self.base_url or "").partition("://")[2].partition("/")[0]:
            raise ValueError("engine.base_url holds a password: put the key into OPENAI_API_KEY, in the environment")
        query = (self.base_url or "").partition("?")[2].lower()
        keys = ("key=", "token=", "sig=", "secret=")
        if any(key in query for key in keys) or {"api_key", "api-key", "authorization"} & self.request.keys():
            raise ValueError(
                "engine.base_url or engine.request holds a key: put it into OPENAI_API_KEY, in the environment"
            )
        if "hf_token" in self.engine_args:
            raise ValueError("engine.engine_args holds hf_token: put it into HF_TOKEN, in the environment")
        return self


class Breaker(Section):
    """When runs are stopped because the model's replies can't be used: unparsable, cut off, or with a missing or
    invalid card where one is required. Nothing here is part of a run's identity."""

    unusable: Probability | None = Field(
        0.5, description="Share of such replies beyond which runs set alike stop. Null, or `breaker: off`: never."
    )
    steps: Positive = Field(8, description="Of each episode, only its first so many count.")
    episodes: Positive = Field(5, description="Episodes that must have done them before anything is stopped.")


class Contrast(Section):
    """A question to be answered by one number: does survival differ between two levels of a factor?"""

    factor: str = Field(description="Dot path of a factor in the grid.")
    compare: Annotated[list[JsonValue], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Two of its levels. Null: the slope over all levels of a numeric factor."
    )
    within: dict[str, JsonValue] = Field(
        default_factory=dict, description="Dot path → value: among the runs of this cell of the grid only."
    )


class Analysis(Section):
    """What was decided before the runs were made. Nothing here is part of a run's identity."""

    primary: list[Contrast] = Field(
        default_factory=list,
        description="Preregistered contrasts: the report answers them first, corrects for their number, and calls "
        "everything else exploratory.",
    )


class PhaseConfig(RunConfig):
    """A phase file, after ``inherit`` is resolved."""

    experiment: Experiment = Experiment()
    engine: EngineConfig = EngineConfig()
    breaker: Breaker = Breaker()
    analysis: Analysis = Analysis()
    fixed: dict[str, object] = Field(
        default_factory=dict, description="Dot path → value, over the sections: {pe_induction.pe_mag: high}."
    )
    grid: dict[str, list[object]] = Field(
        default_factory=dict, description="Dot path → list of values. The runs are all their combinations."
    )
    models: dict[str, dict[str, object]] = Field(
        default_factory=dict,
        description="Model name or pattern (* and ?) → dot path → value: agent.model.* and engine.* settings of these "
        "models alone, over the sections and below fixed and grid. Of several that match the later wins, and the "
        "model's own name always.",
    )
