"""A phase file to begin with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vendomini.config.load import load_config
from vendomini.config.schema import SCRIPTED_PREFIX
from vendomini.errors import ConfigError, ResultsError, UsageError

TEMPLATE = """\
# Check it: vendomini config check {file}      What else can be set: vendomini config schema
inherit: base.yaml   # the shipped one, or one beside this file

experiment:
  name: {name}       # results go to results/{name}
  description: {description}
  replications: {replications}   # of each cell; replication r has seed r in every cell

simulation:
  complexity_level: 1   # 0 (5 SKUs, 2 suppliers) to 4 (25 SKUs, 6 suppliers)
  max_steps: {max_steps}   # a run that gets here has survived

# Every combination of these is a cell.
grid:
  agent.model.name: {models}
  pe_induction.p_shock: {doses}

# The same in every run, over all that is above.
fixed:
  pe_induction.pe_mag: high

# What single models get: agent.model.* and engine.*. The model's card says what its maker recommends.
models:{own}

# Decided before the runs: the report answers this first, and calls everything else exploratory.
analysis:
  primary:
    - {{factor: pe_induction.p_shock}}
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a new phase is about."""

    name: str
    models: tuple[str, ...]
    doses: tuple[float, ...]
    replications: int
    max_steps: int


def write_phase(answers: Answers, file: Path) -> Path:
    """Writes the file, which is valid.

    Raises:
        UsageError: there is such a file.
        ConfigError: an answer can't be: the file is not kept.
        ResultsError: the file can't be written.
    """
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(_text(answers, file, answers.models))
        known = load_config(file).own_settings()
        file.write_text(_text(answers, file, known), encoding="utf-8")
        load_config(file)
    except FileExistsError as exc:
        raise UsageError(f"there is a file {file} already: choose another name, or --file") from exc
    except OSError as exc:
        raise ResultsError(f"can't write {file} ({exc.strerror}): choose another place with --file") from exc
    except ConfigError as exc:
        file.unlink()
        raise ConfigError(f"{file} was not written: {str(exc).partition(': ')[2]}") from exc
    return file


def _text(answers: Answers, file: Path, known: Iterable[str]) -> str:
    strange = [name for name in answers.models if not name.startswith(SCRIPTED_PREFIX) and name not in known]
    own = "".join(f"\n  {json.dumps(name)}:\n    agent.model.temperature: 0.7" for name in strange)
    return TEMPLATE.format(
        file=file,
        name=answers.name,
        description=json.dumps("How much do shocks shorten survival?"),
        replications=answers.replications,
        max_steps=answers.max_steps,
        models=json.dumps(answers.models),
        doses=json.dumps(answers.doses),
        own=own or " {}",
    )
