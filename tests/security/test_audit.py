"""The dependency audit against a vulnerability service that runs here, and against none."""

from __future__ import annotations

import re
from pathlib import Path

from tests import http_server
from tests.security.traps import python

AUDIT = Path("requirements/audit.py").absolute()
FOUND = {"id": "TEST-2026-1", "affected": [{
    "package": {"name": "jinja2", "ecosystem": "PyPI"},
    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
}]}  # fmt: skip


class Handler(http_server.Handler):
    def do_POST(self) -> None:
        self.reply(200, {"vulns": [FOUND]} if self.asked()["package"]["name"] == "jinja2" else {})


class Service(http_server.Server):
    handler = Handler


def test_a_known_vulnerability_fails_the_check_and_silence_does_not(tmp_path: Path) -> None:
    with Service() as service:
        arguments = (AUDIT, "--vulnerability-service", "osv", "--osv-url", f"{service.url}/v1/query")
        done = python(*arguments, cwd=tmp_path)
    assert (done.returncode, "audit: jinja2 3.1.6: TEST-2026-1, fixed in 99.0" in done.stdout) == (1, True), done.stdout
    alone = python(*arguments, cwd=tmp_path)
    assert "no vulnerability service could be asked" in alone.stdout
    assert alone.returncode == 0, alone.stdout


def test_every_threat_names_tests_that_exist() -> None:
    table = Path("SECURITY.md").read_text().partition("## Threats")[2].partition("## The dependency audit")[0]
    known = {
        (file.stem.removeprefix("test_"), name)
        for file in Path("tests/security").glob("test_*.py")
        for name in re.findall(r"^def test_(\w+)", file.read_text(), re.MULTILINE)
    }
    named = re.findall(r"`(\w+)::(\w+)", table.partition("| test |")[2])
    covered = {one for one in known for file, start in named if one[0] == file and one[1].startswith(start)}
    assert all(any(one[0] == file and one[1].startswith(start) for one in known) for file, start in named)
    assert known - covered == {("audit", "every_threat_names_tests_that_exist")}
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert all("`" in row.rsplit("|", 2)[1] for row in rows), "each threat has its test"
