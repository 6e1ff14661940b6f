"""What an error of boto, or an answer of an S3 server, means: try again, give up, or an answer like any other.

Law: this module judges and does nothing; the storage and its retries act. Whatever it does not know is not judged:
an error that is a bug must look like one. It imports boto only where an error has come from there.
"""

import enum
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_SHOWN_MAX = 200


class Verdict(enum.Enum):
    """What an error means for the operation that met it."""

    MISSING = "there is no such object"
    EXISTS = "the condition of a put did not hold"
    PAST_END = "the range begins past the end of the object"
    NO_UPLOAD = "the multipart upload is over, one way or the other"
    CONFLICT = "somebody else is changing the same name at this moment"
    PASSING = "likely to pass: try again"
    FINAL = "will be the same next time"


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error as judged: the verdict, and for a person why, and what to do about it.

    `answered` says that there is a server, and it spoke to us.
    """

    verdict: Verdict
    reason: str
    hint: str | None = None
    answered: bool = False


_CREDENTIALS_HINT = (
    "credentials come by the AWS chain: AWS_PROFILE, AWS_ACCESS_KEY_ID, ~/.aws, the instance's role"
)
_RIGHTS_HINT = "docs/s3.md has the policy that each role needs"
_REGION_HINT = "set the region of the bucket: --s3-region, AWS_REGION, or region in ~/.aws/config"
_ENDPOINT_HINT = (
    "check the network and the endpoint: --s3-endpoint, AWS_ENDPOINT_URL, or endpoint_url in ~/.aws/config"
)
_TLS_HINT = "a private authority is named by --s3-ca-bundle or AWS_CA_BUNDLE; a server without TLS has an endpoint with http://"
_OTHER_SERVER_HINT = "use another server, or a newer version of this one: docs/s3.md"
_ROOM_HINT = "free some space or prune; what was stored before is whole, and the next run reuses it"

_BY_CODE: dict[str, tuple[Verdict, str, str | None]] = {
    "NoSuchKey": (Verdict.MISSING, "no such object", None),
    "NoSuchBucket": (Verdict.FINAL, "no such bucket", "make the bucket first: docs/s3.md"),
    "PreconditionFailed": (Verdict.EXISTS, "the object exists", None),
    "InvalidRange": (Verdict.PAST_END, "the range begins past the end", None),
    "NoSuchUpload": (Verdict.NO_UPLOAD, "the multipart upload is gone", None),
    "ConditionalRequestConflict": (Verdict.CONFLICT, "somebody else writes the same object", None),
    "OperationAborted": (Verdict.CONFLICT, "somebody else changes the same object", None),
    "AccessDenied": (Verdict.FINAL, "access denied", _RIGHTS_HINT),
    "AllAccessDisabled": (Verdict.FINAL, "access denied", _RIGHTS_HINT),
    "InvalidAccessKeyId": (Verdict.FINAL, "the server does not know the access key", _CREDENTIALS_HINT),
    "SignatureDoesNotMatch": (Verdict.FINAL, "the secret key is wrong", _CREDENTIALS_HINT),
    "ExpiredToken": (Verdict.FINAL, "the credentials have expired", _CREDENTIALS_HINT),
    "InvalidToken": (Verdict.FINAL, "the session token is wrong", _CREDENTIALS_HINT),
    "RequestTimeTooSkewed": (Verdict.FINAL, "the clocks of this host and the server differ", "set the clock"),
    "PermanentRedirect": (Verdict.FINAL, "the bucket is in another region", _REGION_HINT),
    "AuthorizationHeaderMalformed": (Verdict.FINAL, "the bucket is in another region", _REGION_HINT),
    "IllegalLocationConstraintException": (Verdict.FINAL, "the bucket is in another region", _REGION_HINT),
    "InvalidObjectState": (
        Verdict.FINAL, "the object is archived and cannot be read at once", "thaw it, and keep lifecycle rules off it",
    ),
    "QuotaExceeded": (Verdict.FINAL, "the quota of the bucket is used up", _ROOM_HINT),
    "XMinioStorageFull": (Verdict.FINAL, "the server is full", _ROOM_HINT),
    # The line, not the server: the bytes that arrived are not those that were sent, or not all of them.
    "BadDigest": (Verdict.PASSING, "the bytes were changed on the way", None),
    "XAmzContentSHA256Mismatch": (Verdict.PASSING, "the bytes were changed on the way", None),
    "XAmzContentChecksumMismatch": (Verdict.PASSING, "the bytes were changed on the way", None),
    "IncompleteBody": (Verdict.PASSING, "the bytes did not all arrive", None),
    "RequestTimeout": (Verdict.PASSING, "the server waited too long for the bytes", None),
}  # fmt: skip
_BY_STATUS: dict[int, tuple[Verdict, str, str | None]] = {
    301: _BY_CODE["PermanentRedirect"],
    307: (Verdict.PASSING, "the server sends us elsewhere", _REGION_HINT),
    403: _BY_CODE["AccessDenied"],
    404: _BY_CODE["NoSuchKey"],
    408: _BY_CODE["RequestTimeout"],
    409: _BY_CODE["ConditionalRequestConflict"],
    412: _BY_CODE["PreconditionFailed"],
    416: _BY_CODE["InvalidRange"],
    429: (Verdict.PASSING, "the server asks us to slow down", None),
    501: (Verdict.FINAL, "the server cannot do this", _OTHER_SERVER_HINT),
    507: _BY_CODE["XMinioStorageFull"],
}  # fmt: skip


def judge(error: Exception) -> Trouble | None:
    """Return what an error means, or None if it is not one of the storage."""
    from http.client import HTTPException

    from botocore import exceptions
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        return _answer(error)
    if isinstance(error, ResponseParserError | GarbledAnswer):
        return Trouble(
            Verdict.PASSING, "the answer of the server makes no sense", _ENDPOINT_HINT, answered=True
        )
    if isinstance(error, WrongRange):
        return Trouble(
            Verdict.FINAL, "the server ignores the range of a read", _OTHER_SERVER_HINT, answered=True
        )
    if isinstance(error, exceptions.SSLError):
        return _tls(error)
    if isinstance(
        error, exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.IncompleteReadError
    ):
        return _line(error)
    if isinstance(error, HTTPError | HTTPException | OSError):
        return _line(error)
    if isinstance(error, exceptions.BotoCoreError):
        return _before_sending(error)
    return None


class GarbledAnswer(Exception):
    """An answer lacks what every answer of its kind has: it was cut off, or comes from something that is no S3."""


class WrongRange(Exception):
    """Other bytes of an object came than were asked for."""


def _answer(error: Any) -> Trouble:
    """Judge an answer of the server."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    known = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if known is not None:
        verdict, reason, hint = known
        shown = f"{reason} ({code})" if verdict is Verdict.FINAL and code != str(status) else reason
        return Trouble(verdict, shown, hint, answered=True)
    said = one_line(error.response.get("Error", {}).get("Message") or code or "no reason given")
    passing = status >= 500 or code in ("SlowDown", "Throttling", "RequestLimitExceeded", "InternalError")
    return Trouble(
        Verdict.PASSING if passing else Verdict.FINAL, f"the server answers {status}: {said}", answered=True
    )


