"""C source text to a shared library on disk: compiled once, kept in a private directory, checked before use.

Every file has a trailer, the digest of what precedes it, since a truncated library would crash the process that
loads it. Files are moved into place whole, so that any number of processes can share the directory without locks.
"""

import atexit
import hashlib
import os
import platform
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time

DIRECTORY_VARIABLE = "IM2COL_COMPAT_CACHE"
QUIET_VARIABLE = "IM2COL_COMPAT_QUIET"
COMPILERS = ("cc", "gcc", "clang")
#: Seconds after which a compiler is killed.
LIMIT = 120

_MAGIC = b"im2colC1"
_TRAILER = len(_MAGIC) + hashlib.sha256().digest_size

_memo = {}  # (source, flags): path
_temporary = None  # the directory that this process made and removes
_lock = threading.Lock()
_pid = os.getpid()


class CannotCompile(Exception):
    """There is no library; the message is the reason, in a user's words."""


def library(source, flags, what):
    """The path of a shared library made from C source, ready to be loaded. CannotCompile where there is none.

    source: str. flags: tuple of str, the compiler's options; those that start with "-l" follow the source, and no
    path in them may be relative. what: a short name for the line on sys.stderr that tells of a compilation.

    What was found or compiled is remembered, a failure isn't. Threads may call it at once; so may forked children.
    """
    key = (source, tuple(flags))
    if _pid != os.getpid():
        _after_fork()
    path = _memo.get(key)
    if path is None or not os.path.exists(path):
        with _lock:
            path = _memo.get(key)
            if path is None or not os.path.exists(path):
                path = _memo[key] = _find(source, key[1], what)
    return path


def _after_fork():
    """Forget what belongs to the parent: its lock, which may be held, and its temporary directory."""
    global _lock, _memo, _pid, _temporary
    _lock = threading.Lock()
    _memo = dict((key, path) for key, path in list(_memo.items()) if os.path.dirname(path) != _temporary)
    _temporary = None
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):
    # Elsewhere the first call in the child does it: two threads that race there compile twice, which is harmless.
    os.register_at_fork(after_in_child=_after_fork)


def _find(source, flags, what):
    """The path of the library: from the cache directory where that can be used, else from the temporary one."""
    command = _command()
    name = _name(source, flags, command)
    why = None
    for place in (_kept, _passing):
        try:
            directory = place()
            path = os.path.join(directory, name)
            if not _intact(path):
                started = _now()
                _compile(source, flags, command, path)
                _announce(what, _now() - started, directory, why)
            return path
        except EnvironmentError as error:
            # A compiler that fails is among these: a full disk shows in too many ways to tell it from other failures.
            why = error
    raise CannotCompile(str(why) if why.errno is None else "its library can't be written: {}".format(why))


# The compiler


def _command():
    """The compiler as a tuple of words, the first being an absolute path."""
    try:
        words = shlex.split(os.environ.get("CC") or "")
    except ValueError as error:
        raise CannotCompile("the environment variable CC isn't a command: {}".format(error))
    names = words[:1] or COMPILERS
    for name in names:
        path = _executable(name)
        if path is not None:
            return (path,) + tuple(words[1:])
    raise CannotCompile("there is no C compiler (tried {})".format(", ".join(names)))


def _executable(name):
    """The absolute path of a program, or None. By hand: Python 2.7 has no shutil.which."""
    directories = [""] if os.path.dirname(name) else os.environ.get("PATH", os.defpath).split(os.pathsep)
    for directory in directories:
        for ending in ("", ".exe") if os.name == "nt" else ("",):
            path = os.path.join(directory, name + ending)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                try:
                    return os.path.abspath(path)
                except EnvironmentError:
                    continue  # it is relative to a directory that is gone
    return None


def _identity(command):
    """What tells the compiler from another one, or another version, of the same name."""
    # Not what it answers to --version: to start a process takes 10 to 25 ms where torch is loaded, and this 0.1 ms.
    # All words, since CC may be "ccache gcc".
    programs = [os.path.realpath(path) for path in map(_executable, command) if path is not None]
    try:
        return [(path, os.stat(path).st_size, os.stat(path).st_mtime) for path in programs]
    except EnvironmentError as error:
        raise CannotCompile("the C compiler is gone: {}".format(error))


def run(words, directory):
    """Exit status and output of a program that works in `directory`. CannotCompile where it doesn't start or end."""
    name = os.path.basename(words[0])
    late = []
    try:
        process = _start(words, directory)
    except (EnvironmentError, RuntimeError, ValueError) as error:  # RuntimeError: the interpreter is ending
        raise CannotCompile("{} can't be run: {}".format(name, error))
    # Not a daemon: Python 2.7 prints its traceback where the interpreter ends before it notices that it is cancelled.
    timer = threading.Timer(LIMIT, lambda: (late.append(True), _kill(process)))
    try:
        timer.start()
        output = process.communicate()[0]
    except RuntimeError as error:  # no thread to be had
        raise CannotCompile("{} can't be run: {}".format(name, error))
    finally:
        timer.cancel()
        if process.returncode is None:
            _kill(process)
            process.wait()
            process.stdout.close()
    if late:
        raise CannotCompile("{} was cut off after {} s".format(name, LIMIT))
    return process.returncode, output


