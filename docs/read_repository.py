"""An independent reader of holdfast repositories, written from docs/format.md alone, with public libraries only.

    python docs/read_repository.py REPOSITORY KEY MANIFEST TARGET
REPOSITORY is a directory; KEY a file that holds a key line (holdfast-key-1 …) or a passphrase; MANIFEST the start of an
id, or "latest" where there is one series. Simple rather than fast: tables are ignored, every pack is read, every copy of
a chunk is tried. Modes and times come back, owners and extended attributes do not; hard links become copies, fifos and
devices are skipped with a note. Exit status: 0, or 1 if anything was found damaged, which is named.
"""

import os
import struct
import sys
import unicodedata
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

import msgpack
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

MANIFEST, TOMBSTONE, DATA, METADATA, FILE, DIRECTORY, SYMLINK, STREAM = 2, 3, 10, 11, 0, 1, 2, 6
HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
HOLE, found_damaged = bytes(32), []


def check(holds, why):
    if not holds:
        raise ValueError(why)


@contextmanager
def noting(what):  # damage that is met within is named, and costs no more than what is within
    try:
        yield
    except Exception as error:  # damaged bytes can fail in any library
        print(f"{what}: {error or type(error).__name__}", file=sys.stderr)
        found_damaged.append(what)


def derive(label, material):
    return blake3(material, derive_key_context="holdfast 1 " + label).digest()


def open_hpke(private, sealed, info):  # section 2
    kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(private[:64])
    curve = x25519.X25519PrivateKey.from_private_bytes(private[64:])
    return HPKE.decrypt(sealed, MLKEM768X25519PrivateKey(kem, curve), info=info)


def first_whole(what, copies, read):
    for copy in copies:
        with noting(what):
            return read(*copy)
    raise ValueError(f"{what} is lost")


def read_signed(path, what, public=None):  # sections 3 and 4: maps that are read without any key
    head, encoded, *between, signature = msgpack.unpackb(path.read_bytes())
    body = msgpack.unpackb(encoded)
    check(head == "holdfast " + what and body["format"] == 1, f"is no {what} of format 1")
    public = public or (between[0] if what == "config" else body["sign_public"])
    signer = ed25519.Ed25519PublicKey.from_public_bytes(public)
    signer.verify(signature, f"holdfast 1 {what}".encode() + encoded)
    return body, public