def _tls(error: Any) -> Trouble:
    """Judge a failed handshake: a certificate stays wrong, a line that was cut may be whole next time."""
    text = str(error)
    where = _endpoint(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = re.search(r"certificate verify failed: ([^(\[]+)", text)
        reason = f"{where}: the certificate cannot be trusted: {one_line(why[1]) if why else 'not verified'}"
        return Trouble(Verdict.FINAL, reason, _TLS_HINT)
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text or "UNKNOWN_PROTOCOL" in text:
        return Trouble(Verdict.FINAL, f"{where}: the server does not speak TLS there", _TLS_HINT)
    return Trouble(Verdict.PASSING, f"{where}: TLS failed", _TLS_HINT)


def _line(error: Exception) -> Trouble:
    """Judge what happened between us and the server."""
    from botocore import exceptions

    where = _endpoint(error)
    if isinstance(error, exceptions.ReadTimeoutError):
        return Trouble(Verdict.PASSING, f"no answer from {where} in time", _ENDPOINT_HINT)
    if isinstance(error, exceptions.ConnectTimeoutError):
        return Trouble(Verdict.PASSING, f"cannot connect to {where} in time", _ENDPOINT_HINT)
    if isinstance(error, exceptions.ConnectionError):
        return Trouble(Verdict.PASSING, f"cannot connect to {where}: {_cause(error)}", _ENDPOINT_HINT)
    if isinstance(error, exceptions.IncompleteReadError):
        return Trouble(Verdict.PASSING, "the connection ended in the middle of an answer", _ENDPOINT_HINT)
    return Trouble(Verdict.PASSING, f"the connection broke: {_cause(error)}", _ENDPOINT_HINT)


def _before_sending(error: Any) -> Trouble:
    """Judge what kept boto from sending anything."""
    from botocore import exceptions

    said = one_line(str(error))
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return Trouble(Verdict.FINAL, "no credentials were found", _CREDENTIALS_HINT)
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.MetadataRetrievalError):
        return Trouble(
            Verdict.PASSING, said, _CREDENTIALS_HINT
        )  # the service that hands them out may be busy
    if isinstance(error, exceptions.ProfileNotFound | exceptions.TokenRetrievalError | exceptions.SSOError):
        return Trouble(Verdict.FINAL, said, _CREDENTIALS_HINT)
    return Trouble(Verdict.FINAL, said)


def _endpoint(error: Any) -> str:
    """Return the server an error speaks of, without the key that was asked for."""
    url = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url") or ""))
    return f"{url.scheme}://{url.netloc}" if url.netloc else "the server"


def _cause(error: BaseException) -> str:
    """Return the words of the system for what happened, from as deep as it was wrapped."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            inner = getattr(each, "kwargs", None)
            waiting += [inner.get("error")] if isinstance(inner, dict) else []
            waiting += [getattr(each, "reason", None), each.__cause__, each.__context__, *each.args]
    for each in seen:
        if isinstance(each, OSError) and each.strerror:
            return one_line(each.strerror)
    if any(isinstance(each, TimeoutError) for each in seen):
        return "no progress in time"
    return one_line(str(seen[-1])) or type(error).__name__


def one_line(text: str) -> str:
    """Return `text` as part of a message: one line, not too long, no period, no capital at its start."""
    text = " ".join(text.split()).rstrip(".")[:_SHOWN_MAX]
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
