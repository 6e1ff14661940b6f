"""The console script `holdfast`: runs one command and turns every error into a message and an exit code.

The only place that catches errors for good. typer, the engine and their libraries are imported here or in the
commands, never by the import of this module: start-up counts.
"""

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from cli import exit_codes
from cli.output import Output, fill_standard_streams, give_up_stdout, use_any_characters
from repo_store.errors import HoldfastError

if TYPE_CHECKING:
    from typer.exceptions import TyperException

_GARBAGE_OBJECTS = 50_000
"""How many new objects make Python look for cycles among them, in place of 700. What start-up makes by the hundred
thousand stays for good: looking through it again and again took a tenth of a second."""
_COMPLETION_VARIABLE = "_HOLDFAST_COMPLETE"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    gc.set_threshold(_GARBAGE_OBJECTS)
    fill_standard_streams()
    use_any_characters()
    output = Output(json="--json" in _own(args))  # until the options are read, and if they cannot be
    try:
        with _terminated_like_interrupted():
            code = _run(args, output)
            output.flush()
        return code
    except BrokenPipeError:
        give_up_stdout()  # the reader has gone, and needs no message
        return exit_codes.FAILED
    except KeyboardInterrupt:
        output.complain("interrupted", None, exit_codes.INTERRUPTED)
        return exit_codes.INTERRUPTED
    except HoldfastError as error:
        return _holdfast_error(error, output)
    except Exception as error:
        return _unexpected(error, output)


def _run(args: list[str], output: Output) -> int:
    import typer
    from typer.exceptions import TyperException

    from cli.call import Call

    command = typer.main.get_command(_app())
    if _COMPLETION_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined] # has no public name

        completion_init()
        command.main(args=args, prog_name="holdfast")  # answers the shell and exits
    try:
        with command.make_context("holdfast", args, obj=Call(output)) as context:
            code: int = command.invoke(context)
            return code
    except typer.Exit as done:  # --help, --version
        return done.exit_code
    except TyperException as error:
        output.json |= "--json" in _own(args)  # it may stand behind what was not understood
        return _usage_error(error, output)


def _app() -> "typer.Typer":  # type: ignore[name-defined] # noqa: F821
    """Return the app with all commands, in the order of its help."""
    from cli import init, snapshot_files, snapshot_git, snapshot_stream  # noqa: F401, I001
    from cli import manifests, show, ls, find, cat, diff, mount, restore, verify  # noqa: F401
    from cli import git, tag, hold, forget, prune  # noqa: F401
    from cli import stats, doctor, key, completion  # noqa: F401
    from cli.app import app

    return app


def _own(args: list[str]) -> list[str]:
    """Return the arguments that are holdfast's: those before "--"."""
    return args[: args.index("--")] if "--" in args else args


def _usage_error(error: "TyperException", output: Output) -> int:
    """Say in our voice what typer does not understand: its first sentence is the message, the rest the hint."""
    text = error.format_message().replace("\n\t", " ").replace(": Input should", ": it should")
    message, _, rest = text.partition(". ")
    context = getattr(error, "ctx", None)
    hint = _lower(rest.rstrip(".")) if rest else None
    message, _, close = message.partition(" (Possible options: ")
    if close:
        hint = f"did you mean {close.rstrip('.').rstrip(')').replace(', ', ' or ')}?"
    if hint is None and context is not None:
        hint = f"see `{context.command_path} --help`"
    output.complain(_lower(message.rstrip(".")), hint, exit_codes.USAGE)
    return exit_codes.USAGE


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _holdfast_error(error: HoldfastError, output: Output) -> int:
    from engine.progress import Interrupted

    if _debugging():
        traceback.print_exception(error)
    if not isinstance(error, Interrupted):
        code = exit_codes.exit_code_of(error)
        output.complain(str(error), error.hint, code)
        return code
    kept = error.manifest
    message, hint = str(error), None
    if kept is not None:
        message = f"{message}; the checkpoint {kept[:12]} was kept"
        hint = "the next snapshot of this series goes on from there"
    output.complain(message, hint, exit_codes.INTERRUPTED, checkpoint=kept)
    return exit_codes.INTERRUPTED


def _unexpected(error: Exception, output: Output) -> int:
    """A bug, or a failure that nothing foresaw: one line all the same."""
    if _debugging():
        traceback.print_exception(error)
    text = " ".join(str(error).split())
    hint = "this is a bug of holdfast: please report it, with what HOLDFAST_DEBUG=1 in the environment shows"
    if isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or text
        hint = "HOLDFAST_DEBUG=1 in the environment shows where it happened"
    output.complain(f"{type(error).__name__}: {_lower(text)}", hint, exit_codes.FAILED)
    return exit_codes.FAILED


def _debugging() -> bool:
    return bool(os.environ.get("HOLDFAST_DEBUG"))


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end holdfast as Ctrl-C does: cleaning up. Long runs take both over (cli/interruption.py)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
