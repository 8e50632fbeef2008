"""The command line: parses, calls one function, prints. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import errno
import importlib
import inspect
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from vendomini.errors import UsageError, VendoMiniError, harden_streams, harmless

EXIT_BUG = 3
EXIT_INTERRUPTED = 130

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF}
"""Errors of a standard output that leads to a full disk or nowhere."""

COMMANDS = {
    "init": "Write a phase of your own.",
    "run": "Run the episodes of a config here, and resume interrupted ones.",
    "pilot": "Try a few short episodes of each model first, and say whether to go on.",
    "submit": "Launch phases on the cluster through SLURM.",
    "keep": "Submit what is left of phases, round by round, until all is done.",
    "status": "Show what is done, running, pending and failed.",
    "logs": "Show the log of a job, or of a run.",
    "cancel": "Stop a submission.",
    "forget": "Delete an experiment, a plan or runs, after asking.",
    "dashboard": "Watch experiments in a browser: progress, survival so far, failures.",
    "report": "Turn results into survival curves, tables and figures.",
    "export": "Write results as a Hugging Face dataset, with its card.",
    "traces": "Read episodes step by step in a browser, or export them.",
    "doctor": "Show what this machine can do, and why.",
    "estimate": "Estimate the GPU hours of phases on this cluster.",
    "prefetch": "Download the models of phases, for compute nodes without internet.",
    "bench": "Measure tokens per second of engines and attention implementations.",
    "config": "Check a config, show it resolved, or print its JSON Schema.",
}
"""Name → one line of help. The module ``vendomini.cli.<name>`` is imported when the command is called."""


WRONG_USAGE: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's ``UsageError``, from wherever this version of Typer has Click."""


class LazyGroup(TyperGroup):
    """Lists commands by name and one line of help; imports a command's module when the command is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else command, rest

    def invoke(self, ctx: Any) -> Any:
        words = list(ctx.args)
        try:
            return super().invoke(ctx)
        except WRONG_USAGE as exc:
            wrong = getattr(exc, "ctx", None) or ctx
            if any("-o" in option.opts for option in wrong.command.params) and (instead := _meant(words)):
                raise UsageError(f"to set a parameter, write {instead}") from exc
            raise


def _meant(words: list[str]) -> str:
    """The ``-o`` that a command line needs, where it sets a parameter in another way."""
    import re

    from vendomini.config.override import meant

    if spaced := re.search(r"(?<!\S)(\w[\w.]*)(?: = ?|= )(\S+)", " ".join(words)):
        return meant(f"{spaced[1]}={spaced[2]}")
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        option = word.startswith("-")
        if before in {"-o", "--override", "--only"} or (option and "." not in word.partition("=")[0]):
            continue
        if instead := meant(f"{word}={after}" if option and "=" not in word else word):
            return instead
    return ""


def load_command(name: str) -> Any:
    """A command, with everything that it imports."""
    module = importlib.import_module(f"vendomini.cli.{name}")
    sub = getattr(module, "app", None)
    if sub is None:
        sub = typer.Typer(add_completion=False)
        sub.command(name)(getattr(module, name))
    command: Any = typer.main.get_command(sub)
    command.name = name
    for one in (command, *getattr(command, "commands", {}).values()):
        one.help = _unwrapped(one.help)
    return command


def _unwrapped(text: str | None) -> str | None:
    """Each paragraph as one line: Typer keeps breaks, and a narrow terminal makes its own beside them."""
    return text and "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from vendomini import __version__

        typer.echo(f"vendomini {__version__}")
        raise typer.Exit


@app.callback(
    epilog="Begin with: vendomini doctor; vendomini run --config configs/demo.yaml; vendomini submit phase1 --dry-run"
)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run thousands of long-horizon LLM-agent episodes on a SLURM cluster, and see how long they survive."""


def main() -> None:
    """The one place where errors become exit codes: 1 expected, 2 usage, 3 a bug, 130 Ctrl-C."""
    harden_streams()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # what can't be written is an error here, not a traceback when Python exits
    except VendoMiniError as exc:
        typer.echo(f"error: {harmless(str(exc))}", err=True)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        from vendomini.cli.output import forget

        forget(sys.stdout)
        sys.exit(0)
    except OSError as exc:
        if exc.errno not in UNWRITABLE or exc.filename is not None:
            _bug(exc)
        from vendomini.cli.output import forget

        forget(sys.stdout)
        typer.echo(f"error: can't write the output ({exc.strerror}): send it somewhere else", err=True)
        sys.exit(1)
    except Exception as exc:
        _bug(exc)
    finally:
        # Python's own end takes a while with an engine loaded, and nothing is left to save: one more Ctrl-C ends the
        # process then, and is no traceback of whatever was being taken down.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _bug(exc: Exception) -> NoReturn:
    log = _write_log(exc)
    if line := _line_of_the_users(exc):
        typer.echo(f"error: {harmless(f'{line} raised {exc!r}')}; the whole traceback is in {log}", err=True)
        sys.exit(1)
    typer.echo(f"error: this is a bug in vendomini ({exc!r}); please report it with {log}", err=True)
    sys.exit(EXIT_BUG)


def _line_of_the_users(exc: Exception) -> str:
    """The innermost line of a world or an engine that the user brings: of a file that is not installed."""
    import traceback

    installed = (sys.prefix, sys.base_prefix, str(Path(__file__).parent.parent), "<")
    for at in reversed(traceback.extract_tb(exc.__traceback__)):
        if not at.filename.startswith(installed) and "-packages" not in at.filename:
            return f"{at.filename}, line {at.lineno},"
    return ""


def _write_log(exc: Exception) -> str:
    """The traceback and the versions, in a file of the user's own temporary folder."""
    import tempfile
    import traceback

    from vendomini.runner.provenance import versions

    with tempfile.NamedTemporaryFile("w", prefix="vendomini-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(f"{sys.argv}\n{versions()}\n\n{''.join(traceback.format_exception(exc))}")
    return file.name
