"""S3Storage: a repository in a bucket of an S3-compatible server.

The object `packs/ab/abcd` has the key `<prefix>packs/ab/abcd`. What makes it keep the contract:

1. A put never replaces: `If-None-Match: *`, also where a multipart upload is completed. A server that ignores the
   condition is refused by the probe.
2. An acknowledgement may be lost: the first try of a put succeeds, its answer does not arrive, the next try finds the
   object. So "exists" is never taken for an answer: what is there is read back, and the same bytes are success.
3. A server answers after it has stored, and every reader sees at once what was stored: a put is durable on return,
   and `barrier` has nothing to do but to look for the objects of others.
4. An answer that was cut off is an error. boto takes an empty one for "nothing there"; here it counts only with
   the field that every whole answer has.
5. The order of a listing is never relied on.

Whatever else happens is tried again for a while (s3_retry.py) and ends in one line of text (s3_errors.py). Keys that
are no object names are left alone and never listed.
"""

import builtins
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repo_store.errors import ObjectConflict, ObjectMissing, StorageError
from repo_store.object_names import check_name, check_prefix, is_name
from repo_store.s3_body import Body
from repo_store.s3_client import S3Connection
from repo_store.s3_download import Download
from repo_store.s3_errors import GarbledAnswer, Verdict
from repo_store.s3_multipart import MultipartUpload
from repo_store.s3_options import MIB, S3Options, parse_s3_location
from repo_store.s3_retry import Retries, Told
from repo_store.storage import Buffer, ObjectInfo

if TYPE_CHECKING:
    from botocore.session import Session

_COMPARE_BYTES = 8 * MIB
_PUT_ROUNDS_MAX = 8
_LOOKERS_MAX = 8
_ONLY_IF_NEW = {"IfNoneMatch": "*"}


