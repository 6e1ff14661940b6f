"""Options that several commands share, and how a command gets them.

A command is a function whose first parameter is a Call. A parameter that is annotated with a dataclass stands for
the options that the dataclass declares, one for each field; `command` spreads them out for typer and gathers them
again. GlobalOptions are added to every command and every group of commands, so they may stand anywhere; the
one further to the right counts.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from cli.call import Call
from cli.given import GLOBAL_PANEL, STORAGE_PANEL, GlobalOptions
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from cli.output import Output
    from engine.selection import Selection
    from engine.session import Session
    from repo_store.manifest import Manifest


@dataclass(kw_only=True)
class Filters:
    """What manifests must agree with."""

    series: Annotated[str | None, typer.Option(metavar="S", help="Only manifests of this series.")] = None
    source: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Only manifests of this kind: files, stdin, command, git."),
    ] = None
    host: Annotated[str | None, typer.Option(metavar="H", help="Only manifests of this host.")] = None
    tag: Annotated[
        list[str], typer.Option(metavar="T", help="Only manifests with this tag; may be repeated.")
    ] = field(default_factory=list)

    def selection(self) -> "Selection":
        """Return the filters as the engine takes them."""
        from engine.selection import Selection

        return Selection(series=self.series, source=self.source, host=self.host, tags=tuple(self.tag))


@dataclass(kw_only=True)
class Which(Filters):
    """Which manifest `latest` is."""

    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With `latest`: the newest that had ended by then, like 2026-11-22T10:00:00Z; local time "
            "without a zone.",
        ),
    ] = None

    def find(self, session: "Session", which: str, *, output: "Output | None" = None) -> "Manifest":
        """Return the manifest that the user means. Raises UsageError unless there is exactly one.

        Given `output` to warn by, it may be one that is forgotten already, named by its whole id.
        """
        from engine.forget import find_forgotten

        try:
            return self.find_all(session, [which])[0]
        except UsageError:
            forgotten = None if output is None or self.at is not None else find_forgotten(session, which)
            if forgotten is None or output is None:
                raise
        output.warn(f"manifest {which[:12]} is forgotten: a prune takes away what it needs")
        return forgotten

    def find_all(self, session: "Session", named: "list[str]") -> "list[Manifest]":
        """Return the manifests that the user means, each once."""
        from engine.selection import parse_time, select_manifest

        at_ns = None if self.at is None else parse_time(self.at)
        manifests = session.read_manifests()
        selection = self.selection()
        found = [select_manifest(manifests, each, at_ns=at_ns, selection=selection) for each in named]
        return list({manifest.id: manifest for manifest in found}.values())


ManifestArgument = Annotated[
    str,
    typer.Argument(metavar="MANIFEST", help="A manifest id, a unique start of one, or `latest`."),
]

ManifestArguments = Annotated[
    list[str],
    typer.Argument(metavar="MANIFEST", help="Manifest ids, unique starts of them, or `latest`."),
]


def command(
    app: typer.Typer, name: str, *, examples: str
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add the decorated function to `app` as the command `name`. Its docstring is the help, its result the exit code."""

    def add(function: Callable[..., int]) -> Callable[..., int]:
        epilog = "\b\nExamples:\n" + indent(inspect.cleandoc(examples), "  ")
        add_command = app.command(name, cls=_Command, help=_unwrapped(function.__doc__), epilog=epilog)
        add_command(_spread(function))
        return function

    return add


def group(app: typer.Typer, name: str, *, text: str) -> typer.Typer:
    """Add a group of commands to `app` and return it."""
    inner = typer.Typer(rich_markup_mode=None, add_completion=False)
    inner.callback(cls=_Group, help=text)(_spread(_only_global_options))
    app.add_typer(inner, name=name)
    return inner


def _unwrapped(doc: str | None) -> str:
    """Return a docstring without the line ends inside paragraphs."""
    paragraphs = inspect.cleandoc(doc or "").split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


def _only_global_options(_: Call) -> int:
    return 0


def root(app: typer.Typer, text: str) -> Callable[[Callable[..., None]], None]:
    """Make the decorated function what takes the options before the command."""

    def add(function: Callable[..., None]) -> None:
        app.callback(cls=_Group, help=_unwrapped(text))(_spread(function))

    return add


def _spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` in the form that typer understands: without Call, each group of options spread out."""
    signature = inspect.signature(function, eval_str=True)
    _, *own = signature.parameters.values()
    groups: dict[str, Any] = {each.name: each.annotation for each in own if is_dataclass(each.annotation)}
    plain = [each for each in own if each.name not in groups]
    spread = [each for kind in groups.values() for each in _parameters(kind)]
    given = _parameters(GlobalOptions)

    def run(context: typer.Context, **values: Any) -> Any:
        call = context.find_object(Call)
        assert call is not None
        call.take(GlobalOptions(**{each.name: values.pop(each.name) for each in given}))
        for name, kind in groups.items():
            own_values = {each.name: values.pop(each.name) for each in _parameters(kind)}
            values[name] = kind(**own_values)
        return function(call, **values)

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    every = [
        context,
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in plain),
        *spread,
        *given,
    ]
    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in every}
    run.__name__ = function.__name__
    return run


def _parameters(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default if each.default_factory is MISSING else each.default_factory(),
            annotation=hints[each.name],
        )
        for each in fields(kind)
    ]


_ORDER = (
    *("init", "snapshot", "manifests", "show", "ls", "find", "cat", "diff", "mount", "restore", "verify"),
    *("git", "tag", "hold", "forget", "prune", "stats", "doctor", "key"),
)
"""The commands of the root in the order of the help, which typer would begin with those in no group."""


class _Grouped:
    """Help with the global options in a section of their own, at the end."""

    def format_options(self, context: Any, formatter: Any) -> None:
        """Write the sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(context):  # type: ignore[attr-defined]
            record = parameter.get_help_record(context)
            panel = getattr(parameter, "rich_help_panel", None)
            if record is not None:
                if parameter.param_type_name == "argument":
                    record = (parameter.metavar or parameter.name, parameter.help or "")
                title = panel or f"{parameter.param_type_name.capitalize()}s"
                sections.setdefault(title, []).append(record)
        last = [(title, sections.pop(title, [])) for title in (GLOBAL_PANEL, STORAGE_PANEL)]
        if isinstance(self, TyperGroup):
            self.format_commands(context, formatter)
        for title, records in [*sections.items(), *last]:
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def collect_usage_pieces(self, context: Any) -> list[str]:
        """Return the words of the usage line, arguments as they are named in the help."""
        pieces: list[str] = super().collect_usage_pieces(context)  # type: ignore[misc]
        return [piece.replace("{", "").replace("}", "") for piece in pieces]


class _Command(_Grouped, TyperCommand):
    pass


class _Group(_Grouped, TyperGroup):
    def list_commands(self, context: Any) -> list[str]:
        """Return the names in the order of the help."""
        names = super().list_commands(context)
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


def checked_text(value: str | None, option: str) -> str | None:
    """Return `value`. Raises UsageError unless it is text on one line, which is what a manifest can hold and show."""
    if value is not None and not value.isprintable():
        raise UsageError(f"{option}: the value is not printable text on one line")
    return value