class Repository:
    def __init__(self, root, secret):
        self.root, self.keys, self.frames, self.chunks = root, {}, {}, {}
        self.read_config()
        self.open_keys(secret)
        for path in root.glob("packs/??/" + "?" * 64):
            with noting(path):
                self.read_pack(path)

    def read_config(self):  # section 3
        number = max((int(path.name.removesuffix(".copy")) for path in self.root.glob("config/*")), default=0)
        config = None
        for path in (self.root / f"config/{number}.copy", self.root / f"config/{number}"):
            with noting(path):
                read, self.owner = read_signed(path, "config")
                check(read["number"] == number, "is another config")
                check(read["repository"] == derive("repository", self.owner), "is of another owner")
                config = read
        check(config, "there is no repository, or its newest config does not hold")
        check(not config["features"].get("read"), f"needs {config['features'].get('read')}, unknown here")
        check(all(epoch["suite"] == 1 for epoch in config["epochs"]), "has an epoch of an unknown suite")
        self.id, self.roster = config["repository"], {line["signer"]: line for line in config["roster"]}

    def open_keys(self, secret):  # section 4
        key = secret.lower().split() if secret.lower().startswith("holdfast-key-") else None
        if key:
            check(key[:2] == ["holdfast-key-1", self.id.hex()], "the key is of another repository or format")
            check(blake3(" ".join(key[:4]).encode()).hexdigest()[:8] == key[4], "the key line is mistyped")
        for line in self.roster.values():
            if "until" not in line and (not key or key[2] == line["slot"]):
                for path in sorted(self.root.glob(f"keys/{line['slot']}-*"), reverse=True):
                    with noting(path):
                        if private := self.open_slot(line, path, key, secret):
                            return self.open_bundles(line["slot"], line["role"], private)
        raise ValueError("the key opens no slot")

    def open_slot(self, line, path, key, passphrase):
        slot, public = read_signed(path, "slot")
        here = (public, slot["repository"], f"{slot['slot']}-{slot['number']}")
        check(here == (line["public"], self.id, path.name.removesuffix(".copy")), "is of another slot")
        if key and slot["method"] == "key file":
            kek = derive("slot key file", bytes.fromhex(key[3]) + slot["salt"])
        elif not key and slot["method"] == "passphrase":
            memory, passes, lanes = (slot["kdf"][cost] for cost in ("memory_kib", "iterations", "lanes"))
            check(64 << 10 <= memory <= 4 << 20 and 3 <= passes <= 64 and 1 <= lanes <= 64, "bad costs")
            argon = Argon2id(salt=slot["salt"], length=32, memory_cost=memory, iterations=passes, lanes=lanes)
            kek = argon.derive(unicodedata.normalize("NFC", passphrase).encode())
        else:
            return None
        bound = b"holdfast 1 slot" + self.id + line["slot"].encode()
        fits = derive("slot check", kek)[:16] == slot["check"]
        return AESGCM(kek).decrypt(bytes(12), slot["wrapped"], bound)[:96] if fits else None

    def open_bundles(self, slot, role, private):
        for path in self.root.glob(f"keys/{slot}.*"):
            with noting(path):
                body, _ = read_signed(path, "bundle", self.owner)
                epoch, here = body["epoch"], (body["repository"], body["role"], f"{slot}.{body['epoch']}")
                check(here == (self.id, role, path.name.removesuffix(".copy")), "is of another slot or epoch")
                info = (
                    b"holdfast 1 bundle" + self.id + slot.encode() + struct.pack("<I", epoch) + role.encode()
                )
                self.keys[epoch] = msgpack.unpackb(open_hpke(private, body["sealed"], info))
        check(self.keys, "no bundle opens")
        id_key = self.keys[max(self.keys)]["id_key"]
        self.id_keys = {DATA: derive("data chunk id", id_key), METADATA: derive("metadata chunk id", id_key)}

    def open_object(self, data, kinds, subject):  # section 5
        magic, version, kind, zero, epoch, last, salt, commitment = struct.unpack_from("<4sBBHII32s16s", data)
        check((magic, version, zero, last) == (b"HFSO", 1, 0, 0) and kind in kinds, f"is of kind {kind}")
        key = derive("sealed object", self.keys[epoch]["metadata_key"] + bytes([kind]) + salt)
        check(derive("sealed commitment", key)[:16] == commitment, "was sealed under another key")
        plain = AESGCM(key).decrypt(bytes(12), data[64:], self.id + data[:64])
        codec, length = struct.unpack_from("<BI", plain)
        payload = plain[5 : 5 + length]
        check(codec < 2 and not any(plain[5 + length :]), "has an unknown codec or padding")
        if codec:
            check(0 <= zstandard.frame_content_size(payload) <= 64 << 20, "has a size above the limit")
            payload = zstandard.ZstdDecompressor().decompress(payload)
        signature, line, body = payload[:64], self.roster[payload[64:80]], payload[80:]
        check(kind in line["kinds"] and epoch <= line.get("until", epoch), "its signer may not sign it")
        place = self.id + struct.pack("<BIH", kind, epoch, len(subject)) + subject.encode()
        signer = ed25519.Ed25519PublicKey.from_public_bytes(line["public"])
        signer.verify(signature, b"holdfast 1 signature" + place + body)
        return kind, msgpack.unpackb(body)

    def read_pack(self, path):  # section 6
        data = path.read_bytes()
        magic, version, kind, zero, tail, frames = struct.unpack("<4sBBHII", data[-16:])
        check((magic, version, zero) == (b"HFPK", 1, 0), "does not end like a pack")
        check(frames + tail + 16 == len(data) <= 64 << 20, "does not account for every byte")
        _, body = self.open_object(data[frames:-16], {kind} & {DATA, METADATA}, "")
        lengths = iter(struct.iter_unpack("<I", body["lengths"]))
        ids = (body["ids"][at : at + 32] for at in range(0, len(body["ids"]), 32))
        for row in struct.iter_unpack("<HBBIIIII20sI", body["frames"]):
            key, codec, _, ordinal, at, sealed, length, count, base, _ = row
            name, start = body["keys"][key][0] + struct.pack("<I", ordinal), 0
            where = (name, path, kind, body["keys"][key], codec, at, sealed, length, base)
            self.frames.setdefault(name, []).append(where)
            for _ in range(count):
                (chunk_bytes,), chunk_id = next(lengths), next(ids)
                self.chunks.setdefault((kind, chunk_id), []).append((name, start, chunk_bytes))
                start += chunk_bytes

    @lru_cache(32)  # noqa: B019 -- there is one repository, for as long as the program runs
    def frame(self, name):
        return first_whole(f"frame {name.hex()}", self.frames.get(name, ()), self.open_frame)

    def open_frame(self, name, path, kind, sealed_key, codec, at, sealed, length, base):
        (origin, epoch, suite, key), ordinal = sealed_key, name[16:]
        check(codec <= 2 and suite == (kind == DATA), f"uses codec {codec} and suite {suite}")
        if suite == 1:
            key = open_hpke(self.keys[epoch]["data_private"], key, b"holdfast 1 pack key" + self.id + origin)
        else:
            key = derive("metadata pack key", self.keys[epoch]["metadata_key"] + key)
        check(derive("origin", self.id + key)[:16] == origin, "its key is of another origin")
        with path.open("rb") as file:
            data = os.pread(file.fileno(), sealed, at)
        bound = self.id + bytes([32 if kind == DATA else 33]) + name + bytes([codec]) + base
        data = AESGCM(key).decrypt(ordinal + bytes(8), data, bound)
        if codec:
            check(zstandard.frame_content_size(data) == length <= 8 << 20, "has another size than stated")
            raw, prefix = zstandard.DICT_TYPE_RAWCONTENT, self.frame(base) if codec == 2 else b""
            decompressor = zstandard.ZstdDecompressor(zstandard.ZstdCompressionDict(prefix, dict_type=raw))
            return decompressor.decompress(data)
        return data

    def chunk(self, kind, chunk_id):
        def read(name, start, length):
            data = self.frame(name)[start : start + length]
            check(blake3(data, key=self.id_keys[kind]).digest() == chunk_id, "something else is there")
            return data

        return first_whole(f"chunk {chunk_id.hex()}", self.chunks.get((kind, chunk_id), ()), read)

    def manifests(self):  # section 8
        for path in sorted(self.root.glob("manifests/*")):
            with noting(path):
                data, kinds = path.read_bytes(), (MANIFEST, TOMBSTONE)
                kind, body = self.open_object(data, kinds, "manifests/" + path.name)
                check(body["format"] == 1, f"has format {body['format']}; this reader reads format 1")
                if kind == MANIFEST and not (self.root / "forgotten" / path.name).exists():
                    yield body

    def node(self, node_id, height):  # section 9
        found, *rest = msgpack.unpackb(self.chunk(METADATA, node_id))
        check(found == height <= 8, "a tree node has another height")
        return rest

    def entries(self, node_id, height):
        with noting("part of the entry tree"):
            for first, *rest in self.node(node_id, height)[0]:
                if height:
                    yield from self.entries(rest[0], height - 1)
                else:
                    yield from (((*first, entry[0]), entry) for entry in rest[0])

    def pairs(self, content, size):
        first, second = [content, [size]] if isinstance(content, bytes) else content or (b"", [])
        if second == 0:
            first, second = self.node(first, 0)
        if isinstance(second, list):
            yield from ((first[32 * at : 32 * at + 32], length) for at, length in enumerate(second))
        else:
            for child, child_bytes in self.node(first, second)[0]:
                yield from self.pairs([child, second - 1], child_bytes)