def _start(words, directory):
    options = {}
    if os.name == "posix":
        # In a session of its own, it can be killed together with the programs that it starts.
        options = {"start_new_session": True} if sys.version_info >= (3,) else {"preexec_fn": os.setsid}
    with open(os.devnull, "rb") as nothing:
        return subprocess.Popen(
            list(words),
            stdin=nothing,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(os.environ, LC_ALL="C", TMPDIR=directory),
            close_fds=os.name == "posix",
            **options
        )


def _kill(process):
    # Not poll(): from another thread it would take the exit status away from communicate().
    if process.returncode is None:
        try:
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except EnvironmentError:
            pass  # it has just ended


def _compile(source, flags, command, path):
    """Put the library at `path`. EnvironmentError where that fails."""
    # What the compiler writes stays below this directory, whatever ends it.
    work = tempfile.mkdtemp(prefix="tmp", dir=os.path.dirname(path))
    try:
        text, result = os.path.join(work, "source.c"), os.path.join(work, "library.so")
        _write(text, "wb", source if isinstance(source, bytes) else source.encode("utf-8"))
        first = tuple(flag for flag in flags if not flag.startswith("-l"))
        last = tuple(flag for flag in flags if flag.startswith("-l")) + ("-lm",)
        words = command + first + ("-shared", "-fPIC", "-o", result, text) + last
        status, output = run(words, work)
        # The status is 0 whatever happened where the process ignores SIGCHLD.
        if status != 0 or not os.path.isfile(result) or not os.path.getsize(result):
            raise EnvironmentError("{} failed: {}".format(os.path.basename(command[0]), _complaint(status, output)))
        _write(result, "ab", _trailer(_read(result)))
        os.chmod(result, 0o700)
        getattr(os, "replace", os.rename)(result, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _complaint(status, output):
    """The line of a compiler's output that says most."""
    text = output if isinstance(output, str) else output.decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["exit status {}".format(status)])[0]


# The file


def _name(source, flags, command):
    """A file's name: the digest of all that the library depends on."""
    everything = (
        _MAGIC,
        source,
        flags,
        command,
        _identity(command),
        sys.platform,
        os.uname()[4] if hasattr(os, "uname") else platform.machine(),  # the latter starts a process on old Pythons
        struct.calcsize("P"),
        _libc(),
        _processor() if any("native" in word for word in command + flags) else None,
    )
    return hashlib.sha256(repr(everything).encode("utf-8")).hexdigest() + ".so"


def _libc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, EnvironmentError, ValueError):
        return None


def _processor():
    """What -march=native depends on: home directories are shared by machines that differ."""
    try:
        with open("/proc/cpuinfo", "rb") as stream:
            block = stream.read(16384).split(b"\n\n")[0]
    except EnvironmentError:
        return platform.node()
    # The other lines tell the first core from the rest, or vary with its clock.
    kept = (b"vendor", b"cpu family", b"model", b"stepping", b"flags", b"Features", b"features", b"isa", b"CPU ")
    return [line for line in block.splitlines() if line.startswith(kept)] or platform.node()


def _trailer(content):
    return _MAGIC + hashlib.sha256(content).digest()


def _intact(path):
    """Whether the file is there, as it was written, and nobody else can have written it."""
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or (hasattr(os, "geteuid") and not _only_ours(info)):
            return False
        content = _read(path)
    except EnvironmentError:
        return False
    return len(content) > _TRAILER and content[-_TRAILER:] == _trailer(content[:-_TRAILER])


def _read(path):
    with open(path, "rb") as stream:
        return stream.read()


def _write(path, mode, content):
    with open(path, mode) as stream:
        stream.write(content)


# The directory


def _kept():
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
    if not os.path.isabs(base):  # to be ignored then, says its specification
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


def _passing():
    """The directory of this process alone, removed when it ends."""
    global _temporary
    if _temporary is None or not os.path.isdir(_temporary):
        _temporary = tempfile.mkdtemp(prefix="im2col_compat-")
        atexit.register(_remove, _temporary, os.getpid())
        if "multiprocessing.util" in sys.modules:
            # The children of multiprocessing end without atexit's functions, but with these.
            sys.modules["multiprocessing.util"].Finalize(None, _remove, (_temporary, os.getpid()), exitpriority=0)
    return _temporary


def _remove(directory, pid):
    if pid == os.getpid():  # else it is the parent's
        shutil.rmtree(directory, ignore_errors=True)


# The announcement

_now = getattr(time, "monotonic", time.time)


def _announce(what, seconds, directory, why):
    """One line on sys.stderr. why: what was wrong with the cache directory, or None."""
    if os.environ.get(QUIET_VARIABLE, "0") in ("", "0"):
        place = directory if why is None else "{} until this process ends: {}".format(directory, why)
        line = "im2col_compat: compiled {} in {:.1f} s (kept in {})\n".format(what, seconds, place)
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except Exception:
            pass  # closed, None, or too narrow for the path: nobody reads it, and the library is there
