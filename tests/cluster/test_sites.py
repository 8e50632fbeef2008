"""SLURM as sites run it: options of others that get in the way, limits, jobs that hide, commands that stumble.

Where a test needs a command that misbehaves, it puts a wrapper before the real one in the PATH.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.bench import Bench
from tests.cluster.slurm import Slurm
from vendomini.cluster import slurm

LATER = "now+1hour"
"""A job that begins then can be looked at in the queue."""


@pytest.fixture
def config(bench: Bench, request: pytest.FixtureRequest) -> Path:
    """Four short runs, named after the test."""
    name = request.function.__name__.removeprefix("test_")[:40]
    return bench.config(name, grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)


def _pending(bench: Bench, config: Path, *options: str, **environ: str) -> dict[str, str]:
    """What SLURM knows of a job of this config that waits."""
    bench.set_in_template("gpu0.sbatch", begin=LATER)
    bench.vendomini("submit", str(config), *options, **environ)
    (job,) = bench.slurm.jobs()
    return bench.shown(job[0])


# ------------------------------------------------------------------------------------ jobs that are live all the same


def test_a_job_that_is_still_completing_is_live(bench: Bench, config: Path) -> None:
    bench.add_to_template("gpu0.sbatch", "sleep 60")
    sent = bench.submit(config)
    bench.slurm.until("it runs", lambda: [job[2] for job in bench.slurm.jobs()] == ["RUNNING"])
    with bench.slurm.slow_epilog(5):
        bench.slurm.call("scontrol", "requeue", sent["job_ids"][0])
        bench.slurm.until("it is completing", lambda: [job[2] for job in bench.slurm.jobs()] == ["COMPLETING"])
        again = bench.submit(config)
    assert (again["runs"], again["live"]) == (0, 4)


@pytest.mark.parametrize("steering", [{"SQUEUE_STATES": "RUNNING"}, {"SQUEUE_PARTITION": "short"}])
def test_variables_that_filter_the_queue(bench: Bench, config: Path, steering: dict[str, str]) -> None:
    _pending(bench, config)
    assert "4 live in the queue" in bench.vendomini("submit", str(config), **steering)
    assert "pending (BeginTime)" in bench.vendomini("status", str(config), **steering)


@pytest.fixture
def open_bench(bench: Bench) -> Iterator[Bench]:
    """A folder into which other users can look, too."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        yield Bench(bench.slurm, Path(folder))


def test_a_hidden_partition(open_bench: Bench) -> None:
    bench = open_bench
    config = bench.config("hidden", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)
    bench.become("nobody")  # root sees everything
    assert _pending(bench, config, "--partition", "hidden")["Partition"] == "hidden"
    assert "4 live in the queue" in bench.vendomini("submit", str(config))
    assert len(bench.json("cancel", str(config))[f"results/{config.stem}"]) == 1


def test_a_colleagues_jobs_on_a_cluster_that_hides_them(open_bench: Bench) -> None:
    bench = open_bench
    config = bench.config("secret", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)
    _pending(bench, config)
    bench.become("nobody")
    with bench.slurm.changed(private_data="jobs"):
        said = bench.vendomini("submit", str(config))
        assert "0 runs to do, 4 in jobs of others, which this cluster hides" in said
        status = bench.json("status", str(config))[0]
        assert (status["waiting"], status["jobs"][0]["state"]) == (4, "HIDDEN")
        assert "a job of root, which this cluster hides from you" in bench.vendomini("status", str(config))
        assert bench.json("cancel", str(config)) == {f"results/{config.stem}": []}
        assert bench.submit(config, "--take-over", "--dry-run")["runs"] == 4
    assert "4 live in the queue" in bench.vendomini("submit", str(config)), "now they can be seen"


def test_a_queue_that_is_down(bench: Bench, config: Path) -> None:
    _pending(bench, config)
    down = bench.wrap("squeue", "echo 'squeue: error: Invalid user id' >&2; exit 1")
    said = bench.vendomini("status", str(config), **down)
    assert "4 unknown (the queue was not asked)" in said
    assert "interrupted" not in said
    assert "left" not in said
    assert "Invalid user id" in bench.vendomini("submit", str(config), code=1, **down)


