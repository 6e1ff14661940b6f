"""Tar streams: every member of every form of archive, and no archive that is not whole."""

import gc
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tars import Member, archive, member, reading, with_checksum

from engine.sources.tar_stream import HEADER_BYTES_MAX, TarStream
from repo_store.errors import SourceError

FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)

MEMBERS = [
    member("directory", type=tarfile.DIRTYPE, mode=0o750),
    member("directory/file", b"content" * 100),
    member("empty"),
    member("x" * 90 + "/" + "y" * 90, b"1"),
    member("link", type=tarfile.SYMTYPE, linkname="directory/file"),
    member("hard", type=tarfile.LNKTYPE, linkname="directory/file"),
    member("block", b"b" * 512),
]


def read_all(data: bytes, piece: int = 1 << 20, *, end_marked: bool = True) -> list[tuple[str, bytes]]:
    stream = TarStream(reading(data, piece), end_marked=end_marked)
    found = []
    for each in stream.members():
        content, buffer = b"", bytearray(100)
        while count := stream.read_into(memoryview(buffer)):
            content += buffer[:count]
        found.append((each.name, content))
    return found


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_every_member_is_read_however_the_pipe_gives_it(format: int, piece: int) -> None:
    assert read_all(archive(MEMBERS, format), piece) == [(name, data) for name, _, data in MEMBERS]


def test_what_is_not_asked_for_is_passed_over() -> None:
    names = [each.name for each in TarStream(reading(archive(MEMBERS))).members()]
    assert names == [name for name, _, _ in MEMBERS]


