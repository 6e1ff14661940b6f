"""Multipart: an object too large for one request goes up in parts, several at once, and appears when all are there.

    CreateMultipartUpload ── UploadPart × n ── CompleteMultipartUpload (If-None-Match: *)

The parts are views of the caller's memory, so nothing is held twice; `part_threads` are under way at a time. An upload
that does not come to its end is aborted, as parts left behind cost money and show in no listing; where even that
fails, or the process is killed, the bucket's lifecycle rule removes them (docs/s3.md).

The condition is weaker here than for a single request: of two uploads of one name that are completed at the same
instant some servers let both win (SeaweedFS 4.48 does), though one that is completed later never wins. Repositories
do not depend on it: only packs and tables are so large, and their names are the hashes of their bytes.
"""

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from repo_store.errors import StorageError
from repo_store.s3_body import Body
from repo_store.s3_client import S3Connection
from repo_store.s3_errors import GarbledAnswer, Verdict
from repo_store.s3_options import S3Options
from repo_store.s3_retry import Retries, Told

Part = Mapping[str, Any]


class MultipartUpload:
    """One upload of one body; `place` is its bucket and key as parameters of boto."""

    def __init__(
        self,
        connection: S3Connection,
        retries: Retries,
        options: S3Options,
        name: str,
        place: Mapping[str, str],
        body: Body,
    ) -> None:
        self._connection, self._retries, self._options = connection, retries, options
        self._name = name
        self._place: dict[str, Any] = dict(place)
        self._body = body
        self._stop = threading.Event()

    def run(self, condition: Mapping[str, str]) -> None:
        """Upload it. Raises Told if the condition did not hold, or if the server no longer knows of the upload:
        an acknowledgement was lost, somebody aborted it, or another writer came between. Then look what is there."""
        self._place["UploadId"] = self._begin()
        try:
            self._complete(self._upload_parts(), condition)
        except BaseException:
            self._abort()
            raise

    def _begin(self) -> str:
        headers: dict[str, Any] = self._options.headers(self._body.size)

        def attempt() -> str:
            client = self._connection.client
            answer = client.create_multipart_upload(**self._place, **headers, ChecksumAlgorithm="CRC32")
            return _require(answer, "UploadId")

        return self._retries.run("write", self._name, attempt)

    def _upload_parts(self) -> list[Part]:
        """Upload all parts and return what completes the upload. The first failure stops the rest."""
        from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

        step, size = self._options.part_size(self._body.size), self._body.size
        with ThreadPoolExecutor(self._options.part_threads, thread_name_prefix="part") as pool:
            futures: list[Future[Part]] = [
                pool.submit(self._upload_part, number, self._body.part(start, start + step))
                for number, start in enumerate(range(0, size, step), 1)
            ]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                # The one that failed first, not one that only stopped because of it.
                failed = [future for future in futures if future.done() and future.exception()]
                return [future.result() for future in failed or futures]
            finally:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)

    def _upload_part(self, number: int, body: Body) -> Part:
        checksum = body.crc32()

        def attempt() -> str:
            reader: Any = self._connection.reader(body)
            answer = self._connection.client.upload_part(
                **self._place, PartNumber=number, ChecksumCRC32=checksum, Body=reader
            )
            return _require(answer, "ETag")

        tag = self._retries.run("write", self._name, attempt, hear=[Verdict.NO_UPLOAD], stop=self._stop)
        return {"PartNumber": number, "ETag": tag, "ChecksumCRC32": checksum}

    def _complete(self, parts: list[Part], condition: Mapping[str, Any]) -> None:
        # A conflict is heard and not tried again: the server wants the whole upload anew.
        heard = [Verdict.EXISTS, Verdict.NO_UPLOAD, Verdict.CONFLICT]
        every: Any = {"Parts": parts}

        def attempt() -> str:
            client = self._connection.client
            answer = client.complete_multipart_upload(**self._place, **condition, MultipartUpload=every)
            return _require(answer, "ETag")

        self._retries.run("write", self._name, attempt, hear=heard)

    def _abort(self) -> None:
        """Remove the parts, if it can be done at once: another error is on its way, and must not wait for this one."""
        self._stop.set()
        with suppress(StorageError, Told):
            self._retries.run(
                "abort",
                self._name,
                lambda: self._connection.client.abort_multipart_upload(**self._place),
                hear=[Verdict.NO_UPLOAD, Verdict.MISSING],
                stop=self._stop,
            )


def _require(answer: Mapping[str, Any], field: str) -> str:
    """Return a field without which an answer is no success: boto takes one that was cut off for an empty one."""
    value = answer.get(field)
    if not value:
        raise GarbledAnswer(f"an answer without {field}")
    return str(value)
