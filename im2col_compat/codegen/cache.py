"""Where compiled libraries, and cubins for GPUs, are kept: the directory, who may write there, and whether they are whole.

Every file has a trailer, the digest of what precedes it, since a truncated library would crash the process that
loads it. The digest tells of damage and not of an author: that nobody else has written a file follows from where it
lies. Files are moved into place whole, so that any number of processes can share the directory without locks.

Whoever can put a file here has his code run by this process. So each directory from the root to this one belongs to
this user or to root, and nobody else may write there. One with the sticky bit, as /tmp, will do above ours: what is in
it can be moved by its owner alone. Links are this user's or root's too. Hence nobody else can put another directory or
file in the place of one that was checked, in the time between a check and a load, and checks by path are enough.
(Loading /proc/self/fd/N would add nothing, and takes the first library for the second where the number is the same.)
"""

import atexit
import errno
import hashlib
import mmap
import os
import platform
import re
import shutil
import stat
import struct
import sys
import tempfile
import time

DIRECTORY_VARIABLE = "IM2COL_COMPAT_CACHE"

_MAGIC = b"im2colC1"
_TRAILER = len(_MAGIC) + hashlib.sha256().digest_size

#: A descriptor for this process alone, of no link, without waiting for a fifo; what Windows lacks isn't needed there.
_OPTIONS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))

#: Beyond so many bytes, libraries that weren't used for longest are removed.
MOST = 256 << 20
#: Seconds after which a directory of a compilation is one that was killed.
STALE = 24 * 3600
#: What such directories' names start with.
_WORK = "im2col_compat.tmp-"
_LIBRARY = re.compile(r"[0-9a-f]{64}\.(so|cubin)$")

_temporary = None  # (the directory that a process made and removes, the process)

# The file


def name(source, flags, command, identity):
    """A file's name: the digest of all that the library depends on."""
    machine = os.uname()[4] if hasattr(os, "uname") else platform.machine()  # which starts a process on old Pythons
    processor = _processor() if any("native" in word for word in command + flags) else None
    depends = (_MAGIC, source, flags, command, identity, sys.platform, machine, struct.calcsize("P"), libc(), processor)
    return _digest(depends) + ".so"


def cubin_name(*depends):
    """The same of a cubin."""
    return _digest((_MAGIC,) + depends) + ".cubin"


def _digest(depends):
    return hashlib.sha256(repr(depends).encode("utf-8")).hexdigest()


def libc():
    """The C library and its version; None where that isn't told."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, EnvironmentError, ValueError):  # Python 2.7 doesn't know the name
        pass
    try:
        import ctypes  # takes long

        version = ctypes.CDLL(None).gnu_get_libc_version
    except (AttributeError, EnvironmentError, ImportError, TypeError):  # another library; Windows has no None
        return None
    version.restype = ctypes.c_char_p
    told = version()
    return "glibc " + (told if isinstance(told, str) else told.decode())


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
    """Whether the file is there as it was written, and nobody else can have written it. OSError where it can't be
    loaded from its place."""
    return _content(path, True) is not None


def content(path):
    """What was written to the file; None where it isn't intact. It is to be loaded from memory."""
    return _content(path, False)


def _content(path, loads):
    try:
        descriptor = os.open(path, os.O_RDONLY | _OPTIONS)
    except EnvironmentError:
        return None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or (hasattr(os, "geteuid") and not _only_ours(info)):
            return None
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            content = stream.read()
        if len(content) <= _TRAILER or content[-_TRAILER:] != _trailer(content[:-_TRAILER]):
            return None
        if loads:
            check_loads(descriptor, os.path.dirname(path))
        return content[:-_TRAILER]
    finally:
        os.close(descriptor)