def test_another_cluster(bench: Bench, other_slurm: Slurm, config: Path) -> None:
    """Job numbers are counted on each cluster, so the job of the same number here is somebody else's."""
    bench.set_in_template("gpu0.sbatch", clusters="other", begin=LATER)
    here = int(bench.slurm.call("sbatch", "--parsable", f"--begin={LATER}", "--wrap=true"))
    for _ in range(here):
        other_slurm.call("sbatch", f"--begin={LATER}", "--wrap=true")
    other_slurm.call("scancel", "--user", "root")
    (number,) = bench.submit(config)["job_ids"]
    while here < int(number):
        here = int(bench.slurm.call("sbatch", "--parsable", f"--begin={LATER}", "--wrap=true"))
    assert str(here) == number, "the same number on both"
    assert [job[3].startswith(config.stem) for job in other_slurm.jobs()] == [True]
    assert bench.submit(config)["live"] == 4
    assert bench.json("status", str(config))[0]["waiting"] == 4
    bench.vendomini("cancel", str(config))
    assert other_slurm.jobs() == []
    assert number in [job[0] for job in bench.slurm.jobs()]
    template = bench.templates / "gpu0.sbatch"
    template.write_text(template.read_text().replace("other", "nowhere"))
    assert "nowhere" in bench.vendomini("submit", str(config), code=1)


# -------------------------------------------------------------------------------------- where a job goes, and who pays


def test_what_sites_and_shells_put_into_sbatch_variables(bench: Bench, config: Path) -> None:
    bench.set_in_template("gpu0.sbatch", account="lab")
    steering = {
        "SBATCH_ACCOUNT": "other", "SBATCH_PARTITION": "spare", "SBATCH_TIMELIMIT": "7", "SBATCH_NO_REQUEUE": "1",
        "SBATCH_JOB_NAME": "mine", "SBATCH_WAIT": "1", "SBATCH_OUTPUT": "/dev/null", "SBATCH_ARRAY_INX": "0-3",
    }  # fmt: skip
    job = _pending(bench, config, "--partition", "gpu", **steering)
    assert (job["Account"], job["Partition"], job["TimeLimit"], job["Requeue"]) == ("lab", "gpu", "1-00:00:00", "1")
    assert job["JobName"].startswith(config.stem)
    assert job["StdOut"].endswith("_0_log.out")
    assert "ArrayJobId" not in job
    assert bench.submit(config)["live"] == 4


def test_what_a_site_sets_for_its_users_counts_where_nobody_says_otherwise(bench: Bench, config: Path) -> None:
    job = _pending(bench, config, SBATCH_ACCOUNT="other", SBATCH_PARTITION="spare")
    assert (job["Account"], job["Partition"]) == ("other", "spare")


def test_the_templates_partition_counts(bench: Bench, config: Path) -> None:
    bench.set_in_template("gpu0.sbatch", partition="spare,gpu")
    assert _pending(bench, config)["Partition"] in ("spare,gpu", "gpu,spare")
    bench.vendomini("cancel", str(config))
    assert _pending(bench, config, "--partition", "grace")["Partition"] == "grace", "the command line goes before it"
    bench.set_in_template("gpu1.sbatch", partition="spare")
    bench.add_to_template("gpu1.sbatch", "test $SLURM_JOB_PARTITION = spare || exit 7")
    bench.vendomini("doctor", "--cluster")


def test_a_template_names_the_partition_where_a_site_has_no_default(bench: Bench, config: Path) -> None:
    bench.set_in_template("gpu0.sbatch", partition="spare")
    no_default = bench.wrap("sinfo", "$real \"$@\" | sed 's/gpu[*]/gpu/'")
    assert _pending(bench, config, **no_default)["Partition"] == "spare"


def test_options_on_the_command_line(bench: Bench, config: Path) -> None:
    job = _pending(bench, config, "--partition", "gpu", "--qos", "normal", "--nodelist", "n2", "--exclude", "n1")
    found = (job["Partition"], job["QOS"], job["ReqNodeList"], job["ExcNodeList"])
    assert found == ("gpu", "normal", "n2", "n1")
    other = bench.config("other", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)
    for option, value in {"--constraint": "fast", "--reservation": "course", "--qos": "gold"}.items():
        assert "SLURM refuses a job" in bench.vendomini("submit", str(other), option, value, code=1), "there is none"
        (outcome,) = json.loads(bench.vendomini("submit", str(other), option, value, "--dry-run", "--json", code=None))
        assert f"#SBATCH {option}={value}\n" in outcome["arrays"][0]["script"]


# ---------------------------------------------------------------------------------------------- environments of a job