def restore(repository, entries, location):  # standing where it writes, no link or long path can mislead it
    os.mkdir(location)
    os.chdir(location)
    above = []
    for path, entry in (*entries, ((), None)):
        while above and path[: len(above[-1][0])] != above[-1][0]:
            os.chdir("..")
            name, _, mode, _, _, mtime, *_ = above.pop()[1]
            os.chmod(name, mode)
            os.utime(name, ns=(mtime, mtime))
        with noting(b"/".join(path)):
            if entry:
                check((above[-1][0] if above else ()) == path[:-1], "its directory is not there")
                check(entry[0] not in (b"", b".", b"..") and not {0, 47} & {*entry[0]}, "its name is none")
                write(repository, entry)
            if entry and entry[1] == DIRECTORY:
                os.chdir(entry[0])
                above.append((path, entry))


def write(repository, entry):
    name, kind, mode, _, _, mtime, _, _, size, content, extra = entry
    if kind == DIRECTORY:
        os.mkdir(name, 0o700)
    elif kind == SYMLINK:
        os.symlink(extra["target"], name)
        os.utime(name, ns=(mtime, mtime), follow_symlinks=False)
    elif kind in (FILE, STREAM):
        with open(name, "xb") as file, ExitStack() as unless_whole:
            unless_whole.callback(os.unlink, name)
            for chunk_id, length in repository.pairs(content, size):
                data = b"" if chunk_id == HOLE else repository.chunk(DATA, chunk_id)
                check(chunk_id == HOLE or len(data) == length, "a chunk has another length")
                os.pwrite(file.fileno(), data, file.tell())
                file.seek(length, os.SEEK_CUR)
            check(file.tell() == file.truncate(size), "its chunks do not add up to its size")
            unless_whole.pop_all()
        os.chmod(name, mode)
        os.utime(name, ns=(mtime, mtime))
    else:
        print(f"{name}: skipped: a fifo or device", file=sys.stderr)


def main(root, key, wanted, location):
    repository = Repository(Path(root).resolve(), Path(key).read_text().rstrip("\n"))
    found = sorted(repository.manifests(), key=lambda body: (body["series"], body["sequence"]))
    chosen = [body for body in found if body["id"].hex().startswith(wanted)]
    if wanted == "latest":
        check(len({body["series"] for body in found}) == 1, "not one series: name a manifest")
        chosen = [body for body in found if body["status"] == "complete"][-1:]
    check(len(chosen) == 1, f"{wanted}: one of {[body['id'].hex() for body in found]} is needed")
    tree = chosen[0]["root"]
    restore(repository, repository.entries(*tree[:2]) if tree else (), location)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    with noting(sys.argv[1]):
        main(*sys.argv[1:])
    sys.exit(1 if found_damaged else 0)
