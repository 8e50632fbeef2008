"""Results as a Hugging Face dataset: Parquet files and a card, in a folder of their own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import vendomini
from vendomini.analysis.tables.aggregate import Tables, aggregate, writing
from vendomini.analysis.tables.study import MODEL, Study, open_study
from vendomini.errors import ResultsError

CARD = """\
---
pretty_name: {name}
tags: [llm-agents, survival-analysis, vendomini]
configs:
- config_name: runs
  default: true
  data_files: runs.parquet
- config_name: steps
  data_files: steps/*.parquet
---

# {title}

{count:,} episodes of {models}, in a simulated world with seeded shocks; written by VendoMini {version}.

| table | one row is | rows |
|---|---|---:|
| `runs` | a run: its parameters under their dot paths, how it ended, and what it cost | {count:,} |
| `steps` | a step of a finished run: tool, result, shocks, prediction errors, detectors | {steps:,} |

`time_to_crash` is in steps; where `event_observed` is false, the run is right-censored there. `run_id` and `folder`
join the two tables. What varies: {factors}.

```python
from datasets import load_dataset

runs = load_dataset("parquet", data_files="runs.parquet")
```
{synthetic}"""


def write_dataset(folders: Sequence[Path], out: Path) -> Path:
    """Writes ``README.md``, ``runs.parquet`` and ``steps/*.parquet``.

    Raises:
        ResultsError: there are no runs, or ``out`` is there already or can't be written.
        MissingExtraError: pyarrow or pandas is not installed.
    """
    if out.exists():
        raise ResultsError(f"there is something at {out} already: name a new folder with --out")
    with writing(out), tempfile.TemporaryDirectory(prefix="vendomini-") as scratch:
        tables = aggregate(folders, Path(scratch))
        study = open_study(folders, tables)
        out.mkdir(parents=True)
        shutil.copy(tables.out / "runs.parquet", out / "runs.parquet")
        rows = _write_steps(tables, out / "steps")
        (out / "README.md").write_text(_card(study, rows), encoding="utf-8")
    return out


def _write_steps(tables: Tables, folder: Path) -> int:
    """All parts under one schema, which the format wants; the number of rows."""
    import pyarrow.dataset

    steps = tables.steps()
    if steps is None:
        return 0
    pyarrow.dataset.write_dataset(steps, folder, format="parquet", basename_template="part-{i}.parquet")
    return int(steps.count_rows())


def _card(study: Study, steps: int) -> str:
    title = ", ".join(study.names) or "Results"
    models = sorted({str(name) for name in study.runs[MODEL].dropna()}) if MODEL in study.runs else []
    told = f"\nSynthetic agents, not language models: {', '.join(study.synthetic)}.\n" if study.synthetic else ""
    return CARD.format(
        name=json.dumps(title),
        title=title,
        count=len(study.runs),
        models=", ".join(models) or "no model",
        version=vendomini.__version__,
        steps=steps,
        factors=", ".join(factor.label for factor in study.factors) or "nothing",
        synthetic=told,
    )
