"""The C extensions: what pyproject.toml cannot say.

One binary serves every Python from 3.11 on (the stable ABI, which has Py_buffer since then). There
are no -march flags: kernels for newer CPUs carry their target in the source and are chosen at run
time. NDEBUG is undefined so that the assertions of the C stay in.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = ["_cdcmodule", "cdc", "gear", "phte", "phte_portable", "phte_vaes", "phte_aesni", "phte_arm"]
HEADERS = ["cdc", "gear", "phte", "phte_scan"]


def make_extension(name: str, sources: list[str], headers: Sequence[str] = ()) -> Extension:
    """Return an extension whose files lie beside the module that it becomes."""
    folder = name.rpartition(".")[0].replace(".", "/")
    return Extension(
        name,
        sources=[f"{folder}/{source}.c" for source in sources],
        depends=[f"{folder}/{header}.h" for header in headers],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        undef_macros=["NDEBUG"],
        extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"],
        py_limited_api=True,
    )


class BuildExtension(build_ext):
    """Asks for a compiler and Python's headers first: their absence deserves one line, not a page."""

    def run(self) -> None:
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
        if shutil.which(compiler) is None:
            sys.exit(
                f"holdfast: no C compiler found ({compiler}): install gcc or clang "
                "(Debian: apt-get install build-essential python3-dev)"
            )
        if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
            sys.exit(
                "holdfast: no Python.h found: install the headers of this Python "
                "(Debian: apt-get install python3-dev)"
            )
        super().run()


setup(
    ext_modules=[
        make_extension("chunker._cdc", SOURCES, HEADERS),
        make_extension("repo_store._rows", ["_rows"], ["row_filter"]),
        make_extension("repo_store._hashes", ["_hashes", "many_hashes"], ["hash_lanes", "many_hashes"]),
        make_extension("repo_store._lookups", ["_lookups"], ["row_filter"]),
        make_extension("repo_store._entries", ["_entries"]),
        make_extension("engine._plain", ["_plain"]),
        make_extension("engine._restoring", ["_restoring"]),
    ],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
