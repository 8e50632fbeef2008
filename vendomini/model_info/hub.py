"""Whether the Hugging Face Hub would give a model, asked once and briefly: loaders try for minutes before they say."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from vendomini.errors import EngineUnavailable

PATIENCE_S = 5.0
"""Time for a connection, and for each part of the Hub's answer."""

DEADLINE_S = 15.0
"""Time for all of it: a name server that doesn't answer has no time limit of its own."""

DESCRIPTION = ["config.json", "generation_config.json", "*.index.json"]

GATED = (
    "is gated: accept its licence on its page, then `hf auth login` (or HF_TOKEN in the environment), then prefetch "
    "again"
)
UNKNOWN = (
    "is not on the Hub, or private, or gated: the Hub doesn't say which. Check its name; if it is right, log in with "
    "`hf auth login` (or HF_TOKEN in the environment)"
)


def refusal(name: str, revision: str | None) -> str | None:
    """Why the model can't be downloaded here, in a sentence; None if it can, or if there is no client to ask with."""
    try:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status
    except ImportError:
        return None

    def ask() -> None:
        url = hf_hub_url(name, "config.json", revision=revision)
        headers = build_hf_headers()  # with a newer client, a question to the Hub as well
        hf_raise_for_status(get_session().head(url, headers=headers, timeout=PATIENCE_S, follow_redirects=True))

    try:
        _in_time(ask)
    except Exception as exc:  # the hub's client has changed its HTTP library, and with it its errors, twice
        return why(name, revision, exc)
    return None


def _in_time(ask: Callable[[], None]) -> None:
    """Calls it; a thread that is still waiting at the deadline is left behind, and ends with the process.

    Raises:
        TimeoutError: there was no answer by then.
    """
    answer: Future[None] = Future()

    def wait() -> None:
        try:
            ask()
            answer.set_result(None)
        except Exception as exc:
            answer.set_exception(exc)

    Thread(target=wait, daemon=True).start()
    try:
        answer.result(DEADLINE_S)
    except TimeoutError as exc:
        raise TimeoutError(str(exc) or f"no answer in {DEADLINE_S:g} s") from exc


def describe(name: str, revision: str | None, folder: Path) -> None:
    """Puts the files that say how large a model is, without its weights, into a folder.

    Raises:
        EngineUnavailable: the Hub won't give them, or there is no client to ask with.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as exc:
        raise EngineUnavailable(f"{name} is not here; to ask the Hub about it: pip install huggingface_hub") from exc
    if problem := refusal(name, revision):
        raise EngineUnavailable(problem)
    try:
        snapshot_download(name, revision=revision, local_dir=folder, allow_patterns=DESCRIPTION)
    except Exception as exc:
        raise EngineUnavailable(why(name, revision, exc)) from exc


def why(name: str, revision: str | None, exc: Exception) -> str:
    """What an error of the Hub's client means, as far as the Hub tells."""
    kind = type(exc).__name__
    if kind == "GatedRepoError":
        return f"{name} {GATED}"
    if kind == "RevisionNotFoundError":
        return f"there is no revision {revision} of {name} on the Hub"
    if kind == "RepositoryNotFoundError":
        return f"{name} {UNKNOWN}"
    if kind in {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
        return f"{name} has no config.json on the Hub: it is no model that an engine could load"
    if getattr(getattr(exc, "response", None), "status_code", None) in {401, 403, 404}:
        return f"{name} {UNKNOWN}"
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else kind
    return (
        f"{name} could not be downloaded ({reason}): run `vendomini prefetch {name}` where there is internet, on a "
        "login node as a rule"
    )
