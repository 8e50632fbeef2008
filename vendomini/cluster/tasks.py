"""What each job of a submission reads: a file of its own. One digest vouches for all files of an array.

The tasks of an array share one script, so SLURM can keep one digest only: the root of a hash tree over the files. Each
file ends with the digests beside its way up to the root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vendomini.cluster.ledger import array_folder
from vendomini.errors import ClusterError
from vendomini.records import ArrayTask, Manifest, Results, decode_record, encode_record, open_record, write_error


def task_of(manifest: Manifest, array: int, index: int) -> ArrayTask:
    """What one job has to know of a submission."""
    whole = manifest.arrays[array]
    return ArrayTask(
        id=manifest.id,
        config=manifest.config,
        retries=manifest.retries,
        gpus=whole.gpus,
        shard=whole.shards[index],
        nodes=whole.nodes,
        replicas=whole.replicas,
        restart_changed=manifest.restart_changed,
        anyway=manifest.anyway,
    )


def encoded(manifest: Manifest, array: int) -> list[bytes]:
    """Every task of an array as it is written."""
    return [encode_record(task_of(manifest, array, index)) for index in range(len(manifest.arrays[array].shards))]


def root(records: Sequence[bytes]) -> str:
    """The digest that vouches for all of them, in this order."""
    return _levels(records)[-1][0].hex()


def write_tasks(results: Results, manifest: Manifest) -> None:
    """A file for each job. They are not synced one by one: a job that finds its file lost or torn runs nothing.

    Raises:
        ResultsError: the place is full or read-only.
    """
    for array in range(len(manifest.arrays)):
        records = encoded(manifest, array)
        levels = _levels(records)
        folder = task_file(results, manifest.id, array, 0).parent
        try:
            folder.mkdir(parents=True)
            for index, record in enumerate(records):
                beside = [level[(index >> k) ^ 1].hex() for k, level in enumerate(levels[:-1])]
                with task_file(results, manifest.id, array, index).open("xb") as file:
                    file.write(record + " ".join(beside).encode() + b"\n")
        except OSError as exc:
            raise write_error(folder, exc) from exc


def task_file(results: Results, submission_id: str, array: int, index: int) -> Path:
    return array_folder(results, submission_id, array) / "tasks" / f"{index}.json"


def read_task(file: Path, index: int, digest: str) -> ArrayTask:
    """Args:
        digest: the root that SLURM has kept.

    Raises:
        ClusterError: the file is not what was submitted as this task, or can't be read.
    """
    try:
        with open_record(file) as opened:
            record, beside = opened.readline(), opened.readline()
    except OSError as exc:
        raise ClusterError(f"can't read {file} ({exc.strerror}): submit again") from exc
    if _climbed(record, index, beside) != digest:
        raise ClusterError(f"{file} is not what was submitted, and nothing of it is run: submit again")
    return decode_record(file, record, ArrayTask)


def _levels(records: Sequence[bytes]) -> list[list[bytes]]:
    """The tree from the leaves up; a level of odd length has its last digest twice, except the root."""
    level = [_leaf(record) for record in records]
    levels = [level]
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [_node(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        levels.append(level)
    return levels


def _climbed(record: bytes, index: int, beside: bytes) -> str:
    """The root that this record has as a leaf of this index; empty where the digests beside it can't be read."""
    digest = _leaf(record)
    try:
        others = [bytes.fromhex(word) for word in beside.decode("ascii").split()]
    except ValueError:
        return ""
    for other in others:
        digest = _node(other, digest) if index & 1 else _node(digest, other)
        index >>= 1
    return digest.hex()


def _leaf(record: bytes) -> bytes:
    """Leaves and nodes differ in their first byte: neither passes for the other."""
    return hashlib.sha256(b"\0" + record).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
