"""The key of a server: from the environment, into a header, and nowhere else."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote

from vendomini.errors import ConfigError

KEY = "OPENAI_API_KEY"


def read_key(environ: Mapping[str, str]) -> str | None:
    """The key, without the line end or blanks that a file or a terminal left around it.

    Raises:
        ConfigError: no header can carry it. Does not show it.
    """
    key = environ.get(KEY, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"{KEY} holds a blank, a line break or a character that no key has, somewhere inside: set it again"
        )
    return key or None


SHOWABLE = 11
"""Consecutive characters of a key that may be shown: a prefix such as ``sk-proj-`` tells nothing."""


def mask(text: str, key: str) -> str:
    """Removes the key, plain and as encoded in URLs, JSON and Basic authentication, and longer parts of it."""
    forms = {key, quote(key, safe=""), key.replace("/", "\\/"), base64.b64encode(key.encode()).decode()}
    if len(key) > SHOWABLE:
        forms |= {key[at : at + SHOWABLE + 1] for at in range(len(key) - SHOWABLE)}
    elif len(key) < 4:  # a placeholder, and everywhere in any text
        return text
    found = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.sub(f"(?:{found})+", f"<{KEY}>", text, flags=re.IGNORECASE)
