"""S3Storage beyond the contract: where it is, whom it finds there, what it asks for, and how fast it may go."""

import datetime
import ipaddress
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.faulty_proxy import FaultyProxy
from support.seaweed import QUICK, SeaweedServer, running_server

from repo_store import s3_retry
from repo_store.errors import StorageError, UsageError
from repo_store.probe import require_safe
from repo_store.rate_limit import RateLimit
from repo_store.s3_body import Body, BodyReader
from repo_store.s3_options import MIB, PREFIX_BYTES_MAX, S3Location, S3Options, parse_s3_location
from repo_store.s3_storage import S3Storage

HASTY = replace(QUICK, deadline_seconds=0.5, greeting_seconds=0.5, connect_seconds=0.5)
IN_PARTS = replace(QUICK, multipart_bytes_min=5 * MIB, part_bytes=5 * MIB)


@pytest.fixture
def server() -> SeaweedServer:
    return running_server()


def in_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_boto_is_imported_with_the_first_request_and_not_before() -> None:
    heavy = "[m for m in ('boto3', 'botocore', 'urllib3', 'http.client', 'ssl') if m in sys.modules]"
    code = "import sys; from repo_store.s3_storage import S3Storage; S3Storage('s3://bucket/prefix');"
    assert in_process(f"{code} print({heavy})") == "[]\n"


# Locations and options


@pytest.mark.parametrize(
    ("location", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://my.bucket-1/a", "my.bucket-1", "a/"),
        ("s3://bucket/Host A/päth/", "bucket", "Host A/päth/"),
        (f"s3://bucket/{'x' * PREFIX_BYTES_MAX}", "bucket", "x" * PREFIX_BYTES_MAX + "/"),
    ],
)
def test_a_location_is_a_bucket_and_a_prefix(location: str, bucket: str, prefix: str) -> None:
    assert parse_s3_location(location) == S3Location(bucket, prefix)
    assert S3Storage(location).location == location.rstrip("/")


@pytest.mark.parametrize(
    "location",
    ["s3://", "s3:///a", "s3://b", "s3://b c/a", "s3://bucket//a", "s3://bucket/a//b", "s3://bucket/../a",
     "s3://bucket/a\nb", f"s3://bucket/{'x' * (PREFIX_BYTES_MAX + 1)}", "bucket/a"],
)  # fmt: skip
def test_a_location_that_cannot_be_one_is_refused(location: str) -> None:
    with pytest.raises(UsageError):
        S3Storage(location)


