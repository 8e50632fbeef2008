"""What a model, a server or a colleague wrote stays text in the report, whose policy names every script it may run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

from tests.analysis.synthetic import config, write_results, write_steps
from tests.security.traps import python, submission
from vendomini.analysis.report.build import write_report
from vendomini.analysis.traces.episodes import Library
from vendomini.analysis.traces.static import write_static
from vendomini.records import Results, write_record

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)><!--\u2028\u2029 ${data} $policy ]]> &lt; \" '"


class Page(HTMLParser):
    """Every element of a page with its attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and self.cdata_elem:
            self.scripts.append((self.elements[-1][1].get("type"), data))


def check(file: Path) -> None:
    page = Page(file.read_text())
    (policy,) = [
        found["content"] for tag, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert "default-src 'none'" in policy
    (sources,) = re.findall(r"script-src ([^;]*);", policy)
    code = [text for kind, text in page.scripts if kind is None]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code]
    assert sources.split() == [f"'sha256-{digest}'" for digest in digests], "every script is ours, and nothing else is"
    data = [json.loads(text) for kind, text in page.scripts if kind == "application/json"]
    assert data
    assert len(page.scripts) == len(code) + len(data) == [tag for tag, _ in page.elements].count("script")
    assert not [tag for tag, _ in page.elements if tag in {"img", "iframe", "object", "embed", "base"}]
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    assert not [found for _, found in page.elements if not (found.get("href") or "#").startswith("#") or "src" in found]


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    results = Results(tmp_path)
    tree = config(replications=2, max_steps=30, models=[ATTACK, "b/c"], **{"agent.model.revision": [ATTACK, "main"]})
    tree["experiment"]["description"] = ATTACK
    ids = write_results(tmp_path, tree)
    for run_id in ids[:4]:
        summary = results.summary(run_id)
        assert summary is not None
        summary.ending, summary.reason, summary.engine["rejected"] = "failed", ATTACK, {ATTACK: ATTACK}
        write_record(results.run(run_id).summary, summary)
    paths = results.run(ids[0])
    paths.steps.unlink()
    write_steps(paths.steps, 30, completion=ATTACK, thought=ATTACK, tool=ATTACK, arguments={ATTACK: ATTACK})
    check(write_report(tmp_path, figures=False))
    check(write_static(Library([tmp_path]), 0, ids[0], tmp_path / "episode.html"))


def test_no_text_drives_a_terminal(tmp_path: Path) -> None:
    results, escape = Results(tmp_path), "\x1b]0;owned\x07\x9b2J\x7f"
    (run_id, *_) = write_results(tmp_path, config(replications=1, max_steps=8, models=[f"a/{escape}", "b/c"]))
    summary = results.summary(run_id)
    assert summary is not None
    summary.ending, summary.reason = "failed", escape
    write_record(results.run(run_id).summary, summary)
    os.utime(results.run(run_id).steps, (0, 0))  # not written to lately: nobody has it
    one = submission(results)
    for command in (["status"], ["logs", f"{one.manifest.id}/0/0"], ["logs", one.manifest.id, "-n", "1"]):
        if command != ["status"]:  # with a job that nobody can be asked about, the run would not be failed for good
            one.folder(0).mkdir(parents=True, exist_ok=True)
            write_record(one.manifest_file, one.manifest)
            (one.folder(0) / "7_0_log.out").write_text(f"first\n{escape}\n")
        said = python("-m", "vendomini", *command, "--results", tmp_path, cwd=tmp_path)
        assert "\\x1b]0;owned" in said.stdout, said.stderr
        assert not {"\x1b", "\x07", "\x9b", "\x7f"} & set(said.stdout + said.stderr)