def test_variables_left_in_a_shell_by_another_job(bench: Bench, config: Path) -> None:
    left = {"SLURM_MEM_PER_CPU": "1", "SLURM_TIMELIMIT": "1", "SLURM_NTASKS": "7", "SLURM_CPU_BIND": "none"}
    bench.vendomini("submit", str(config), **left)
    script = (str(bench.templates / "gpu0.sbatch"), str(config), "--results", "by_hand")
    how = {"SLURM_MEM_PER_CPU": "1", "SLURM_TIMELIMIT": "1", "PATH": bench.path}
    bench.slurm.call("sbatch", "--chdir", str(bench.folder), *script, **how)
    bench.slurm.wait_for_jobs()
    assert bench.logs(bench.results(config.stem)) == bench.undisturbed(config), bench.job_logs(config.stem)
    assert bench.logs(bench.folder / "by_hand") == bench.logs(bench.results(config.stem))


def test_a_job_that_is_sent_without_the_environment(bench: Bench, config: Path) -> None:
    """And a Python of its own, as in a container: a wrapper stands for it."""
    python = bench.folder / "my container"
    python.write_text(f'#!/bin/bash\nenv > "{bench.folder}/seen"\nexec {bench.command()[0]} "$@"\n')
    python.chmod(0o755)
    bench.set_in_template("gpu0.sbatch", export="NONE")
    bench.add_to_template("gpu0.sbatch", f'export HF_HOME=/models\nVENDOMINI_PYTHON=("{python}")')
    bench.add_to_template("gpu0.sbatch", "VENDOMINI_SRUN=(--comment='two words')")
    bench.submit(config)
    bench.slurm.wait_for_jobs()
    seen = (bench.folder / "seen").read_text().splitlines()
    assert {"HF_HOME=/models", "HF_HUB_OFFLINE=1", "VENDOMINI_USE_VLLM=0"} <= set(seen), bench.job_logs(config.stem)
    assert bench.logs(bench.results(config.stem)) == bench.undisturbed(config)


@pytest.mark.parametrize("name", ['it\'s a "new" $HOME', "a#b é 結果 & (c)"])
def test_characters_in_the_path_of_the_results(bench: Bench, config: Path, name: str) -> None:
    bench.submit(config, "--results", name, "--runs-per-job", "2")
    bench.slurm.wait_for_jobs()
    assert len(bench.logs(bench.folder / name)) == 4
    assert len(list((bench.folder / name).glob("submissions/*/0/*_log.out"))) == 2
    assert "choose another with --results" in bench.vendomini("submit", str(config), "--results", "a\\b", code=2)


# ------------------------------------------------------------------------------------------- refusals, limits, stumbles


def test_the_sites_own_words_are_shown(bench: Bench, config: Path) -> None:
    bench.set_in_template("gpu0.sbatch", comment="refuse")
    said = bench.vendomini("submit", str(config), code=1)
    assert "Please name your project with --comment=PROJECT; see the site's handbook." in said
    template = bench.templates / "gpu0.sbatch"
    template.write_text(template.read_text().replace("comment=refuse", "comment=fine"))
    assert "refuses a job" in bench.vendomini("submit", str(config), "--nodelist", "n7", code=1)


def test_a_submit_limit_in_the_middle(bench: Bench) -> None:
    config = bench.config("many", grid__pe_induction__p_shock=[0.1, 0.2, 0.3, 0.4], simulation__max_steps=20)
    bench.set_in_template("gpu0.sbatch", begin=LATER)
    with bench.slurm.limited(MaxSubmitJobs=12):
        said = bench.vendomini("submit", str(config), "--runs-per-job", "1", code=1)
        (queued,) = {job[0] for job in bench.slurm.jobs()}
        assert "array 2 of 2 was refused" in said
        assert f"What was sent before is in the queue (job {queued})" in said
        assert "--max-jobs" in said
        status = bench.json("status", str(config))[0]
        assert (status["waiting"], status["runs"]) == (10, 16)
        assert {lost["ended"] for lost in status["lost"]} == {"never sent"}
        assert "accounting" not in bench.vendomini("status", str(config))
    assert bench.submit(config, "--runs-per-job", "1")["runs"] == 6
    assert len(bench.slurm.jobs()) == 16
    with bench.slurm.limited(MaxSubmitJobs=1):
        other = bench.config("none", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)
        assert "nothing was submitted" in bench.vendomini("submit", str(other), code=1)
        assert list(bench.results("none").glob("submissions/*/")) == []


