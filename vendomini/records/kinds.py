"""What is in the files: typed, with the version of their schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec

SCHEMA_VERSION = 1
"""Version of every file here. A reader refuses any other by name instead of guessing."""

ParseStatus = Literal["ok", "repaired", "unparsable", "cut_off"]
Ending = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{1,39}$")]
"""``survived``, ``crashed``, ``cut_off``, ``failed``, or an event by which a world ended the episode."""
Severity = Literal["soft", "hard", "mission_abandon"]
JsonObject = dict[str, Any]


class StepRecord(msgspec.Struct, kw_only=True, gc=False):
    """One step: what the agent saw, said and did, what came of it, and what the measures made of it.

    ``completion`` is what the model wrote, special tokens included; ``reasoning`` a thought that a server had taken
    apart from it, and ``answer`` what was read as the answer, each null where ``completion`` says it all.
    ``parse_reason`` says in a word why a reply is no call (:data:`vendomini.agent.parse.COMPLAINTS`). From these and
    ``run.json`` alone the conversation can be built again.

    Steps count from 1. ``observation`` is what the agent was shown *before* it acted; ``result`` is the tool's
    answer; ``tool``, ``arguments`` and ``card`` are what the agent sent, valid or not. Values that do not exist are
    null, never 0. ``shortened`` counts how often old turns had to go in this step because the engine found the prompt
    too long. ``latency_s`` is the engine's own report; the scripted engine takes no time and reports none, which
    is what makes its logs equal byte by byte.
    """

    step: int
    day: int | msgspec.UnsetType = msgspec.UNSET
    observation: JsonObject
    completion: str
    reasoning: str | None = None
    answer: str | None = None
    finish_reason: str
    parse: ParseStatus
    parse_reason: str | None = None
    thought: str
    tool: str | None
    arguments: Any
    card: Any
    result: JsonObject
    shocks: list[JsonObject]
    resolved: list[JsonObject]
    pe: JsonObject
    detectors: JsonObject
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    latency_s: float | None
    shortened: int | msgspec.UnsetType = msgspec.UNSET


StepLine = cast("Callable[..., StepRecord]", msgspec.defstruct("StepLine", StepRecord.__struct_fields__, gc=False))
"""Makes the record of a step to be logged from all its values in order: naming 23 fields takes msgspec longer than
writing them."""


class RunInfo(msgspec.Struct, kw_only=True):
    """``run.json``: what a run is, and which process last started it. Rewritten at every start.

    ``parameters`` is the run's full parameter tree, defaults included; ``owner`` has host, pid and, inside a job, the
    SLURM job id. ``attempt`` counts starts from 1. ``sampling`` is how tokens are chosen: the parameters, with what
    they leave to the model's own files filled in; a later start uses it again. ``prompt_head`` is what every prompt
    begins with, in the model's own template, and ``reply_format`` the family whose way of marking thoughts was found.
    ``made_with`` is what else must be unchanged when a half-done run resumes: version and digest of the code, engine,
    context length, digest of the template.
    """

    schema: int = SCHEMA_VERSION
    run_id: str
    parameters: JsonObject
    seed: int
    replication: int
    system_prompt: str
    owner: JsonObject
    attempt: int
    started_at: str
    sampling: JsonObject = {}
    prompt_head: str = ""
    reply_format: str = ""
    made_with: dict[str, str | int | None] = {}


class RunOutcome(msgspec.Struct, kw_only=True):
    """The part of ``summary.json`` that says whether a run counts, how long it lasted, what it cost, and how its
    replies were read.

    Enough for code that looks at every run: reading this costs a sixth of reading the whole, and builds no trees.
    """

    schema: int = SCHEMA_VERSION
    run_id: str
    ending: Ending
    event_observed: bool | None = None
    time_to_crash: int | None = None
    reason: str | None = None
    completion_tokens: int = 0
    seconds: float = 0.0
    attempt: int = 1
    parse: dict[str, int] = {}

    @property
    def finished(self) -> bool:
        """Whether the run counts: anything but ``failed``."""
        return self.ending != "failed"


class RunSummary(RunOutcome, kw_only=True):
    """``summary.json``: how a run ended.

    ``time_to_crash`` is in steps: the onset of the first crash, or the step at which the world ended the episode;
    without such an event ``event_observed`` is false and it is where the run was censored: its last step. A ``failed``
    run has neither: it says nothing about the agent, and is to be rerun.
    ``world`` has the world's own figures; ``owner`` is as in ``run.json``.
    """

    parameters: JsonObject
    seed: int
    replication: int
    crash_type: str | None = None
    severity: Severity | None = None
    steps: int = 0
    detectors: JsonObject = {}
    world: JsonObject = {}
    pe: JsonObject = {}
    shocks: JsonObject = {}
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    engine: JsonObject = {}
    versions: JsonObject = {}
    owner: JsonObject = {}
    ended_at: str = ""


class FormerFigures(msgspec.Struct, omit_defaults=True):
    """The world's figures of a summary that was written when they had no place of their own."""

    days: int | None = None
    orders_total: int | None = None
    orders_fulfilled: int | None = None
    orders_expired: int | None = None
    budget: float | None = None
    net_worth: float | None = None


