"""Make repository-1.json: a small repository of format 1 that every later version must open and read.

    PYTHONPATH=.:tests python tests/vectors/sealed/make_vectors.py FILE

It holds an owner's slot with a key file and one with a passphrase, a writer, a removed writer, two epochs, a change
of secret, and sealed objects of each epoch and signer. Copies are left
out: they have the same bytes. The keys are random: the file in the tree is never made anew.
"""

import base64
import json
import sys
from pathlib import Path

from support.repositories import NOW, Made, cheap, make_repository, open_second_epoch

from repo_store.key_ops import add_slot, change_secret, remove_slot
from repo_store.sealed import Kind, seal_object
from repo_store.two_copies import COPY

PASSPHRASE = "correct horse battery Zoë"


def main(path: Path) -> None:
    """Write the vectors to `path`, which must not exist."""
    made = make_repository()
    writer, removed = made.add("writer", "host-a"), made.add("writer", "host-b")
    add_slot(made.open(), secret=cheap(PASSPHRASE), role="owner", label="büro", now_ns=NOW)
    sealed: list[dict[str, object]] = []
    seal(sealed, made, removed, Kind.MANIFEST, "manifests/00")
    seal(sealed, made, writer, Kind.TABLE, "tables/01", subject="")
    remove_slot(made.open(), removed.slot, now_ns=NOW)
    open_second_epoch(made)
    seal(sealed, made, writer, Kind.PENDING, "pending/02")
    seal(sealed, made, made.key_file, Kind.MARK, "gc/0000000001.mark")
    owner = change_secret(made.open(), made.key_file, made.keys.new(), now_ns=NOW)
    assert owner is not None
    objects = made.storage.disk.objects()
    document = {
        "format": 1,
        "key_files": {"owner": owner.line, "writer": writer.line},
        "removed_key_file": removed.line,
        "changed_key_file": made.key_file.line,
        "passphrase": PASSPHRASE,
        "objects": {name: as_text(data) for name, data in objects.items() if not name.endswith(COPY)},
        "sealed": sealed,
    }
    with path.open("x") as file:
        file.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def as_text(data: bytes) -> str:
    """Return bytes as they stand in the file."""
    return base64.b64encode(data).decode()


def seal(
    sealed: list[dict[str, object]],
    made: Made,
    key: object,
    kind: Kind,
    name: str,
    *,
    subject: str | None = None,
) -> None:
    """Append an object sealed by the holder of a key file."""
    ring = made.open(key).ring  # type: ignore[arg-type]
    body = {"format": 1, "name": name, "repeated": "x" * 200}
    data = seal_object(ring, kind, body, subject=name if subject is None else subject)
    sealed.append(
        {
            "name": name,
            "kind": int(kind),
            "subject": name if subject is None else subject,
            "signer": ring.signer.hex(),
            "body": body,
            "data": as_text(data),
        }
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