def test_thousands_of_arrays(bench: Bench, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names and ids are more than a command line takes; SLURM is asked in several calls and forgets none."""
    shown = _pending(bench, config)
    monkeypatch.setenv("SLURM_CONF", bench.slurm.environ["SLURM_CONF"])
    names = {shown["JobName"], *(f"{shown['JobName']}-{number}" for number in range(30_000))}
    assert sum(map(len, names)) > os.sysconf("SC_ARG_MAX") // 2
    assert [task.job_id for task in slurm.queue(names)] == [shown["JobId"]]
    bench.slurm.call("scancel", shown["JobId"])
    ids = {shown["JobId"], *(str(number) for number in range(1_000_000, 1_030_000))}
    bench.slurm.until("accounting knows", lambda: bool(slurm.ended(ids, names)))
    (end,) = slurm.ended(ids, names)[shown["JobId"]]
    assert end.state.startswith("CANCELLED")


ONCE = """
if mkdir {folder}/stumbled-$(basename $0) 2>/dev/null; then
  {first}
  echo "$(basename $0): error: Batch job submission failed: Socket timed out on send/recv operation" >&2
  exit 1
fi
exec $real "$@"
"""


def test_commands_that_stumble_once(bench: Bench, config: Path) -> None:
    """sbatch does so after it was heard: whoever sends again then has two jobs."""
    for command in ("squeue", "sinfo", "scontrol"):
        environ = bench.wrap(command, ONCE.format(folder=bench.folder, first=""))
    environ = bench.wrap("sbatch", 'case "$*" in *--parsable*) ;; *) exec $real "$@";; esac\n' + ONCE.format(
        folder=bench.folder, first='$real "$@" >/dev/null'))  # fmt: skip
    bench.set_in_template("gpu0.sbatch", begin=LATER)
    said = bench.vendomini("submit", str(config), **environ)
    assert {file.name for file in bench.folder.glob("stumbled-*")} == {
        f"stumbled-{command}" for command in ("squeue", "sinfo", "scontrol", "sbatch")
    }
    (job,) = bench.slurm.jobs()
    assert f"Submitted as job {job[0]}" in said


def test_a_requeue_that_stumbles(bench: Bench, config: Path) -> None:
    """Inside the job, where there is time to try again."""
    config = bench.config("stumble", grid__pe_induction__p_shock=[0.1], simulation__max_steps=3000)
    bench.hold()
    environ = bench.wrap("scontrol", 'test "$1" = requeue || exec $real "$@"\n' + ONCE.format(
        folder=bench.folder, first=""))  # fmt: skip
    bench.vendomini("submit", str(config), **environ)
    pid = bench.freeze("stumble")
    os.kill(pid, 12)
    os.kill(pid, 18)
    bench.slurm.until("it is requeued", lambda: "back into the queue" in bench.job_logs("stumble"))
    assert (bench.folder / "stumbled-scontrol").is_dir()
    bench.slurm.wait_for_jobs()
    assert bench.logs(bench.results("stumble")) == bench.undisturbed(config)


DOWN = "sacct: error: Sending PersistInit msg: Connection refused"


@pytest.mark.parametrize("sacct", ["exit 0", f"echo '{DOWN}' >&2; exit 1"], ids=["says nothing", "is down"])
def test_accounting_that_stumbles_makes_no_job_look_ended(bench: Bench, config: Path, sacct: str) -> None:
    shown = _pending(bench, config)
    environ = bench.wrap("sacct", sacct)
    assert "pending (BeginTime)" in bench.vendomini("status", str(config), **environ)
    assert "4 live in the queue" in bench.vendomini("submit", str(config), **environ)
    bench.slurm.call("scancel", shown["JobId"])
    bench.slurm.wait_for_jobs()
    assert "0 of 4 runs done" in bench.vendomini("status", str(config), **environ)


def test_a_slow_login_node(bench: Bench, config: Path) -> None:
    environ = bench.wrap("sinfo", 'sleep 11; exec $real "$@"')
    assert "nothing was sent" in bench.vendomini("submit", str(config), "--dry-run", **environ).lower()


def test_chatter_on_standard_output(bench: Bench, config: Path) -> None:
    chat = 'echo "Welcome! Your quota is 93%, job 77 | see|the|docs|now"; echo 12345 jobs are waiting; exec $real "$@"'
    for command in ("squeue", "sacct", "sbatch", "sinfo", "scontrol"):
        environ = bench.wrap(command, chat)
    said = bench.vendomini("submit", str(config), "--runs-per-job", "2", **environ)
    bench.slurm.until("they are through", lambda: not bench.slurm.jobs())
    assert "12345" not in said
    status = bench.vendomini("status", str(config), **environ)
    assert "4 of 4 runs done" in status
    (script,) = bench.results(config.stem).glob("submissions/*/0/*_submission.sh")
    assert f"Submitted as job {script.name.removesuffix('_submission.sh')}" in said
