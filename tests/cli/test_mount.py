"""holdfast mount, with the real FUSE of this machine."""

import ctypes.util
import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.cli import Cli, damage


def why_not() -> str | None:
    """Why nothing can be mounted here, None if it can."""
    if not (ctypes.util.find_library("fuse") or ctypes.util.find_library("fuse3")):
        return "libfuse is not installed"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None if os.geteuid() == 0 else "only root can mount for certain"


real_fuse = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

Mount = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def mount(cli: Cli) -> Iterator[Mount]:
    """Mounts at the directory `mnt`; whatever happens, it is not left mounted."""
    started: list[subprocess.Popen[bytes]] = []
    top = cli.directory / "mnt"

    def start(*args: str) -> "subprocess.Popen[bytes]":
        top.mkdir(exist_ok=True)
        child = cli.start("mount", str(top), *args)
        started.append(child)
        while not os.path.ismount(top):
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()
    with suppress(OSError):
        if os.path.ismount(top):
            subprocess.run(["umount", "-l", top], check=False)
    try:
        os.stat(top)
    except OSError as error:  # what serves it was killed
        assert error.errno in (errno.ENOTCONN, errno.ENOENT)
        subprocess.run(["umount", "-l", top], check=False)


def contents(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below `top`: kind, mode, owner, time, and bytes or target."""
    found: dict[bytes, tuple[object, ...]] = {}
    for directory, folders, names in os.walk(os.fsencode(top)):
        for name in (*folders, *names):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            data: bytes | None = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    data = file.read()
            elif stat.S_ISLNK(status.st_mode):
                data = os.readlink(path)
            found[path.removeprefix(os.fsencode(top))] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                None if stat.S_ISDIR(status.st_mode) else status.st_size,
                data,
            )
    return found


def make_tree(cli: Cli) -> Path:
    cli.write("tree/a", os.urandom(700_000))
    cli.write("tree/b/c/d", "deep")
    cli.write("tree/b-b")
    for number in range(300):
        cli.write(f"tree/many/file{number}", str(number))
    os.symlink("../a", "tree/b/link")
    os.mkfifo("tree/pipe", 0o640)
    with open("tree/holes", "wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    with open(os.fsencode(cli.directory) + b"/tree/\xff\n", "wb"):
        pass
    os.setxattr("tree/b-b", "user.test", b"\x00value")
    os.utime("tree/a", ns=(0, 1_600_000_000_123_456_789))
    return cli.directory / "tree"


@real_fuse
def test_a_mounted_snapshot_is_the_tree_that_was_backed_up(cli: Cli, mount: Mount) -> None:
    cli.init()
    tree = make_tree(cli)
    before = cli.snapshot("files", "tree")
    cli.write("tree/b/new", "new")
    after = cli.snapshot("files", "tree")
    cli.snapshot("stdin", "app.sql", stdin=b"dump" * 1000)
    child = mount()
    top = cli.directory / "mnt"
    series = f"files:vm:{tree}".replace("/", "%2F")
    assert os.listdir(top) == [series, "stdin:vm:app.sql"]
    folder = top / series
    names = {name[-8:]: name for name in os.listdir(folder)}
    older, newer = names[before[:8]], names[after[:8]]
    assert len(names) == 3 and older.partition("Z-")[0] <= newer.partition("Z-")[0]
    assert os.readlink(folder / "latest") == newer
    assert contents(folder / "latest" / "tree") == contents(tree)
    (tree / "b/new").unlink()
    assert set(contents(folder / older / "tree")) == set(contents(tree))
    assert os.getxattr(folder / "latest/tree/b-b", "user.test") == b"\x00value"
    assert os.listxattr(folder / "latest/tree/a") == []
    with open(folder / "latest/tree/a", "rb") as file:
        file.seek(399_999)
        middle = file.read(70_000)
    assert middle == (tree / "a").read_bytes()[399_999:469_999]
    assert next(top.glob("stdin*/latest/app.sql")).read_bytes() == b"dump" * 1000
    with pytest.raises(FileNotFoundError):
        os.stat(folder / "latest/tree/no")
    for refused in (lambda: (folder / "latest/tree/x").touch(), lambda: (folder / "latest/tree/a").unlink()):
        with pytest.raises(OSError) as caught:
            refused()
        assert caught.value.errno in (errno.EROFS, errno.ENOSYS)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, b"")
    assert out.decode() == f"3 snapshots in {top}; Ctrl-C or umount ends it\n"
    assert not os.path.ismount(top) and os.listdir(top) == []


@real_fuse
def test_filters_choose_and_sigterm_unmounts(cli: Cli, mount: Mount) -> None:
    cli.init()
    cli.snapshot("stdin", "one", stdin=b"1")
    cli.snapshot("stdin", "two", stdin=b"2")
    child = mount("--series", "stdin:vm:two")
    assert os.listdir(cli.directory / "mnt") == ["stdin:vm:two"]
    child.terminate()
    child.communicate(timeout=60)
    assert (child.returncode, os.path.ismount(cli.directory / "mnt")) == (0, False)


@real_fuse
def test_what_is_lost_is_an_error_to_who_reads_and_the_rest_is_there(cli: Cli, mount: Mount) -> None:
    cli.init()
    cli.snapshot("stdin", "lost", stdin=os.urandom(50_000))
    packs = set(cli.objects("packs"))
    cli.snapshot("stdin", "kept", stdin=b"kept")
    for pack in packs:
        if pack.stat().st_size > 40_000:
            damage(pack)
    mount()
    with pytest.raises(OSError) as caught:
        next((cli.directory / "mnt").glob("*lost/latest/lost")).read_bytes()
    assert caught.value.errno == errno.EIO
    assert next((cli.directory / "mnt").glob("*kept/latest/kept")).read_bytes() == b"kept"


def test_what_is_missing_for_it_is_said_in_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.init()
    (cli.directory / "mnt").mkdir()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mfusepy", None)
        assert tuple(cli("mount", "mnt")) == (
            1,
            "",
            "holdfast: mount needs the package mfusepy, which is not installed\n"
            "hint: install holdfast with its extra: `pip install 'holdfast[mount]'`\n",
        )
    monkeypatch.setattr("cli.mount._load_fuse", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr("cli.mount.DEVICE", "/dev/none")
        assert tuple(cli("mount", "mnt")) == (
            1,
            "",
            "holdfast: /dev/none: cannot be opened, and mount needs it\n",
        )
    monkeypatch.setattr("cli.mount.DEVICE", "/dev/null")
    cli.write("mnt/file")
    assert tuple(cli("mount", "mnt")) == (11, "", "holdfast: mnt: not empty, so nothing is mounted over it\n")
    assert tuple(cli("mount", "none")) == (2, "", "holdfast: none: no such file or directory\n")
