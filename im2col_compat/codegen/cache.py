"""Where compiled libraries are kept: the directory, who may write there, their names, and whether they are whole.

Every file has a trailer, the digest of what precedes it, since a truncated library would crash the process that
loads it. Files are moved into place whole, so that any number of processes can share the directory without locks.
"""

import atexit
import hashlib
import os
import platform
import shutil
import stat
import struct
import sys
import tempfile

DIRECTORY_VARIABLE = "IM2COL_COMPAT_CACHE"

_MAGIC = b"im2colC1"
_TRAILER = len(_MAGIC) + hashlib.sha256().digest_size

_temporary = None  # (the directory that a process made and removes, the process)

# The file


def name(source, flags, command, identity):
    """A file's name: the digest of all that the library depends on."""
    machine = os.uname()[4] if hasattr(os, "uname") else platform.machine()  # which starts a process on old Pythons
    processor = _processor() if any("native" in word for word in command + flags) else None
    depends = (_MAGIC, source, flags, command, identity, sys.platform, machine, struct.calcsize("P"), libc(), processor)
    return hashlib.sha256(repr(depends).encode("utf-8")).hexdigest() + ".so"


def libc():
    """The C library and its version; None where that isn't told."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, EnvironmentError, ValueError):
        return None


def _processor():
    """What -march=native depends on, since different machines may share a home directory."""
    try:
        with open("/proc/cpuinfo", "rb") as stream:
            block = stream.read(16384).split(b"\n\n")[0]
    except EnvironmentError:
        return platform.node()
    # The other lines differ from core to core, or vary with the clock.
    kept = (b"vendor", b"cpu family", b"model", b"stepping", b"flags", b"Features", b"features", b"isa", b"CPU ")
    return [line for line in block.splitlines() if line.startswith(kept)] or platform.node()


def _trailer(content):
    return _MAGIC + hashlib.sha256(content).digest()


def intact(path):
    """Whether the file is there as it was written, and nobody else can have written it."""
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or (hasattr(os, "geteuid") and not _only_ours(info)):
            return False
        content = _read(path)
    except EnvironmentError:
        return False
    return len(content) > _TRAILER and content[-_TRAILER:] == _trailer(content[:-_TRAILER])


def put(result, path):
    """Move a new library to its place, with its trailer."""
    write(result, "ab", _trailer(_read(result)))
    os.chmod(result, 0o700)
    getattr(os, "replace", os.rename)(result, path)


def _read(path):
    with open(path, "rb") as stream:
        return stream.read()


def write(path, mode, content):
    with open(path, mode) as stream:
        stream.write(content)


# The directory


def kept():
    """The cache directory, made where it's missing. OSError where it can't be used."""
    if not hasattr(os, "geteuid"):
        raise OSError("this system doesn't tell whose a directory is")
    path = _wanted()
    _make(path)
    return _private(path)


def _wanted():
    """Where the environment puts the cache directory."""
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # its specification says to ignore it then
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home) or not os.path.isdir(home):
            raise OSError("there is no home directory")
        if os.geteuid() == 0 and os.stat(home).st_uid != 0:
            # Under sudo: a ~/.cache that belongs to root would be in the way of the user's other programs.
            raise OSError("the home directory is another user's")
        base = os.path.join(home, ".cache")
    return os.path.join(base, "im2col_compat")


def _make(path):
    """Make a directory and those above it. By hand: os.makedirs gives the mode to the last alone in Python 3.7+."""
    if not os.path.isdir(path):
        if os.path.dirname(path) != path:
            _make(os.path.dirname(path))
        try:
            os.mkdir(path, 0o700)
        except OSError:
            if not os.path.isdir(path):  # else another process was faster
                raise


def _private(path):
    """The directory's real path. OSError where someone else could put a file there, or move it away."""
    for each in _and_above(path):
        info = os.lstat(each)
        if stat.S_ISLNK(info.st_mode) and info.st_uid not in (0, os.geteuid()):
            raise OSError("{} is another user's link".format(each))
    real = os.path.realpath(path)
    info = os.lstat(real)
    if not stat.S_ISDIR(info.st_mode) or not _only_ours(info):
        raise OSError("{} isn't private".format(path))
    for each in _and_above(os.path.dirname(real)):
        mode = os.lstat(each).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise OSError("{} is writable by everyone".format(each))
    return real


def _and_above(path):
    while True:
        yield path
        if os.path.dirname(path) == path:
            return
        path = os.path.dirname(path)


def _only_ours(info):
    return info.st_uid == os.geteuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def passing():
    """The directory of this process alone, which isn't a parent's; removed when the process ends."""
    global _temporary
    pid = os.getpid()
    if _temporary is None or _temporary[1] != pid or not os.path.isdir(_temporary[0]):
        _temporary = tempfile.mkdtemp(prefix="im2col_compat-"), pid
        atexit.register(_remove, *_temporary)
        if "multiprocessing.util" in sys.modules:
            # The children of multiprocessing end without atexit's functions, but with these.
            sys.modules["multiprocessing.util"].Finalize(None, _remove, _temporary, exitpriority=0)
    return _temporary[0]


def is_passing(path):
    """Whether a library is in the directory of this process alone, or of its parent alone."""
    return _temporary is not None and os.path.dirname(path) == _temporary[0]


def _remove(directory, pid):
    if pid == os.getpid():  # else it is the parent's
        shutil.rmtree(directory, ignore_errors=True)