@pytest.mark.parametrize(
    "wrong",
    [
        {"storage_class": "DEEP_ARCHIVE"}, {"storage_class": "GLACIER"}, {"storage_class": "cheap one"},
        {"encryption": "rot13"}, {"kms_key_id": "alias/a"}, {"encryption": "AES256", "kms_key_id": "alias/a"},
        {"upload_bytes_per_second": 0}, {"download_bytes_per_second": -1},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        S3Options(**wrong)


def test_class_and_encryption_are_asked_for(server: SeaweedServer) -> None:
    place = server.new_place()
    cheap = replace(IN_PARTS, storage_class="STANDARD_IA")
    storage = server.storage(place, cheap)
    for name, size in (("packs/small", 1000), ("packs/middle", 200_000), ("packs/large", 6 * MIB)):
        storage.put(name, bytes(size))
    found = {each["Key"].rpartition("/")[2]: each.get("StorageClass") for each in listed(storage)}
    assert found == {"small": "STANDARD", "middle": "STANDARD_IA", "large": "STANDARD_IA"}
    keyed = S3Options(encryption="aws:kms", kms_key_id="alias/backups", storage_class="GLACIER_IR")
    assert keyed.headers(10) == {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/backups"}
    assert keyed.headers(MIB) == {**keyed.headers(10), "StorageClass": "GLACIER_IR"}


def listed(storage: S3Storage) -> list[dict[str, Any]]:
    bucket, _, prefix = storage.location.removeprefix("s3://").partition("/")
    answer: Any = storage._connection.client.list_objects_v2(Bucket=bucket, Prefix=prefix)
    return list(answer["Contents"])


def test_keys_that_are_no_names_are_left_alone(server: SeaweedServer) -> None:
    storage = server.storage(server.new_place())
    storage.put("packs/ab/abcd", b"x")
    bucket, _, prefix = storage.location.removeprefix("s3://").partition("/")
    for key in ("packs/README.TXT", "packs/.hidden", "Folder"):
        storage._connection.client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"foreign")
    assert [info.name for info in storage.list("")] == ["packs/ab/abcd"]


def test_two_repositories_in_one_bucket_do_not_see_each_other(server: SeaweedServer) -> None:
    place = server.new_place()
    inner, outer = server.storage(f"{place}/a"), server.storage(f"{place}/a b")
    inner.put("config/1", b"inner")
    outer.put("config/1", b"outer")
    assert inner.get("config/1") == b"inner"
    assert len(list(inner.list(""))) == len(list(outer.list(""))) == 1


def test_a_listing_of_many_pages_is_whole(server: SeaweedServer) -> None:
    storage = server.storage(server.new_place())
    names = [f"packs/{number % 7}0/{number}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.put(name, b""), names))
    assert sorted(info.name for info in storage.list("packs/")) == sorted(names)
    assert storage.requests == {"PutObject": 1100, "ListObjectsV2": 2}


def test_every_request_is_counted(server: SeaweedServer) -> None:
    storage = server.storage(server.new_place())
    storage.put("packs/a", b"x")
    storage.put("packs/a", b"x")
    storage.get("packs/a")
    storage.barrier(["packs/a"])
    storage.barrier()
    storage.delete("packs/a")
    assert storage.requests == {"PutObject": 2, "GetObject": 2, "HeadObject": 1, "DeleteObject": 1}


def test_many_may_upload_the_same_bytes_in_parts_at_once(server: SeaweedServer) -> None:
    place, body = server.new_place(), bytes(range(256)) * (21 * 1024)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: server.storage(place, IN_PARTS).put("packs/ab/abcd", body), range(3)))
    assert server.storage(place).get("packs/ab/abcd") == body


def test_the_probe_finds_a_real_server_safe_and_leaves_nothing(server: SeaweedServer) -> None:
    place = server.new_place()
    results = require_safe(server.storage(place), lambda: server.storage(place))
    assert all(result.ok for result in results)
    assert list(server.storage(place).list("")) == []


def test_a_closed_storage_opens_again(server: SeaweedServer) -> None:
    storage = server.storage(server.new_place())
    storage.put("packs/a", b"x")
    storage.close()
    assert storage.get("packs/a") == b"x"


# Whom it finds


def test_a_missing_bucket_is_named_by_every_method(server: SeaweedServer) -> None:
    storage = server.storage("no-such-bucket/prefix")
    calls: list[Callable[[], object]] = [
        lambda: storage.put("config/1", b"x"),
        lambda: storage.put("config/1", bytes(70 * MIB)),
        lambda: storage.get("config/1"),
        lambda: storage.info("config/1"),
        lambda: list(storage.list("")),
        lambda: storage.barrier(["config/1"]),
    ]
    for call in calls:
        with pytest.raises(
            StorageError, match=r"s3://no-such-bucket/prefix.*: no such bucket \(NoSuchBucket\)"
        ) as error:
            call()
        assert type(error.value) is StorageError and error.value.hint == "make the bucket first: docs/s3.md"


def test_a_reader_can_read_and_is_denied_the_rest(server: SeaweedServer) -> None:
    place = server.new_place()
    server.storage(place).put("config/1", b"x")
    reader = server.storage(place, role="reader")
    assert reader.get("config/1") == b"x" and len(list(reader.list(""))) == 1
    for verb, call in (
        ("write", lambda: reader.put("config/2", b"x")),
        ("delete", lambda: reader.delete("config/1")),
        ("write", lambda: reader.replace("config/1", b"y")),
    ):
        with pytest.raises(
            StorageError, match=rf"config/.: cannot {verb}: access denied \(AccessDenied\)"
        ) as denied:
            call()
        assert denied.value.hint == "docs/s3.md has the policy that each role needs"


def chain(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: S3Options = HASTY
) -> S3Storage:
    """Return a storage that finds its way by the AWS chain, as that of a user does."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return S3Storage("s3://backups/chain", options)


def test_endpoint_and_credentials_come_by_the_chain(
    server: SeaweedServer, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(
        f"[profile backups]\nregion = eu-central-1\nendpoint_url = {server.endpoint}\n"
    )
    (home / ".aws" / "credentials").write_text(
        "[backups]\naws_access_key_id = owner\naws_secret_access_key = owner-secret\n"
    )
    storage = chain(monkeypatch, {"AWS_PROFILE": "backups"}, QUICK)
    storage.replace("config/1", b"by profile")
    monkeypatch.delenv("AWS_PROFILE")
    by_variables = chain(monkeypatch, server.environment(), QUICK)
    assert by_variables.get("config/1") == b"by profile"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, r"the secret key is wrong \(SignatureDoesNotMatch\)"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, r"the server does not know the access key \(InvalidAccessKeyId\)"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials were found"),
        ({"AWS_PROFILE": "gone"}, r"the config profile \(gone\) could not be found"),
    ],
)
def test_wrong_credentials_are_told_apart(
    server: SeaweedServer, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], reason: str
) -> None:
    storage = chain(monkeypatch, server.environment() | changed)
    with pytest.raises(StorageError, match=f"^s3://backups/chain: cannot list: {reason}$") as failed:
        list(storage.list(""))
    assert (failed.value.hint or "").startswith("credentials come by the AWS chain")


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://127.0.0.1:1", "cannot connect to http://127.0.0.1:1: connection refused"),
        ("http://no-such-host.invalid", "cannot connect to http://no-such-host.invalid: .*"),
    ],
)
def test_a_server_that_never_answered_is_given_up_soon(
    server: SeaweedServer, monkeypatch: pytest.MonkeyPatch, endpoint: str, reason: str
) -> None:
    options = replace(HASTY, deadline_seconds=300)
    storage = chain(monkeypatch, server.environment(endpoint=endpoint), options)
    start = time.monotonic()
    with pytest.raises(
        StorageError, match=f"^s3://backups/chain: cannot list: gave up after .* s: {reason}$"
    ):
        list(storage.list(""))
    assert time.monotonic() - start < 10


def test_an_endpoint_that_is_none_is_the_users_mistake(
    server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = chain(monkeypatch, server.environment(endpoint="s3.example.org"))
    with pytest.raises(UsageError, match="invalid endpoint"):
        storage.get("config/1")


def self_signed(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(address, False)
    path = folder / "certificate.pem"
    plain = serialization.NoEncryption()
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(*formats, plain)
        + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_tls_is_checked_and_used(
    server: SeaweedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FaultyProxy(server.port, tls=context) as proxy:
        variables = server.environment(endpoint=proxy.endpoint)
        storage = chain(monkeypatch, variables)
        with pytest.raises(
            StorageError, match=r"cannot write: https://.*: the certificate cannot be trusted: self-signed"
        ) as no:
            storage.put("config/2", b"x")
        assert "AWS_CA_BUNDLE" in (no.value.hint or "")
        assert proxy.seen == []
        trusting = chain(monkeypatch, variables | {"AWS_CA_BUNDLE": str(certificate)}, IN_PARTS)
        for name, size in (("packs/tls", 3 * MIB), ("packs/tls-parts", 6 * MIB)):
            trusting.put(name, bytes(size))
            assert trusting.get(name) == bytes(size)
        trusting.close()


def test_a_server_without_tls_is_named(server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = server.endpoint.replace("http:", "https:")
    storage = chain(monkeypatch, server.environment(endpoint=endpoint))
    with pytest.raises(StorageError, match=r"cannot list: https://.*: the server does not speak TLS there"):
        list(storage.list(""))


# How fast


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_rate_holds_over_any_pieces_and_a_pause_earns_no_flood() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock=clock.time, sleep=clock.sleep)
    for _ in range(50):
        limit.take(100)
    assert 4.7 <= clock.now - 100 <= 5.0
    clock.now += 3600
    start = clock.now
    limit.take(5000)
    assert 4.7 <= clock.now - start <= 5.0


def test_no_limit_never_waits() -> None:
    limit = RateLimit(None, sleep=lambda seconds: pytest.fail("waited"))
    limit.take(1 << 40)
    assert limit.piece_bytes is None


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
def test_uploads_and_downloads_keep_to_their_limits(server: SeaweedServer, in_parts: bool) -> None:
    size = 6 * MIB if in_parts else 2 * MIB
    options = replace(
        IN_PARTS if in_parts else QUICK, upload_bytes_per_second=size, download_bytes_per_second=size
    )
    storage = server.storage(server.new_place(), options)
    for transfer in (lambda: storage.put("packs/a", bytes(size)), lambda: storage.get("packs/a")):
        start = time.monotonic()
        transfer()
        assert time.monotonic() - start >= 0.7


def test_signing_is_not_slowed_down() -> None:
    clock = Clock()
    reader = BodyReader(Body(bytes(10_000)), RateLimit(1000, clock=clock.time, sleep=clock.sleep))
    while reader.read(4096):
        pass
    assert clock.now == 100
    reader.seek(0)
    reader.start_sending()
    while piece := reader.read(4096):
        assert len(piece) <= 100
    assert 9.5 <= clock.now - 100 <= 10
    sent = clock.now
    reader.seek(0)  # it is to be sent again, and signed before
    while reader.read(4096):
        pass
    assert clock.now == sent


def test_a_body_hands_out_its_pieces_uncopied_and_can_be_rewound() -> None:
    parts = [b"", b"abc", bytearray(b"defgh"), memoryview(b"ij"), b""]
    body = Body(parts)
    reader = BodyReader(body, RateLimit(None))
    assert (body.size, reader.size) == (10, 10)
    pieces = []
    while piece := reader.read(4):
        assert isinstance(piece, memoryview)
        pieces.append(bytes(piece))
    assert pieces == [b"abc", b"defg", b"h", b"ij"]
    assert reader.seek(0, 2) == reader.tell() == 10
    assert reader.seek(-3, 1) == 7 and reader.read() == b"hij" and reader.read() == b""
    assert b"".join(body.part(2, 9).pieces()) == b"cdefghi" and body.part(4, 4).size == 0
    assert body.has_at(2, b"cdef") and body.has_at(10, b"") and not body.has_at(2, b"cdeX")
    assert not body.has_at(8, b"ijk")
    assert body.crc32() == Body(b"abcdefghij").crc32() != Body(b"abcdefghiJ").crc32()


# The deadline


def test_pauses_double_and_end_at_the_deadline() -> None:
    clock = Clock()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.sleep(seconds)

    options = S3Options(deadline_seconds=120, greeting_seconds=5)
    retries = s3_retry.Retries("s3://b", options, clock=clock.time, pause=pause)

    def fail() -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(
        StorageError, match=r"s3://b/a: cannot read: gave up after \d+ tries in \d s: the conn"
    ) as gave_up:
        retries.run("read", "a", fail)
    assert clock.now - 100 <= 5 and gave_up.value.hint
    retries.run("read", "a", lambda: None)  # it has answered: from now on more patience
    clock.now, start = 5000.0, 5000.0
    pauses.clear()
    with pytest.raises(StorageError, match="gave up"):
        retries.run("read", "a", fail)
    assert 100 < clock.now - start <= 120
    for number, seconds in enumerate(pauses):
        longest = min(10, 0.2 * 2**number)
        assert longest / 2 <= seconds <= longest
    assert len(set(pauses)) == len(pauses), "drawn by lot"


def test_an_error_that_is_a_bug_stays_one() -> None:
    retries = s3_retry.Retries("s3://b", S3Options())
    with pytest.raises(KeyError):
        retries.run("read", "a", lambda: {}["bug"])
