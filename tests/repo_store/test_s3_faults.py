"""Whatever goes wrong on the line to S3 ends in a retried success or in one line that says what it was.

A real server behind a proxy that breaks connections, answers with errors, loses acknowledgements and cuts answers off.
After every fault the object is what it should be, as seen by somebody with a line of their own.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.faulty_proxy import ALWAYS, Fault, FaultyProxy
from support.seaweed import QUICK, SeaweedServer, running_server

from repo_store import s3_retry
from repo_store.errors import ObjectConflict, ObjectMissing, StorageError
from repo_store.s3_options import MIB, S3Options
from repo_store.s3_storage import S3Storage

PATIENT = replace(QUICK, read_seconds=1.0)
QUICK_TO_DOUBT = replace(QUICK, read_seconds=0.3)  # for silences; a busy machine only makes it try once more
HASTY = replace(QUICK, read_seconds=0.4, deadline_seconds=0.6, greeting_seconds=0.6)
# A part takes a busy machine longer than the shortest of silences.
IN_PARTS = replace(QUICK, read_seconds=1.5, multipart_bytes_min=5 * MIB, part_bytes=5 * MIB, part_threads=2)

NAME = "packs/ab/abcd"
SMALL = b"some bytes"
MIDDLE = bytes(range(256)) * 8192  # 2 MiB: asks before it sends
LARGE = b"".join(bytes([n]) * MIB for n in range(11))  # three parts


class Line:
    """A storage behind a faulty proxy, and the same storage seen directly."""

    def __init__(self, server: SeaweedServer, proxy: FaultyProxy) -> None:
        self.server, self.proxy = server, proxy
        self.place = server.new_place()
        self.direct = server.storage(self.place)

    def storage(self, options: S3Options = QUICK_TO_DOUBT) -> S3Storage:
        return self.server.storage(self.place, options, endpoint=self.proxy.endpoint)

    def uploads_left(self) -> int:
        client = self.direct._connection.client
        bucket, _, prefix = self.place.partition("/")
        return len(client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", []))


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyProxy]:
    with FaultyProxy(running_server().port) as proxy:
        yield proxy


@pytest.fixture
def line(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(s3_retry, "PAUSE_SECONDS_MIN", 0.01)
    proxy.forget()
    return Line(running_server(), proxy)


PASSING: dict[str, Callable[[FaultyProxy, str], None]] = {
    "reset before": lambda proxy, method: proxy.fail(Fault.RESET_BEFORE, method, times=2),
    "reset after": lambda proxy, method: proxy.fail(Fault.RESET_AFTER, method, times=2),
    "500": lambda proxy, method: proxy.fail(Fault.STATUS, method, times=2),
    "500 after": lambda proxy, method: proxy.fail(Fault.STATUS_AFTER, method, times=2),
    "503": lambda proxy, method: proxy.fail(Fault.STATUS, method, times=3, status=503, code="SlowDown"),
    "409": lambda proxy, method: proxy.fail(Fault.STATUS, method, status=409, code="OperationAborted"),
    "no code": lambda proxy, method: proxy.fail(Fault.STATUS, method, status=502, code=""),
    "slow": lambda proxy, method: proxy.fail(Fault.SLOW, method),
    "silent": lambda proxy, method: proxy.fail(Fault.SILENT, method),
}


@pytest.mark.parametrize(
    "data", [pytest.param(SMALL, marks=pytest.mark.full), MIDDLE], ids=["small", "middle"]
)
@pytest.mark.parametrize("fault", PASSING)
def test_a_put_survives_what_passes(line: Line, fault: str, data: bytes) -> None:
    PASSING[fault](line.proxy, "PUT")
    line.storage().put(NAME, [data[:5], data[5:]])
    assert line.direct.get(NAME) == data


@pytest.mark.parametrize("fault", PASSING)
def test_reading_listing_and_deleting_survive_what_passes(line: Line, fault: str) -> None:
    line.direct.put(NAME, MIDDLE)
    storage = line.storage()
    for method, ask in (
        ("GET", lambda: storage.get(NAME, -1000, 10)),
        ("GET", lambda: [info.size for info in storage.list("packs/")]),
        ("HEAD", lambda: storage.info(NAME).size),
        ("HEAD", lambda: storage.barrier([NAME])),
    ):
        PASSING[fault](line.proxy, method)
        assert ask() in (MIDDLE[-1000:-990], [len(MIDDLE)], len(MIDDLE), None)
    PASSING[fault](line.proxy, "DELETE")
    storage.delete(NAME)
    assert list(line.direct.list("")) == []


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.STALLED])
@pytest.mark.parametrize("keep", [0, pytest.param(1, marks=pytest.mark.full), None])
def test_a_body_that_was_cut_off_is_read_to_its_end(line: Line, fault: Fault, keep: int | None) -> None:
    line.direct.put(NAME, LARGE)
    for offset, length in ((0, None), (5, 7 * MIB), (-6 * MIB, 5 * MIB)):
        line.proxy.fail(fault, "GET", keep=keep)
        start = offset % len(LARGE)
        expected = LARGE[start:] if length is None else LARGE[start : start + length]
        assert line.storage().get(NAME, offset, length) == expected


def test_a_broken_transfer_goes_on_where_it_broke_however_often(line: Line) -> None:
    line.direct.put(NAME, LARGE)
    line.proxy.fail(Fault.CUT, "GET", keep=2 * MIB, times=4)
    storage = line.storage(HASTY)
    assert storage.get(NAME) == LARGE
    assert storage.requests["GetObject"] == 5


def test_an_object_replaced_between_two_pieces_is_read_afresh(line: Line) -> None:
    line.direct.put(NAME, LARGE)
    other = LARGE[::-1]
    line.proxy.fail(Fault.CUT, "GET", keep=2 * MIB)
    line.proxy.fail(Fault.SLOW, "GET", seconds=0, then=lambda: line.direct.replace(NAME, other))
    assert line.storage().get(NAME) == other


@pytest.mark.parametrize("keep", [0, 60, None])
def test_a_listing_that_was_cut_off_is_never_taken_for_a_short_one(line: Line, keep: int | None) -> None:
    names = [f"packs/ab/{number:03}" for number in range(20)]
    for name in names:
        line.direct.put(name, b"x")
    line.proxy.fail(Fault.CUT, "GET", "list-type", keep=keep)
    assert sorted(info.name for info in line.storage().list("packs/")) == names
    line.proxy.fail(Fault.CUT, "GET", "list-type", keep=keep, times=ALWAYS)
    with pytest.raises(StorageError, match="cannot list: gave up after"):
        list(line.storage(HASTY).list("packs/"))


# Lost acknowledgements


@pytest.mark.parametrize("lost", [Fault.RESET_AFTER, Fault.STATUS_AFTER, Fault.SILENT])
def test_a_lost_acknowledgement_is_found_out_by_reading_back(line: Line, lost: Fault) -> None:
    line.proxy.fail(lost, "PUT")
    storage = line.storage(PATIENT)
    storage.put(NAME, MIDDLE)
    assert line.direct.get(NAME) == MIDDLE
    assert storage.requests["PutObject"] == 2
    assert storage.requests["GetObject"] == (lost is not Fault.SILENT)


def test_what_somebody_else_put_between_two_tries_is_a_conflict(line: Line) -> None:
    for number, other in enumerate((b"other bytes", MIDDLE[:-1], MIDDLE + b"x", b"")):
        name = f"manifests/{number}"
        line.proxy.fail(
            Fault.RESET_BEFORE, "PUT", then=lambda name=name, other=other: line.direct.put(name, other)
        )
        with pytest.raises(ObjectConflict, match=f"{name}: exists with other content"):
            line.storage().put(name, MIDDLE)
        assert line.direct.get(name) == other


def test_the_same_bytes_by_somebody_else_between_two_tries_are_success(line: Line) -> None:
    line.proxy.fail(Fault.RESET_BEFORE, "PUT", then=lambda: line.direct.put(NAME, MIDDLE))
    line.storage().put(NAME, MIDDLE)


def test_an_object_that_vanishes_before_it_is_compared_is_put_again(line: Line) -> None:
    line.direct.put(NAME, b"other")
    line.proxy.fail(Fault.SLOW, "GET", seconds=0, then=lambda: line.direct.delete(NAME))
    line.storage().put(NAME, SMALL)
    assert line.direct.get(NAME) == SMALL


# Multipart


@pytest.mark.parametrize("fault", [*PASSING, "nothing"])
def test_a_part_survives_what_passes(line: Line, fault: str) -> None:
    PASSING.get(fault, lambda proxy, method: None)(line.proxy, "PUT")
    storage = line.storage(IN_PARTS)
    storage.put(NAME, [LARGE[: MIB + 3], LARGE[MIB + 3 :]])
    assert line.direct.get(NAME) == LARGE
    assert line.uploads_left() == 0
    assert storage.requests["PutObject"] == 0 and storage.requests["UploadPart"] >= 3


@pytest.mark.parametrize(
    "lost", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.STATUS_AFTER, Fault.SILENT, Fault.CUT], ids=lambda lost: lost.name
)  # fmt: skip
def test_the_end_of_an_upload_may_get_lost(line: Line, lost: Fault) -> None:
    line.proxy.fail(lost, "POST", "uploadId=", keep=0)
    line.storage(IN_PARTS).put(NAME, LARGE)
    assert line.direct.get(NAME) == LARGE
    assert line.uploads_left() == 0


def test_an_upload_that_the_server_has_forgotten_was_completed_or_begins_anew(line: Line) -> None:
    gone = {"status": 404, "code": "NoSuchUpload"}
    line.proxy.fail(Fault.RESET_AFTER, "POST", "uploadId=")
    line.proxy.fail(Fault.STATUS, "POST", "uploadId=", **gone)  # type: ignore[arg-type]
    storage = line.storage(IN_PARTS)
    storage.put(NAME, LARGE)
    assert (line.direct.get(NAME), storage.requests["CreateMultipartUpload"]) == (LARGE, 1)
    line.proxy.fail(Fault.STATUS, "PUT", "partNumber=2", **gone)  # type: ignore[arg-type]
    storage.put("packs/ab/another", LARGE)
    assert (line.direct.get("packs/ab/another"), storage.requests["CreateMultipartUpload"]) == (LARGE, 3)


def test_a_conflict_at_the_end_of_an_upload_begins_it_anew(line: Line) -> None:
    line.proxy.fail(Fault.STATUS, "POST", "uploadId=", status=409, code="ConditionalRequestConflict")
    storage = line.storage(IN_PARTS)
    storage.put(NAME, LARGE)
    assert line.direct.get(NAME) == LARGE
    assert storage.requests["CreateMultipartUpload"] == 2
    assert line.uploads_left() == 0


def test_an_upload_in_parts_never_replaces(line: Line) -> None:
    line.direct.put(NAME, LARGE[:-1] + b"x")
    with pytest.raises(ObjectConflict):
        line.storage(IN_PARTS).put(NAME, LARGE)
    line.direct.put("packs/ab/same", LARGE)
    line.storage(IN_PARTS).put("packs/ab/same", LARGE)
    assert line.direct.get(NAME)[-1:] == b"x"
    assert line.uploads_left() == 0


def test_an_upload_in_parts_never_replaces_what_came_while_it_was_under_way(line: Line) -> None:
    line.proxy.fail(Fault.SLOW, "POST", "uploadId=", then=lambda: line.direct.put(NAME, b"quicker"))
    with pytest.raises(ObjectConflict):
        line.storage(IN_PARTS).put(NAME, LARGE)
    assert line.direct.get(NAME) == b"quicker"
    assert line.uploads_left() == 0


def test_an_upload_that_fails_for_good_leaves_no_parts(line: Line) -> None:
    line.proxy.fail(Fault.STATUS, "PUT", "partNumber=2", times=ALWAYS)
    with pytest.raises(StorageError, match=f"{NAME}: cannot write: gave up after"):
        line.storage(replace(IN_PARTS, deadline_seconds=0.5)).put(NAME, LARGE)
    assert list(line.direct.list("")) == []
    assert line.uploads_left() == 0
    assert line.proxy.count("DELETE", "uploadId=") == 1


def test_a_large_object_can_be_replaced(line: Line) -> None:
    line.direct.put(NAME, b"damaged")
    line.proxy.fail(Fault.RESET_AFTER, "POST", "uploadId=")
    line.storage(IN_PARTS).replace(NAME, LARGE)
    assert line.direct.get(NAME) == LARGE


# What does not pass

ENDLESS = {
    "reset": (Fault.RESET_BEFORE, {}, r"the connection broke: connection reset by peer|the connection broke: "),
    "500": (Fault.STATUS, {}, "the server answers 500: as the test ordered"),
    "503": (Fault.STATUS, {"status": 503, "code": "SlowDown"}, "the server answers 503: as the test ordered"),
    "409": (Fault.STATUS, {"status": 409, "code": "ConditionalRequestConflict"}, "somebody else writes the same object"),
    "silent": (Fault.SILENT, {}, "no answer from http://127.0.0.1:[0-9]+ in time"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ENDLESS)
def test_what_does_not_pass_is_given_up_at_the_deadline_and_named(line: Line, fault: str) -> None:
    kind, how, reason = ENDLESS[fault]
    line.proxy.fail(kind, "PUT", times=ALWAYS, **how)  # type: ignore[arg-type]
    start = time.monotonic()
    with pytest.raises(
        StorageError, match=rf"{line.place}/{NAME}: cannot write: gave up after .*: ({reason})"
    ) as failed:
        line.storage(HASTY).put(NAME, SMALL)
    assert time.monotonic() - start < 4
    assert "\n" not in str(failed.value) and not isinstance(failed.value, ObjectConflict | ObjectMissing)
    assert list(line.direct.list("")) == []


FINAL = {
    (403, "AccessDenied"): r"access denied \(AccessDenied\)",
    (403, "InvalidAccessKeyId"): r"the server does not know the access key \(InvalidAccessKeyId\)",
    (403, "SignatureDoesNotMatch"): r"the secret key is wrong \(SignatureDoesNotMatch\)",
    (403, "ExpiredToken"): r"the credentials have expired \(ExpiredToken\)",
    (403, "RequestTimeTooSkewed"): "the clocks of this host and the server differ",
    (403, "InvalidObjectState"): "the object is archived and cannot be read at once",
    (301, "PermanentRedirect"): r"the bucket is in another region \(PermanentRedirect\)",
    (400, "AuthorizationHeaderMalformed"): "the bucket is in another region",
    (404, "NoSuchBucket"): r"no such bucket \(NoSuchBucket\)",
    (501, "NotImplemented"): "the server cannot do this",
    (507, "XMinioStorageFull"): "the server is full",
    (400, "InvalidStorageClass"): "the server answers 400: as the test ordered",
}  # fmt: skip


@pytest.mark.parametrize(("status", "code"), FINAL)
def test_what_cannot_pass_is_said_at_once(line: Line, status: int, code: str) -> None:
    line.proxy.fail(Fault.STATUS, "PUT", times=ALWAYS, status=status, code=code)
    with pytest.raises(StorageError, match=f"{NAME}: cannot write: {FINAL[status, code]}") as failed:
        line.storage().put(NAME, SMALL)
    assert line.proxy.count("PUT") == 1
    assert failed.value.hint or code == "InvalidStorageClass"


def test_progress_starts_the_deadline_anew(line: Line) -> None:
    line.direct.put(NAME, LARGE)
    line.proxy.fail(Fault.CUT, "GET", keep=2 * MIB, times=ALWAYS)
    line.proxy.fail(Fault.STATUS, "HEAD", times=ALWAYS)
    storage = line.storage(replace(QUICK, deadline_seconds=0, greeting_seconds=0))
    assert storage.get(NAME) == LARGE
    with pytest.raises(StorageError, match="gave up after one try"):
        storage.info(NAME)


@pytest.mark.parametrize(("offset", "length"), [(1000, None), (7, 5), (-5, None)])
def test_a_range_that_is_ignored_is_refused_and_not_returned(
    line: Line, offset: int, length: int | None
) -> None:
    line.direct.put(NAME, MIDDLE)
    line.proxy.fail(Fault.STATUS, "GET", status=200)
    with pytest.raises(StorageError, match=f"{NAME}: cannot read: the server ignores the range of a read"):
        line.storage().get(NAME, offset, length)


def test_a_page_of_somebody_else_is_no_listing(line: Line) -> None:
    line.direct.put(NAME, SMALL)
    line.proxy.fail(Fault.STATUS, "GET", status=200, times=ALWAYS)
    with pytest.raises(StorageError, match="cannot list: gave up after"):
        list(line.storage(HASTY).list(""))
