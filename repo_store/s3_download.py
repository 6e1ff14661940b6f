"""Download: a range of one object, and how to go on where a transfer broke."""

import re
from typing import Any

from repo_store.s3_client import S3Connection
from repo_store.s3_errors import GarbledAnswer, Verdict, WrongRange, judge
from repo_store.s3_options import MIB

READ_BYTES = 4 * MIB
PROGRESS_BYTES_MIN = 1 * MIB
"""A transfer that broke after fewer bytes counts as a failure, though what came is kept."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)")


class Download:
    """The bytes of one range: at most `length` from `offset`, counted from the end if negative."""

    def __init__(
        self, connection: S3Connection, place: dict[str, Any], offset: int, length: int | None
    ) -> None:
        self._connection, self._place = connection, place
        self._offset, self._length = offset, length
        self._start: int | None = None  # where in the object the bytes begin, once the server has said it
        self._size = 0  # how many bytes there will be
        self._tag: str | None = None
        self._pieces: list[bytes] = []
        self._got = 0

    def data(self) -> bytes:
        """Return all bytes."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def go_on(self) -> bool:
        """Read on from where the last call came to; return whether all is there.

        Raises what boto raises, GarbledAnswer and WrongRange, unless the transfer came a good way before it broke.
        """
        before = self._got
        answer = self._ask()
        body = answer["Body"]
        try:
            self._begin(answer)
            self._read(body)
        except Exception as error:
            trouble = judge(error)
            if (
                trouble is None
                or trouble.verdict is not Verdict.PASSING
                or self._got - before < PROGRESS_BYTES_MIN
            ):
                raise
            return False
        finally:
            body.close()
        return True

    def _ask(self) -> Any:
        try:
            return self._connection.client.get_object(**self._place, **self._asked())
        except Exception as error:
            trouble = judge(error)
            if self._start is None or trouble is None or trouble.verdict is not Verdict.EXISTS:
                raise
            # The rest of another object is of no use: repair has replaced it meanwhile.
            self._start, self._pieces, self._got = None, [], 0
            raise GarbledAnswer("the object was replaced while it was read") from error

    def _asked(self) -> dict[str, Any]:
        """Return the range to ask for, and the version of the object if some of it is here already."""
        if self._start is not None:
            start, end = self._start + self._got, self._start + self._size - 1
            return {"Range": f"bytes={start}-{end}"} | ({"IfMatch": self._tag} if self._tag else {})
        if self._offset < 0:
            return {"Range": f"bytes={self._offset}"}
        if self._length is not None:
            return {"Range": f"bytes={self._offset}-{self._offset + self._length - 1}"}
        return {"Range": f"bytes={self._offset}-"} if self._offset else {}

    def _begin(self, answer: Any) -> None:
        """Take from the head of an answer what its bytes are. Raises GarbledAnswer if they are not what was asked."""
        start, count = _range(answer)
        if self._start is None:
            if start != self._offset if self._offset >= 0 else count > -self._offset:
                raise WrongRange("another range than was asked for")
            self._start, self._tag = start, answer.get("ETag")
            self._size = count if self._length is None else min(count, self._length)
        elif start != self._start + self._got:
            raise WrongRange("another range than was asked for")

    def _read(self, body: Any) -> None:
        limit = self._connection.download
        step = min(READ_BYTES, limit.piece_bytes or READ_BYTES)
        while self._got < self._size:
            piece = body.read(min(step, self._size - self._got))
            if not piece:
                raise GarbledAnswer("an answer that ends too early")
            self._pieces.append(piece)
            self._got += len(piece)
            limit.take(len(piece))


def _range(answer: Any) -> tuple[int, int]:
    """Return where the bytes of an answer begin in the object, and how many they are."""
    length = answer.get("ContentLength")
    if length is None:
        raise GarbledAnswer("an answer without its length")
    said = answer.get("ContentRange")
    if said is None:
        return 0, int(length)  # the whole object
    match = _CONTENT_RANGE.fullmatch(said)
    if match is None or int(match[2]) - int(match[1]) + 1 != int(length):
        raise GarbledAnswer("an answer of a range that makes no sense")
    return int(match[1]), int(length)
