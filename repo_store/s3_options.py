"""Where an S3 repository is, and what may be chosen about how it is stored and reached.

Nothing here is taken from the environment: the command line fills it in. Endpoint, region and authority that are not
given come by the AWS chain (AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws, instance roles …), and so do credentials, which
cannot be given here at all: no secret stands among options; docs/s3.md.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from repo_store.errors import UsageError
from repo_store.object_names import NAME_BYTES_MAX

SCHEME = "s3://"
MIB = 1024 * 1024

KEY_BYTES_MAX = 1024
PREFIX_BYTES_MAX = KEY_BYTES_MAX - NAME_BYTES_MAX - 1

MULTIPART_PARTS_MAX = 10_000
PART_BYTES_MIN = 5 * MIB

STORAGE_CLASS_BYTES_MIN = 128 * 1024
"""Smaller objects stay in the bucket's own class: the cheap classes charge every object for at least so much."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", re.ASCII)
_CLASS = re.compile(r"[A-Z][A-Z0-9_]{0,39}", re.ASCII)
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", re.ASCII)
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_SSE_S3, _SSE_KMS = "AES256", "aws:kms"
_EXAMPLE = "write s3://bucket or s3://bucket/prefix"
_ENDPOINT_EXAMPLE = "an endpoint is a URL, such as https://s3.example.org"


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket and the prefix of all keys of the repository, "" or ending with "/"."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


def parse_s3_location(location: str) -> S3Location:
    """Return what `s3://bucket/prefix` means; "/" at its end does no harm. Raises UsageError."""
    bucket, _, prefix = location.removeprefix(SCHEME).partition("/")
    prefix = prefix.rstrip("/")
    if not location.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{location}: not the name of a bucket", hint=_EXAMPLE)
    parts = prefix.split("/") if prefix else []
    if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise UsageError(f"{location}: not a prefix that keys can have", hint=_EXAMPLE)
    if len(prefix.encode()) > PREFIX_BYTES_MAX:
        raise UsageError(f"{location}: a prefix has at most {PREFIX_BYTES_MAX} bytes")
    return S3Location(bucket, f"{prefix}/" if prefix else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How to store and how to reach. Raises UsageError for what makes no sense."""

    endpoint: str | None = None
    """The URL of a server other than that of AWS."""
    region: str | None = None
    ca_bundle: str | None = None
    """A file of certificates in PEM: the authorities that may vouch for the server, in place of the public ones."""

    storage_class: str | None = None
    """For objects of 128 KiB and more; classes that must be thawed before reading are refused."""
    encryption: str | None = None
    """The server's own encryption, on top of holdfast's: "AES256" (SSE-S3) or "aws:kms" (SSE-KMS)."""
    kms_key_id: str | None = None

    upload_bytes_per_second: int | None = None
    download_bytes_per_second: int | None = None

    connections: int = 16
    """Connections kept open. More requests at once are served too, by connections that are closed afterwards."""
    multipart_bytes_min: int = 64 * MIB
    """Objects this large go up in parts. Packs are smaller: one request each, and several at once anyway."""
    part_bytes: int = 16 * MIB
    part_threads: int = 4

    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    """The longest silence of a server in the middle of an answer."""
    deadline_seconds: float = 300.0
    """How long one operation may go on failing before it is given up; progress starts it anew."""
    greeting_seconds: float = 20.0
    """The same for a server that has not answered even once: a wrong endpoint should not cost five minutes."""

    def __post_init__(self) -> None:
        if self.endpoint is not None and not _is_endpoint(self.endpoint):
            raise UsageError(f"{self.endpoint!r}: not the URL of a server", hint=_ENDPOINT_EXAMPLE)
        if self.region is not None and not _REGION.fullmatch(self.region):
            raise UsageError(f"{self.region!r}: not a region", hint="a region is a word such as eu-central-1")
        self._check_storing()
        for limit in (self.upload_bytes_per_second, self.download_bytes_per_second):
            if limit is not None and limit < 1:
                raise UsageError(f"{limit}: not a number of bytes per second")
        assert self.connections > 0 and self.part_threads > 0
        assert PART_BYTES_MIN <= self.part_bytes <= self.multipart_bytes_min

    def _check_storing(self) -> None:
        if self.storage_class is not None and not _CLASS.fullmatch(self.storage_class):
            raise UsageError(f"{self.storage_class!r}: not a storage class")
        if self.storage_class in _ARCHIVES:
            raise UsageError(
                f"{self.storage_class}: objects of this class cannot be read at once, so no backup could be restored",
                hint="GLACIER_IR costs about as little and can",
            )
        if self.encryption not in (None, _SSE_S3, _SSE_KMS):
            raise UsageError(
                f"{self.encryption!r}: not an encryption of the server",
                hint=f'use "{_SSE_S3}" or "{_SSE_KMS}"',
            )
        if self.kms_key_id is not None and self.encryption != _SSE_KMS:
            raise UsageError(f'a KMS key needs the encryption "{_SSE_KMS}"')

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit on transfers."""
        return self.upload_bytes_per_second is not None or self.download_bytes_per_second is not None

    def headers(self, size: int) -> dict[str, str]:
        """Return what is asked of the server when an object of `size` bytes is made, as parameters of boto."""
        chosen = {
            "StorageClass": self.storage_class if size >= STORAGE_CLASS_BYTES_MIN else None,
            "ServerSideEncryption": self.encryption,
            "SSEKMSKeyId": self.kms_key_id,
        }
        return {name: value for name, value in chosen.items() if value is not None}

    def part_size(self, size: int) -> int:
        """Return how large the parts of an object of `size` bytes are: more than 10,000 are not allowed."""
        return max(self.part_bytes, -(-size // MULTIPART_PARTS_MAX))


def _is_endpoint(text: str) -> bool:
    """Return whether `text` is a URL that S3 could be spoken at: no user, no query, nothing that breaks a line."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    whole = url.scheme in ("http", "https") and bool(url.hostname) and port != 0
    return plain and whole and url.username is None and not url.query and not url.fragment