def end_of_members(data: bytes) -> int:
    """Where the zeros begin that end the archive."""
    return -(-len(data.rstrip(b"\0")) // 512) * 512


@pytest.mark.parametrize("format", FORMATS)
def test_an_archive_that_breaks_off_anywhere_is_refused(format: int) -> None:
    data = archive(MEMBERS, format)
    end = end_of_members(data)
    for cut in {*range(0, end, 512), *range(1, end, 97), end - 1, end, end + 1, end + 511}:
        with pytest.raises(SourceError):
            read_all(data[:cut])
    for cut in (end + 512, end + 513, end + 1024):
        assert read_all(data[:cut]) == read_all(data)


def test_an_archive_that_is_said_to_have_no_mark_may_end_between_members() -> None:
    data = archive(MEMBERS)
    end = end_of_members(data)
    assert read_all(data[:end], end_marked=False) == read_all(data) == read_all(data, end_marked=False)
    for cut in (0, 100, 600, end - 1, end - 512, end + 1):
        with pytest.raises(SourceError):
            read_all(data[:cut], end_marked=False)


def test_every_bit_of_a_header_counts() -> None:
    """A wrong header in the middle is what tarfile takes for the end: here it is damage."""
    data = archive([member("one", b"1"), member("two", b"2"), member("three", b"3")], tarfile.USTAR_FORMAT)
    for at in range(1024, 1024 + 512, 3):
        for bit in (0, 6):
            spoilt = bytearray(data)
            spoilt[at] ^= 1 << bit
            try:
                found = read_all(bytes(spoilt))
            except SourceError:
                continue
            # Blanks and zeros around a checksum say the same.
            assert found == read_all(data) and 148 <= at - 1024 < 156


def test_a_header_of_zeros_in_the_middle_is_not_the_end() -> None:
    data = archive([member("one", b"1"), member("two", b"2"), member("three", b"3")], tarfile.USTAR_FORMAT)
    spoilt = data[:1024] + bytes(512) + data[1536:]
    with pytest.raises(SourceError, match="data follows the end of the tar stream"):
        read_all(spoilt)


@given(st.data())
@settings(max_examples=settings.default.max_examples // 2)
def test_whatever_comes_in_ends_or_is_refused(data: st.DataObject) -> None:
    spoilt = bytearray(archive(MEMBERS, data.draw(st.sampled_from(FORMATS))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        size = data.draw(st.integers(1, 40))
        spoilt[at : at + size] = data.draw(st.binary(max_size=40))
    if data.draw(st.booleans()):  # with checksums that hold, so that the fields are believed
        for start in range(0, len(spoilt) - 511, 512):
            spoilt[start : start + 512] = with_checksum(bytes(spoilt[start : start + 512]))
    try:
        read_all(bytes(spoilt))
    except SourceError as error:
        assert "tar stream" in str(error)


def raw_header(name: bytes, type: bytes, size: bytes, data: bytes = b"") -> bytes:
    header = (
        name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"00000000000\0" + b" " * 8 + type
    )
    return with_checksum(header.ljust(512, b"\0")) + data.ljust(-(-len(data) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(raw_header(b"x", b"0", b"\xff" * 12), id="a negative size"),
        pytest.param(raw_header(b"x", b"0", b"\x80" + b"\x7f" * 11), id="a size beyond any file"),
        pytest.param(raw_header(b"x", b"x", b"77777777777\0"), id="a long name of 8 GiB"),
        pytest.param(raw_header(b"x", b"L", b"00010000000\0", bytes(2**21)) * 9, id="long names without end"),
        pytest.param(raw_header(b"x", b"L", b"00000000001\0", b"a") * 3000, id="headers of headers"),
        pytest.param(raw_header(b"x", b"x", b"00000000010\0", b"10 size=x\n"), id="a pax header and no file"),
        pytest.param(raw_header(b"x", b"x", b"00000000010\0", b"0 path=abc"), id="a pax record of no bytes"),
        pytest.param(b"no tar at all" * 1000, id="no tar at all"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_hostile_headers_are_refused_in_bounded_memory(data: bytes) -> None:
    with pytest.raises(SourceError):
        read_all(data + bytes(1024)) if data else read_all(data)


def pax_sparse(pax: str, size: int, data: bytes) -> bytes:
    """A file with what GNU tar says of holes in a pax header."""
    fields: dict[str, str] = dict(each.split("=", 1) for each in pax.split("; "))
    return archive([("sparse", {"pax_headers": fields, "size": len(data)}, data), member("next", b"n")])


@pytest.mark.parametrize(
    ("pax", "data"),
    [
        ("GNU.sparse.map=10,5,5,9; GNU.sparse.size=100", b"a" * 14),
        ("GNU.sparse.map=10,500; GNU.sparse.size=100", b"a" * 500),
        ("GNU.sparse.map=-5,10; GNU.sparse.size=100", b"a" * 10),
        ("GNU.sparse.map=1,x; GNU.sparse.size=100", b"a" * 10),
        ("GNU.sparse.map=1,2,3; GNU.sparse.size=-1", b"a" * 10),
        ("GNU.sparse.major=1; GNU.sparse.minor=0; GNU.sparse.realsize=100", b"9" * 2000),
        ("GNU.sparse.map=0,1; GNU.sparse.size=1180591620717411303424", b"a"),
    ],
)
def test_a_map_of_a_sparse_file_that_cannot_be_is_refused(pax: str, data: bytes) -> None:
    with pytest.raises(SourceError):
        read_all(pax_sparse(pax, 100, data))


def test_the_map_of_a_sparse_file_says_where_its_bytes_belong() -> None:
    stream = TarStream(reading(pax_sparse("GNU.sparse.map=3,2,50,4; GNU.sparse.size=100", 100, b"abcdef")))
    found = [(each.name, each.size, stream.extents()) for each in stream.members()]
    assert found == [("sparse", 100, [(3, 5), (50, 54)]), ("next", 1, [(0, 1)])]


def test_a_sparse_file_whose_size_stands_in_a_pax_header_ends_where_its_data_does() -> None:
    """As GNU tar writes one with more than 8 GiB of data; tarfile takes the size with holes for that of the data."""
    data = b"1\n3\n2\n".ljust(512, b"\0") + b"ab"
    pax = "GNU.sparse.major=1; GNU.sparse.minor=0; GNU.sparse.name=s; GNU.sparse.realsize=100000"
    stream = TarStream(reading(pax_sparse(f"{pax}; size={len(data)}", 0, data)))
    found = [(each.name, each.size, stream.extents()) for each in stream.members()]
    assert found == [("s", 100_000, [(3, 5)]), ("next", 1, [(0, 1)])]


@pytest.mark.parametrize("size", [b"77777777777\0", b"00100000000\0"])
def test_a_header_beyond_the_limit_is_refused_before_it_is_read(size: bytes) -> None:
    with pytest.raises(SourceError, match=f"larger than {HEADER_BYTES_MAX} bytes"):
        read_all(raw_header(b"x", b"x", size) + bytes(2**24))


def test_an_empty_buffer_is_not_the_end() -> None:
    """Who reads part after part asks for nothing at the end of each."""
    stream = TarStream(reading(archive([member("a", b"12")])))
    next(stream.members())
    buffer = memoryview(bytearray(1))
    assert [stream.read_into(buffer[:n]) for n in (0, 1, 0, 1, 0, 1)] == [0, 1, 0, 1, 0, 0]


def test_no_member_is_remembered() -> None:
    """tarfile keeps a list of all members, which would grow with the archive."""
    read: list[int] = []
    one = archive([member("file", b"1")])[:1024]
    stream = TarStream(reading(one * 5000 + bytes(1024)))
    for at, _ in enumerate(stream.members()):
        if at % 2000 == 1000:
            read.append(sum(isinstance(each, tarfile.TarInfo) for each in gc.get_objects()))
    assert max(read) < 10
    assert HEADER_BYTES_MAX < 2**24


def test_names_that_are_no_text_come_as_they_are() -> None:
    names = ["caf\udce9", "ü", "new\nline"]
    for format in FORMATS:
        members: list[Member] = [member(name, b"1") for name in names]
        assert [name for name, _ in read_all(archive(members, format))] == names


def test_tarfile_itself_takes_a_wrong_header_for_the_end() -> None:
    """Why this module exists; if this fails, the library has become stricter."""
    data = bytearray(archive([member("one"), member("two")], tarfile.USTAR_FORMAT))
    data[512 + 10] ^= 1
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as tar:
        assert [each.name for each in tar] == ["one"]
