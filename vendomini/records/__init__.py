"""The files of a results folder: what is in them, how they are appended to, and how they are read back.

::

    RESULTS/
      plans/<hash>.json            a resolved config: every run that was ever asked for here (immutable)
      runs/<run_id>/run.json       what this run is and who last started it
      runs/<run_id>/steps.jsonl    one object a step; this log is the checkpoint
      runs/<run_id>/summary.json   written once, when the run ended
      halts/<key>.json             why runs were stopped that are not sent again by themselves
      looks.json                   what the looks at an adaptive phase have decided
      pilot/                       the results folder of the pilot
      submissions/<id>/            what was sent to SLURM: manifest.json each job's part of it; scripts and logs

Every line and every file is *sealed*: its last key is the CRC-32 of everything before it, so that a flipped byte is
found on reading and not in a figure. Lines are appended with one ``write``; whole files are written under a temporary
name and moved into place.
"""

from vendomini.records.files import (
    decode_record,
    encode_record,
    is_full,
    open_record,
    read_record,
    replacing,
    seal,
    unseal,
    write_atomically,
    write_error,
    write_record,
)
from vendomini.records.folder import PILOT, Results, RunPaths
from vendomini.records.kinds import (
    ArrayTask,
    Ending,
    Halt,
    JsonObject,
    Looks,
    Manifest,
    ParseStatus,
    Plan,
    RunInfo,
    RunOutcome,
    RunSummary,
    Severity,
    Shard,
    ShardArray,
    StepLine,
    StepRecord,
)
from vendomini.records.step_log import StepLog, decode_step, last_steps, read_steps, step_lines

__all__ = [
    "PILOT",
    "ArrayTask",
    "Ending",
    "Halt",
    "JsonObject",
    "Looks",
    "Manifest",
    "ParseStatus",
    "Plan",
    "Results",
    "RunInfo",
    "RunOutcome",
    "RunPaths",
    "RunSummary",
    "Severity",
    "Shard",
    "ShardArray",
    "StepLine",
    "StepLog",
    "StepRecord",
    "decode_record",
    "decode_step",
    "encode_record",
    "is_full",
    "last_steps",
    "open_record",
    "read_record",
    "read_steps",
    "replacing",
    "seal",
    "step_lines",
    "unseal",
    "write_atomically",
    "write_error",
    "write_record",
]
