"""The connection to an S3 server: boto's client, made when the first request needs it, and what every request passes.

Importing botocore and making a client takes a third of a second; importing this module takes nothing, so that a
command which never gets as far as the storage does not pay for it. It is botocore and not boto3: what boto3 adds,
resources and transfers, is not used and takes 50 ms more; credentials, endpoint and region are found by the same code.
"""

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from repo_store.errors import UsageError
from repo_store.rate_limit import RateLimit
from repo_store.s3_body import Body, BodyReader
from repo_store.s3_errors import one_line
from repo_store.s3_model import new_session
from repo_store.s3_options import S3Options

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_s3.client import S3Client

EXPECT_BYTES_MIN = 1024 * 1024
"""Larger uploads first ask whether they are welcome: a refusal then costs no transfer. Smaller save the question."""

_ENDPOINT_EXAMPLE = "an endpoint is a URL, such as https://s3.example.org: AWS_ENDPOINT_URL or endpoint_url"
_BUNDLE_HINT = (
    "a bundle is a file of certificates in PEM: --s3-ca-bundle, AWS_CA_BUNDLE, or ca_bundle in ~/.aws/config"
)


class S3Connection:
    """One client with its own connections, the limits on them, and a count of what was asked."""

    def __init__(self, options: S3Options, session: "Session | None" = None) -> None:
        self._options = options
        self._session = session
        self._client: S3Client | None = None
        self._lock = threading.Lock()
        self._upload = RateLimit(options.upload_bytes_per_second)
        self.download = RateLimit(options.download_bytes_per_second)
        self.requests: Counter[str] = Counter()

    @property
    def client(self) -> "S3Client":
        """The client. Raises UsageError for an endpoint or authorities that are none, and what boto raises where it
        finds no profile."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def reader(self, body: Body) -> BodyReader:
        """Return a body as boto sends it, at the limit for uploads."""
        return BodyReader(body, self._upload)

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _make(self) -> "S3Client":
        from botocore.config import Config

        config = Config(
            # Our own loop tries again: s3_retry.py.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=self._options.connect_seconds,
            read_timeout=self._options.read_seconds,
            max_pool_connections=self._options.connections,
            tcp_keepalive=True,
            # We send a checksum of our own in a header, which every server understands or ignores; boto's in a
            # trailer is refused by some. What is read is checked by its reader: everything stored is authenticated.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra="holdfast",
        )
        # Config(s3=…) is left alone: it would replace what a user has set there, such as addressing_style.
        session = self._session or new_session()
        bundle = self._options.ca_bundle or session.get_config_variable("ca_bundle")
        where: dict[str, Any] = {
            "endpoint_url": self._options.endpoint,
            "region_name": self._options.region,
            "verify": bundle,
        }
        try:
            made: Any = session.create_client("s3", config=config, **where)
        except ValueError as error:
            raise UsageError(one_line(str(error)), hint=_ENDPOINT_EXAMPLE) from error
        client = cast("S3Client", made)
        if client.meta.endpoint_url.startswith("https://"):
            _leave_payload_to_tls(client)
            if isinstance(bundle, str):
                _require_bundle(bundle)
        client.meta.events.register_last("before-call.s3", _no_question_for_little)
        client.meta.events.register_last("before-send.s3", self._on_send)
        return client

    def _on_send(self, request: Any, event_name: str, **_: object) -> None:
        operation = event_name.rpartition(".")[2]
        with self._lock:
            self.requests[operation] += 1
        if isinstance(request.body, BodyReader):
            request.body.start_sending()


def _leave_payload_to_tls(client: "S3Client") -> None:
    """Do not hash what is uploaded for the signature as well: TLS and the checksum already keep it whole.

    boto decides so itself where it computes the checksum. It asks these settings at every request.
    """
    config: Any = client.meta.config
    config.s3 = {"payload_signing_enabled": False} | (config.s3 or {})


def _no_question_for_little(params: dict[str, Any], **_: object) -> None:
    """Drop "Expect: 100-continue", which boto adds to every upload: it costs a round trip."""
    body = params.get("body")
    if isinstance(body, BodyReader) and body.size < EXPECT_BYTES_MIN:
        params["headers"].pop("Expect", None)


def _require_bundle(path: str) -> None:
    """Raise UsageError for a bundle that cannot be used: boto would look for it at every request, and call each
    failure one of the line."""
    import ssl

    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise UsageError(f"{path}: holds no certificates", hint=_BUNDLE_HINT) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: cannot be read: {reason}", hint=_BUNDLE_HINT) from None