class S3Storage:
    """Storage in a bucket. See repo_store.storage.Storage for the contract.

    Opening one sends nothing: that there is no bucket, or no right to use it, shows with the first request.
    """

    def __init__(
        self, location: str, options: S3Options | None = None, *, session: "Session | None" = None
    ) -> None:
        """Open `s3://bucket/prefix`. Raises UsageError for what cannot be one. `session` is one of botocore; without
        it there is a new one, which looks for its settings in the environment and the files of AWS."""
        self._at = parse_s3_location(location)
        self.location = str(self._at)
        self._options = options or S3Options()
        self._connection = S3Connection(self._options, session)
        self._retries = Retries(self.location, self._options)
        self._bucket_seen = False

    @property
    def requests(self) -> Counter[str]:
        """How many requests of which kind were sent, every try counted."""
        return self._connection.requests

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        """Create an object; see Storage.put."""
        check_name(name)
        body = Body(data)
        for _ in range(_PUT_ROUNDS_MAX):
            try:
                return self._upload(name, body, _ONLY_IF_NEW)
            except Told:
                held = self._holds(name, body)
                if held is not None:
                    if not held:
                        raise ObjectConflict(name) from None
                    return None
        raise StorageError(f"{self.location}/{name}: cannot write: the object comes and goes")

    def barrier(self, names: Iterable[str] = ()) -> None:
        """Nothing is left to do for what was put: see 3. above. Of `names` it is made sure that they are there."""
        named = {check_name(name): None for name in names}
        if len(named) < 2:
            for name in named:
                self.info(name)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_LOOKERS_MAX, thread_name_prefix="look") as pool:
            for _ in pool.map(self.info, named):
                pass

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object; see Storage.get. A broken transfer goes on where it broke."""
        assert length is None or length >= 0
        check_name(name)
        if length == 0:
            self.info(name)
            return b""
        download = Download(self._connection, self._place(name), offset, length)
        try:
            while not self._retries.run("read", name, download.go_on, hear=[Verdict.PAST_END]):
                pass
        except Told:
            return b""
        return download.data()

    def info(self, name: str) -> ObjectInfo:
        """Return size and date of an object; see Storage.info."""
        place = self._place(check_name(name))

        def attempt() -> ObjectInfo:
            answer: Any = self._connection.client.head_object(**place)
            return _info(name, answer, "ContentLength")

        try:
            return self._retries.run("read", name, attempt)
        except ObjectMissing:
            # The answer to a HEAD has no body, so it does not say whether the object or the bucket is missing.
            self._require_bucket()
            raise

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose name starts with `prefix`; see Storage.list."""
        return self._listed(check_prefix(prefix))

    def delete(self, name: str) -> None:
        """Remove an object; see Storage.delete."""
        place = self._place(check_name(name))
        try:
            self._retries.run("delete", name, lambda: self._connection.client.delete_object(**place))
        except ObjectMissing:
            return  # S3 calls it success; some servers say that there was none

    def replace(self, name: str, data: Buffer) -> None:
        """Put `data` in place of a damaged object; see Storage.replace."""
        check_name(name)
        for _ in range(_PUT_ROUNDS_MAX):
            try:
                return self._upload(name, Body(data), {})
            except Told:
                continue  # the server forgot a multipart upload, or says so of one that it completed: once more
        raise StorageError(f"{self.location}/{name}: cannot replace: the server keeps forgetting the upload")

    def close(self) -> None:
        """Close the connections. The storage can still be used: it opens new ones."""
        self._connection.close()

    def _upload(self, name: str, body: Body, condition: dict[str, Any]) -> None:
        """Upload an object. Raises Told if it exists already, or if nobody knows whether the upload was completed."""
        place = self._place(name)
        if body.size >= self._options.multipart_bytes_min:
            upload = MultipartUpload(self._connection, self._retries, self._options, name, place, body)
            return upload.run(condition)
        headers: dict[str, Any] = self._options.headers(body.size)
        checksum = body.crc32()

        def attempt() -> None:
            reader: Any = self._connection.reader(body)
            self._connection.client.put_object(
                **place, **condition, **headers, ChecksumCRC32=checksum, Body=reader
            )

        return self._retries.run("write", name, attempt, hear=[Verdict.EXISTS])

    def _holds(self, name: str, body: Body) -> bool | None:
        """Return whether the object has exactly these bytes, reading a little at a time; None if it is gone again."""
        start = 0
        try:
            while True:
                # One byte more than there should be, to see that there is none.
                wanted = min(_COMPARE_BYTES, body.size - start)
                found = self.get(name, start, wanted + 1)
                if not body.has_at(start, found[:wanted]) or len(found) < wanted:
                    return False
                start += wanted
                if start == body.size:
                    return len(found) == wanted
        except ObjectMissing:
            return None

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        token: str | None = None
        while True:
            infos, token = self._page(prefix, token)
            yield from infos
            if token is None:
                return

    def _page(self, prefix: str, token: str | None) -> tuple[builtins.list[ObjectInfo], str | None]:
        """Return one page of a listing, and the token of the next page if there is one."""
        asked: dict[str, Any] = {"Bucket": self._at.bucket, "Prefix": self._at.prefix + prefix}
        if token is not None:
            asked["ContinuationToken"] = token

        def attempt() -> tuple[builtins.list[ObjectInfo], str | None]:
            answer: Any = self._connection.client.list_objects_v2(**asked)
            following = answer.get("NextContinuationToken")
            if "IsTruncated" not in answer or (answer["IsTruncated"] and not following):
                raise GarbledAnswer("a listing without its end")
            cut = len(self._at.prefix)
            named = ((entry.get("Key", "")[cut:], entry) for entry in answer.get("Contents", ()))
            infos = [_info(name, entry, "Size") for name, entry in named if is_name(name)]
            return infos, following if answer["IsTruncated"] else None

        return self._retries.run("list", prefix, attempt)

    def _require_bucket(self) -> None:
        """Raise StorageError if there is no bucket."""
        if not self._bucket_seen:
            self._page("probe/", None)
            self._bucket_seen = True

    def _place(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._at.bucket, "Key": self._at.prefix + name}


def _info(name: str, answer: Mapping[str, Any], size: str) -> ObjectInfo:
    """Return an object as an answer has it, its size in the field `size`. Raises GarbledAnswer.

    The date is in whole seconds: the header of an object has no more, and a listing must say the same.
    """
    when = answer.get("LastModified")
    if answer.get(size) is None or when is None:
        raise GarbledAnswer("an object without its size or date")
    return ObjectInfo(name, answer[size], int(when.timestamp()) * 1_000_000_000)
