"""A long answer: one JSON document that is written while its items come in, for there may be millions.

    with LongAnswer(output, {"manifest": id}, "entries") as answer:
        for ...: answer.add(item)
        answer.end = {"counts": ...}

Nothing is written before the first item or the end, so an error until then is the whole answer; one on the way ends the
document as "error". Without --json nothing is written at all.
"""

from types import TracebackType
from typing import Any

from cli.output import Output, to_json
from repo_store.errors import HoldfastError


class LongAnswer:
    """A document: what is known at the start, a list, and what is known at the end."""

    def __init__(self, output: Output, start: dict[str, Any], name: str) -> None:
        head = "".join(f"{to_json(key)}: {to_json(value)}, " for key, value in start.items())
        self._head = f"{{{head}{to_json(name)}: ["
        self._output = output
        self._separator = "\n"
        self._started = False
        self.end: dict[str, Any] = {}

    def __enter__(self) -> "LongAnswer":
        return self

    def add(self, item: dict[str, Any]) -> None:
        """Write an item of the list."""
        if self._output.json:
            self._start()
            self._output.write(self._separator + to_json(item))
            self._separator = ",\n"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._output.json:
            return
        if error is None:
            self._start()
            self._finish(self.end)
        elif self._started and isinstance(error, HoldfastError):
            self._finish({"error": str(error)})

    def _start(self) -> None:
        if not self._started:
            self._started = self._output.answered = True
            self._output.write(self._head)

    def _finish(self, end: dict[str, Any]) -> None:
        self._output.write(
            "\n]" + "".join(f", {to_json(key)}: {to_json(value)}" for key, value in end.items()) + "}\n"
        )