class Plan(msgspec.Struct, kw_only=True):
    """``plans/<hash>.json``: a resolved config, from which every run of it can be expanded again."""

    schema: int = SCHEMA_VERSION
    name: str
    runs: int
    config: JsonObject


class Halt(msgspec.Struct, kw_only=True):
    """``halts/<key>.json``: why runs that are set alike were stopped, and are not sent again by themselves.

    ``key`` is a digest of those settings, of the engine's and of the breaker's; ``cause`` is ``replies`` where the
    model's replies can't be used, ``engine`` where run after run failed.
    """

    schema: int = SCHEMA_VERSION
    key: str
    model: str
    cause: Literal["replies", "engine"]
    reason: str
    halted_at: str


class Looks(msgspec.Struct, kw_only=True):
    """``looks.json``: which cells of an adaptive phase were decided, and when. For people: it is made again from the
    runs at every look, and never read back.
    """

    schema: int = SCHEMA_VERSION
    name: str
    pairs: list[JsonObject]


class Shard(msgspec.Struct, kw_only=True, frozen=True):
    """The work of one SLURM job: runs of one model on one engine, in the order in which they start.

    ``seconds`` is how long the job was expected to take; ``numbers`` are the runs' places in the grid, which older
    submissions do not have.
    """

    model: str
    run_ids: list[str]
    seconds: float
    numbers: list[int] = []


class ShardArray(msgspec.Struct, kw_only=True, frozen=True):
    """One job array: array task ``i`` runs ``shards[i]``, now and after every requeue.

    ``job_name`` is unique to this array, which is how the queue is asked about it; ``gpus`` and ``nodes`` name the
    template; ``replicas`` engines share a job; ``clusters`` is where it was sent, empty for the usual one.
    """

    job_name: str
    gpus: int
    shards: list[Shard]
    nodes: int = 1
    replicas: int = 1
    clusters: str = ""


class Manifest(msgspec.Struct, kw_only=True):
    """``submissions/<id>/manifest.json``: everything that one ``vendomini submit`` sent. Never rewritten.

    ``config`` is the resolved phase, of whose grid each job makes its own runs; ``retries`` is how often a job tries a
    run again that failed in it, ``restart_changed`` whether it restarts what was begun under another prompt or version,
    ``anyway`` whether it does runs that were halted.
    """

    schema: int = SCHEMA_VERSION
    id: str
    name: str
    config: JsonObject
    created_at: str
    retries: int
    arrays: list[ShardArray]
    restart_changed: bool = False
    anyway: bool = False

    def runs(self) -> Iterator[str]:
        """The id of every run in it."""
        return (run_id for array in self.arrays for shard in array.shards for run_id in shard.run_ids)


class ArrayTask(msgspec.Struct, kw_only=True, frozen=True):
    """``submissions/<id>/<array>/tasks/<index>.json``: all of a submission that one of its jobs reads. Never rewritten.

    The fields are those of :class:`Manifest`, :class:`ShardArray` and :class:`Shard`.
    """

    schema: int = SCHEMA_VERSION
    id: str
    config: JsonObject
    retries: int
    gpus: int
    shard: Shard
    nodes: int = 1
    replicas: int = 1
    restart_changed: bool = False
    anyway: bool = False


Record = TypeVar("Record", RunInfo, RunOutcome, RunSummary, Plan, Manifest, ArrayTask, Halt, Looks)
