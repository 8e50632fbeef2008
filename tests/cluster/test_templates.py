"""The sbatch templates, and what can be wrong with one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vendomini.cluster.slurm import minutes
from vendomini.cluster.templates import GPU_COUNTS, MARKER, load_template, parse_template
from vendomini.errors import ConfigError

GOOD = f"""#!/bin/bash
#SBATCH -p gpu
#SBATCH --gres=gpu:a100:4 # four of them
#SBATCH --time=1-12:00:00
#SBATCH --signal=USR2@120
#SBATCH --requeue

# a comment
module load cuda
cat <<END
# not a comment
END

{MARKER} …
exec srun vendomini run
"""


@pytest.mark.parametrize("gpus", GPU_COUNTS)
def test_a_shipped_template_is_read_and_is_bash(gpus: int) -> None:
    template = load_template(gpus)
    assert template.gpus == gpus
    assert (template.minutes, template.signal_s, template.options["requeue"]) == (1440, 300, True)
    assert "export HF_HUB_OFFLINE=1" in "\n".join(template.setup)
    subprocess.run(["bash", "-n", str(template.path)], check=True)


def test_directives_become_options_and_commands_the_setup() -> None:
    template = parse_template(Path("t"), GOOD)
    assert template.options == {"partition": "gpu", "gres": "gpu:a100:4", "requeue": True}
    assert (template.gpus, template.minutes, template.signal_s) == (4, 2160, 120)
    assert template.setup == ("module load cuda", "cat <<END", "# not a comment", "END")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("#SBATCH -p gpu", "#SBATCH --partion=gpu", "line 2: sbatch has no option --partion; did you mean --partition"),
        ("#SBATCH -p gpu", "#SBATCH --array=0-3", "submit makes the arrays itself"),
        ("#SBATCH -p gpu", "#SBATCH --ntasks=2", "must be 1"),
        ("#SBATCH -p gpu", "#SBATCH --gpus=4", "--gpus-per-node"),
        ("#SBATCH -p gpu", "#SBATCH partition gpu", "expected one option"),
        ("#SBATCH -p gpu", '#SBATCH --comment="open', "No closing quotation"),
        ("module load cuda", "module load cuda\n#SBATCH --mem=1G", "after a command"),
        ("--time=1-12:00:00", "--time=tomorrow", "time limit such as"),
        ("#SBATCH --time=1-12:00:00\n", "", "time limit such as"),
        ("USR2@120", "TERM@120", "--signal=USR2@"),
        (MARKER, "# the job", "has no line that begins with"),
    ],
)
def test_what_can_not_be_carried_over_is_an_error(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        parse_template(Path("gpu4.sbatch"), GOOD.replace(old, new))


def test_the_name_says_how_many_gpus(tmp_path: Path) -> None:
    shutil.copy(load_template(4).path, tmp_path / "gpu2.sbatch")
    with pytest.raises(ConfigError, match="asks for 4 GPUs, but its name says 2"):
        load_template(2, tmp_path)
    two = (tmp_path / "gpu2.sbatch").read_text().replace("--gpus-per-node=4", "--gpus-per-node=2")
    (tmp_path / "gpu2.sbatch").write_text(two.replace("--nodes=1", "--nodes=2"))
    with pytest.raises(ConfigError, match="one job runs one model on 1 node, so --nodes must be 1"):
        load_template(2, tmp_path)
    with pytest.raises(ConfigError, match=r"no template gpu8\.sbatch"):
        load_template(8, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90), ("90:30", 91), ("12:00:00", 720), ("00:00:30", 1), ("2-0", 2880), ("1-12", 2160),
        ("1-12:30", 2190), ("1-00:00:01", 1441), ("infinite", None), ("UNLIMITED", None), ("noon", None), ("", None),
    ],
)  # fmt: skip
def test_minutes(text: str, expected: int | None) -> None:
    assert minutes(text) == expected
