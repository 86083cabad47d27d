"""Makes a sample image out of this machine's own files: a shell, Python, and a small program.

Nothing is downloaded. The image has four layers, so that a pull has something to show: system,
interpreter, standard library, program; the last one also removes a file of the first.
"""

import shutil
import sys
import sysconfig
from pathlib import Path, PurePosixPath
from typing import Any, Final

from deploy.demo.host_files import (
    FileSet,
    Folder,
    HostFile,
    SymbolicLink,
    Text,
    interpreter_of,
    libraries_of,
)
from deploy.demo.oci_layout import LayoutWriter

REFERENCE: Final = "demo/hello:1.0"

_PYTHON_HOME = PurePosixPath("/opt/python")
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_TOOLS = (
    *("sh", "bash", "env", "printenv", "echo", "expr", "test", "true", "false", "sleep", "date"),
    *("ls", "cat", "cp", "mv", "rm", "ln", "mkdir", "touch", "stat", "df", "du", "find", "pwd"),
    *("head", "tail", "sort", "uniq", "cut", "tr", "tee", "wc", "grep", "sed", "readlink"),
    *("basename", "dirname", "id", "whoami", "uname", "hostname", "nproc", "which"),
)
# Parts of the standard library that a job does not miss; lib-dynload is handled by name, too.
_LEFT_OUT = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "tkinter",
        "turtledemo",
    }
)
_LEFT_OUT_PREFIXES = ("config-", "_tkinter.", "_test", "_ctypes_test.", "xxlimited", "EXTERNALLY")

_PROGRAM = b'''\
"""Says where it runs: proof that this is the image, and that the job's environment came along."""

import os
import platform
import sys

print(f"Hello from inside the image: Python {platform.python_version()} at {sys.prefix}")
print(f"  host {platform.node()}, kernel {platform.release()}, {os.cpu_count()} processors")
print(f"  user {os.getuid()}, group {os.getgid()}, in {os.getcwd()}")
for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS"):
    if name in os.environ:
        print(f"  {name}={os.environ[name]}")
'''

_SYSTEM_TEXTS = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
    "/etc/os-release": b'ID=dray-demo\nNAME="Dray demo"\nPRETTY_NAME="Dray demo image"\n',
    "/etc/removed-by-the-last-layer": b"If you can read this, whiteouts do not work.\n",
}


def write_sample_image(into: Path) -> str:
    """Write the image as an OCI layout directory; returns its name below the registry's."""
    system = _system()
    interpreter = _interpreter().without([system])
    library = _standard_library().without([system, interpreter])
    layout = LayoutWriter(into)
    layers = [layout.layer(files) for files in (system, interpreter, library, _program())]
    layout.image(layers, _run_config(), REFERENCE)
    return REFERENCE


def _run_config() -> dict[str, Any]:
    return {
        "Env": [
            f"PATH=/usr/local/bin:{_PYTHON_HOME}/bin:{_SYSTEM_PATH}",
            "LANG=C.UTF-8",
            "DRAY_DEMO=1",
        ],
        "Cmd": ["hello"],
        "WorkingDir": "/opt/hello",
        "Labels": {
            "org.opencontainers.image.title": "hello",
            "org.opencontainers.image.version": "1.0",
            "org.opencontainers.image.description": "A sample image made of this machine's files",
        },
    }


def _system() -> FileSet:
    files = FileSet()
    for folder in ("/dev", "/home", "/proc", "/root", "/run", "/sys", "/usr/local/bin"):
        files.put(folder, Folder())
    files.put("/tmp", Folder(0o1777))  # noqa: S108 - a folder of the image
    for path, content in _SYSTEM_TEXTS.items():
        files.put(path, Text(content))
    if shutil.which("sh", path=_SYSTEM_PATH) is None:
        raise FileNotFoundError(f"there is no sh in {_SYSTEM_PATH}")
    found = [shutil.which(name, path=_SYSTEM_PATH) for name in _TOOLS]
    programs = {Path(path) for path in found if path}
    # Some systems ship small tools as scripts, or all of them as one program behind scripts.
    programs |= {script for program in programs if (script := interpreter_of(program))}
    for program in sorted(programs):
        files.add_host_path(program)
    _add_libraries(files, programs)
    return files


def _interpreter() -> FileSet:
    """The running Python, moved to a neutral place: it finds its library relative to itself.

    Its own place may be a home directory, which a job would see the host's instead of.
    """
    program = Path(sys.executable).resolve()
    files = FileSet()
    name = f"python{_VERSION}"
    files.put(f"{_PYTHON_HOME}/bin/{name}", HostFile(program, executable=True))
    files.put(f"{_PYTHON_HOME}/bin/python3", SymbolicLink(name))
    files.put("/usr/local/bin/python3", SymbolicLink(f"{_PYTHON_HOME}/bin/python3"))
    _add_libraries(files, [program])
    return files


def _standard_library() -> FileSet:
    source = Path(sysconfig.get_path("stdlib"))
    target = _PYTHON_HOME / source.relative_to(sys.base_prefix)
    files = FileSet()
    modules = []
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if not path.is_file() or any(_is_left_out(part) for part in inner.parts):
            continue
        files.put(str(target / inner), HostFile(path, executable=False))
        if path.suffix == ".so":
            modules.append(path)
    # Without it Python would look for its compiled modules where it was built.
    files.put(str(target / "lib-dynload"), Folder())
    if modules:
        _add_libraries(files, modules)
    return files


def _program() -> FileSet:
    files = FileSet()
    files.put("/opt/hello/hello.py", Text(_PROGRAM))
    start = b'#!/bin/sh\nexec python3 /opt/hello/hello.py "$@"\n'
    files.put("/usr/local/bin/hello", Text(start, executable=True))
    files.put("/etc/.wh.removed-by-the-last-layer", Text(b""))
    return files


def _add_libraries(files: FileSet, programs: set[Path] | list[Path]) -> None:
    """Add what programs need, findable without the loader's cache, which the image has not.

    libc lies where the loader looks by itself. Libraries from elsewhere, such as those next to a
    Python in a home directory, move there.
    """
    libraries = libraries_of(programs)
    searched = {library.parent for library in libraries if library.name.startswith("libc.so")}
    for library in libraries:
        loader = library.name.startswith(("ld-linux", "ld64", "ld-musl", "ld."))
        if loader or not searched or library.parent in searched:
            files.add_host_path(library)
            continue
        # The folder's own links (/lib -> usr/lib) are in the image already, with libc.
        folder = min(searched).resolve()
        files.put(str(folder / library.name), HostFile(library.resolve(), executable=True))


def _is_left_out(part: str) -> bool:
    return part in _LEFT_OUT or part.startswith(_LEFT_OUT_PREFIXES)