def check_loads(descriptor, directory):
    """OSError where nothing can be loaded from a directory. descriptor: of a file in it that isn't empty."""
    # As the loader does it: this fails where the file system is mounted noexec, or a policy forbids it. On Linux alone,
    # for other systems may want what is mapped signed, and it may be C source.
    if sys.platform.startswith("linux"):
        try:
            mmap.mmap(descriptor, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
        except EnvironmentError as error:
            message = "no library can be loaded from {} (is it mounted noexec?): {}"
            raise OSError(message.format(directory, error.strerror))


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
    real = _checked(path, True)
    if not _only_ours(os.lstat(real)):
        raise OSError("{} isn't private to this user".format(path))
    return real


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
        base = os.path.join(home, ".cache")
    return os.path.join(base, "im2col_compat")


def _checked(path, make):
    """The real path of a directory. OSError where others could put something else in its place, or above it.
    make: whether what is missing is made; but not what a link names.

    From the root down: what is above was checked, so nobody else can move it, and nothing is made where he could.
    """
    real, links = os.sep, 0
    _check(real, os.lstat(real))
    names = [(name, make) for name in reversed(path.split(os.sep))]
    while names:
        name, make = names.pop()
        if name == "..":
            real = os.path.dirname(real)
        elif name not in ("", "."):
            each = os.path.join(real, name)
            if make and not os.path.lexists(each):
                try:
                    os.mkdir(each, 0o700)
                except EnvironmentError as error:
                    if error.errno != errno.EEXIST:  # else someone was faster, and it is seen who
                        raise
            info = os.lstat(each)
            _check(each, info)
            if not stat.S_ISLNK(info.st_mode):
                real = each
                continue
            links += 1
            if links > 40:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(each)
            real = os.sep if os.path.isabs(target) else real
            names += [(name, False) for name in reversed(target.split(os.sep))]
    return real


def _check(path, info):
    """OSError where a directory, or a link to one, isn't this user's or root's, or others may write to it."""
    link = stat.S_ISLNK(info.st_mode)
    if info.st_uid not in (0, os.geteuid()) and info.st_uid != _unmapped_root():
        raise OSError("{} is another user's{}".format(path, " link" if link else ""))
    if not link and not stat.S_ISDIR(info.st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if not link and info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not info.st_mode & stat.S_ISVTX:
        raise OSError("{} isn't private: others can write there (chmod go-w)".format(path))


def _unmapped_root():
    """As whom root's files appear in a container that has no root (Apptainer's, Bubblewrap's); None elsewhere.

    Those of other users appear in the same way, and that is all there is to be seen.
    """
    try:
        with open("/proc/self/uid_map") as stream:
            if any(line.split()[0] == "0" for line in stream):
                return None
        with open("/proc/sys/kernel/overflowuid") as stream:
            return int(stream.read())
    except (EnvironmentError, ValueError):
        return None


def _only_ours(info):
    return info.st_uid == os.geteuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def passing():
    """The directory of this process alone, which isn't a parent's; removed when the process ends."""
    global _temporary
    pid = os.getpid()
    if _temporary is None or _temporary[1] != pid or not os.path.isdir(_temporary[0]):
        _temporary = tempfile.mkdtemp(prefix="im2col_compat-", dir=_of_temporary_files()), pid
        atexit.register(_remove, *_temporary)
        if "multiprocessing.util" in sys.modules:
            # The children of multiprocessing end without atexit's functions, but with these.
            sys.modules["multiprocessing.util"].Finalize(None, _remove, _temporary, exitpriority=0)
    return _temporary[0]


def _of_temporary_files():
    """The directory in which temporary ones are made. OSError where others could move these."""
    directory = tempfile.gettempdir()
    return _checked(directory, False) if hasattr(os, "geteuid") else directory


def scratch():
    """A new directory for files that aren't kept. OSError where there can be none. Who asks for it removes it."""
    try:
        return work(_of_temporary_files())
    except EnvironmentError:
        return work(kept())


def work(directory):
    """A new directory below one of the above. Who asks for it removes it."""
    return tempfile.mkdtemp(prefix=_WORK, dir=directory)


def tidy(directory, spared):
    """Remove what killed processes left in the cache directory, and the oldest libraries beyond MOST bytes.

    A process that has loaded a library keeps it, and one that is about to load it compiles it again.
    spared: the library that stays.
    """
    libraries = []
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            info = os.lstat(path)
        except EnvironmentError:
            continue  # another process was faster
        if stat.S_ISREG(info.st_mode) and _LIBRARY.match(name):
            # Many file systems note once a day that a file was read.
            libraries.append((max(info.st_atime, info.st_mtime), info.st_size, path))
        elif stat.S_ISDIR(info.st_mode) and name.startswith(_WORK) and info.st_mtime < time.time() - STALE:
            shutil.rmtree(path, ignore_errors=True)
    total = sum(size for _, size, _ in libraries)
    for _, size, path in sorted(libraries):
        if total <= MOST:
            break
        if path != spared:
            try:
                os.remove(path)
            except EnvironmentError:
                pass
            total -= size


def is_passing(path):
    """Whether a library is in the directory of this process alone, or of its parent alone."""
    return _temporary is not None and os.path.dirname(path) == _temporary[0]


def _remove(directory, pid):
    if pid == os.getpid():  # else it is the parent's
        shutil.rmtree(directory, ignore_errors=True)
