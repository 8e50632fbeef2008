"""What we use of submitit that it does not promise: its hooks for other schedulers.

A release that changes them fails here, by name, before it fails a user; the upper bound in ``pyproject.toml`` keeps it
from being installed meanwhile.
"""

from __future__ import annotations

import inspect

import pytest
from submitit import SlurmExecutor

from vendomini.cluster.send import job_id
from vendomini.errors import ClusterError

HOOKS = {
    "_submit_command": ["self", "command"],
    "_make_submission_file_text": ["self", "command", "uid"],
    "_make_submission_command": ["self", "submission_file_path"],
    "_get_job_id_from_submission_command": ["string"],
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_as_we_know_it(name: str) -> None:
    hook = getattr(SlurmExecutor, name, None)
    assert hook is not None, f"submitit has no {name} any more: vendomini/cluster/send.py needs another way"
    assert list(inspect.signature(hook).parameters) == HOOKS[name], f"submitit's {name} takes other arguments now"


def test_submit_command_uses_the_other_hooks() -> None:
    source = inspect.getsource(SlurmExecutor._submit_command)
    for name in list(HOOKS)[1:]:
        assert f"self.{name}(" in source, f"submitit's _submit_command does not call {name} any more"
    assert '"submission_file"' in source, "the script is not filed under the job's id any more"


@pytest.mark.parametrize(
    ("output", "expected"),
    [("123\n", "123"), ("123;other\n", "123"), ("Quota: 93\n5 jobs wait\n77\n", "77"), ("12 34\n56;a\n\n", "56")],
)
def test_the_job_id_among_what_a_site_says(output: str, expected: str) -> None:
    assert job_id(output) == expected


def test_no_job_id_at_all() -> None:
    with pytest.raises(ClusterError, match="sbatch named no job: Submitted batch job 5"):
        job_id("Submitted batch job 5")
