"""C source text to a shared library: finds and runs a C compiler, once for each text."""

import hashlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

from im2col_compat.codegen import cache

QUIET_VARIABLE = "IM2COL_COMPAT_QUIET"
COMPILERS = ("cc", "gcc", "clang")
#: Seconds after which a compiler is killed.
LIMIT = 120
#: Bytes of a program's output that are kept.
MOST_OUTPUT = 1 << 20
#: What compilers read from the environment that changes what they make.
VARIABLES = ("CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX")

now = getattr(time, "monotonic", time.time)
_memo = {}  # (source, flags, environment): path
_refused = {}  # (compiler, flags): None, or why they aren't taken, whatever the source
_given_up = {}  # (compiler, kind): the reason
_lock = threading.Lock()
_pid = os.getpid()


#: Bytes that a compiler may need on the disk.
_ROOM = 4 << 20
#: The simplest source, for compilers that are told to take C89, too. What it needs of an assembler is what an instruction
#: set has for loops.
_SIMPLEST = "void im2col_compat_simplest(float *a) { int i; for (i = 0; i < 1024; i++) a[i] += 1; }\n"


class CannotCompile(Exception):
    """There is no library; the message is the reason, in a user's words."""


class OtherFlags(CannotCompile):
    """The compiler doesn't know the flags, or fails in itself. It may take the source with others."""


class _CutOff(CannotCompile):
    """A program didn't end."""


class _Fails(CannotCompile):
    """The compiler makes no library of anything, in that directory."""


def library(source, flags, what, kind=None):
    """The path of a shared library made from C source, ready to be loaded. CannotCompile where there is none.

    flags: a tuple of the compiler's options, without relative paths; those that start with "-l" follow the source.
    what: the library's name in the line on sys.stderr that tells of a compilation.
    kind: a compiler that doesn't end, or makes no library of anything, isn't tried again by this process for this kind.

    Libraries are remembered, failures of a source aren't. Threads may call it at once; so may forked children.
    """
    key = (source, tuple(flags), _environment())
    if _pid != os.getpid():
        _after_fork()
    path = _memo.get(key)
    if path is None or not os.path.exists(path):
        with _lock:
            path = _memo.get(key)
            if path is None or not os.path.exists(path):
                path = _memo[key] = _find(*key + (what, kind))
    return path


def _after_fork():
    """Forget what belongs to the parent: its lock, which may be held, and libraries in its temporary directory."""
    global _lock, _memo, _pid
    _lock = threading.Lock()
    _memo = dict((key, path) for key, path in list(_memo.items()) if not cache.is_passing(path))
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):
    # Elsewhere a child's first call does it. Two threads that race to it compile twice, which is harmless.
    os.register_at_fork(after_in_child=_after_fork)


def _environment():
    """Those of VARIABLES that are set, with their values."""
    return tuple((name, os.environ[name]) for name in VARIABLES if name in os.environ)


def digest(source, flags, directory):
    """A digest of C source with all that it includes, for source that includes what may change. CannotCompile where the
    preprocessor fails. directory: an empty one."""
    text, result = os.path.join(directory, "source.c"), os.path.join(directory, "source.i")
    words = command()
    cache.write(text, "wb", source.encode("utf-8"))
    status, output = run(words + flags + ("-E", "-P", "-o", result, text), directory)
    if not os.path.isfile(result):
        raise CannotCompile("{} failed: {}".format(os.path.basename(words[0]), complaint(status, output)))
    with open(result, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _find(source, flags, environment, what, kind):
    """The path of the library: in the cache directory where that can be used, else in a temporary one."""
    words = command()
    # As a list they are part of the name only where there are any: what older versions kept stays in use.
    identity = _identity(words) + list(environment)
    name, compiler = cache.name(source, flags, words, identity), (words, tuple(identity))
    reasons, fails = [], False
    for place in (cache.kept, cache.passing):
        try:
            directory = place()
            path = os.path.join(directory, name)
            if not cache.intact(path):
                if (compiler, kind) in _given_up:
                    raise CannotCompile(_given_up[compiler, kind])
                started = now()
                _compile(source, flags, compiler, path, fails)
                announce(what, now() - started, directory, "; ".join(reasons))
            return path
        except _CutOff as error:
            _given_up[compiler, kind] = str(error)
            raise
        except _Fails as error:
            # Elsewhere it may work: a full disk shows in too many ways to tell.
            reasons.append(str(error))
            fails = True
        except EnvironmentError as error:
            reasons.append(str(error) if error.errno is None else "its library can't be written: {}".format(error))
            fails = False
    reason = "; ".join(sorted(set(reasons), key=reasons.index))
    if fails:
        _given_up[compiler, kind] = reason
    raise CannotCompile(reason)


# The compiler


def command():
    """The compiler as a tuple of words, the first being an absolute path."""
    try:
        words = shlex.split(os.environ.get("CC") or "")
    except ValueError as error:
        raise CannotCompile("the environment variable CC isn't a command: {}".format(error))
    names = words[:1] or COMPILERS
    for name in names:
        path = executable(name)
        if path is not None:
            return (path,) + tuple(words[1:])
    raise CannotCompile("there is no C compiler (tried {})".format(", ".join(names)))


def executable(name):
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
    """What changes where the compiler's name becomes another compiler's, or another version's."""
    # Not its answer to --version: with torch loaded it takes 10 to 25 ms to start a process, and this takes 0.1 ms.
    # For all words, since CC may be "ccache gcc".
    programs = [os.path.realpath(path) for path in map(executable, command) if path is not None]
    try:
        return [(path, os.stat(path).st_size, os.stat(path).st_mtime) for path in programs]
    except EnvironmentError as error:
        raise CannotCompile("the C compiler is gone: {}".format(error))


def run(words, directory):
    """Exit status and output of a program run in `directory`. CannotCompile where it doesn't start or doesn't end."""
    name = os.path.basename(words[0])
    late = []
    try:
        process = _start(words, directory)
    except (EnvironmentError, RuntimeError, ValueError) as error:  # RuntimeError: the interpreter is ending
        raise CannotCompile("{} can't be run: {}".format(name, error))
    # Not a daemon: Python 2.7 prints a traceback of one that is cancelled just before the interpreter ends.
    timer = threading.Timer(LIMIT, lambda: (late.append(True), _kill(process)))
    try:
        timer.start()
        # By io, which reads on after a signal on Python 2.7 too. Nobody bounds what a program prints, so the rest is
        # dropped.
        with io.open(process.stdout.fileno(), "rb", closefd=False) as stream:
            output = stream.read(MOST_OUTPUT)
            while stream.read(MOST_OUTPUT):
                pass
        process.wait()
    except RuntimeError as error:  # no thread to be had
        raise CannotCompile("{} can't be run: {}".format(name, error))
    finally:
        timer.cancel()
        if process.returncode is None:
            _kill(process)
            process.wait()
        process.stdout.close()
    if late:
        raise _CutOff("{} was cut off after {} s".format(name, LIMIT))
    return process.returncode, output


def _start(words, directory):
    options = {}
    if os.name == "posix":
        # In a session of its own: so it can be killed together with the programs that it starts.
        options = {"start_new_session": True} if sys.version_info >= (3,) else {"preexec_fn": os.setsid}
    with open(os.devnull, "rb") as nothing:
        return subprocess.Popen(
            list(words), stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=directory,
            env=dict(os.environ, LC_ALL="C", TMPDIR=directory), close_fds=os.name == "posix", **options)  # fmt: skip


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


def _compile(source, flags, compiler, path, fails):
    """Put the library at `path`. EnvironmentError or _Fails where another directory may do, OtherFlags where other
    flags may, else CannotCompile. fails: whether the compiler made no library of anything, in another directory."""
    words, directory = compiler[0], os.path.dirname(path)
    if _refused.get((compiler, flags)) is not None:
        raise OtherFlags(_refused[compiler, flags])
    # What the compiler writes stays in this directory, whatever ends it.
    folder = cache.work(directory)
    try:
        complaint = _make(_SIMPLEST, (), words, folder) if fails else None
        if complaint is not None:
            raise _Fails(complaint)
        complaint = _make(source, flags, words, folder)
        if complaint is None:
            cache.put(os.path.join(folder, "library.so"), path)
            cache.tidy(directory, path)
            return
        cache.write(os.path.join(folder, "room"), "wb", b"\0" * _ROOM)
        if _make(_SIMPLEST, (), words, folder) is not None:
            raise _Fails(complaint)
        if (compiler, flags) not in _refused:
            _refused[compiler, flags] = _make(_SIMPLEST, flags, words, folder)
        own = _refused[compiler, flags] is not None or "internal compiler error" in complaint
        raise (OtherFlags if own else CannotCompile)(complaint)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(source, flags, words, folder):
    """Make library.so of C source, in a folder. None, or what the compiler complains about."""
    text, result = os.path.join(folder, "source.c"), os.path.join(folder, "library.so")
    if os.path.exists(result):
        os.remove(result)
    cache.write(text, "wb", source if isinstance(source, bytes) else source.encode("utf-8"))
    with open(text, "rb") as stream:  # before a library is made in vain
        cache.check_loads(stream.fileno(), os.path.dirname(folder))
    libraries = tuple(flag for flag in flags if flag.startswith("-l")) + ("-lm",)
    options = tuple(flag for flag in flags if not flag.startswith("-l")) + ("-shared", "-fPIC", "-o", result)
    status, output = run(words + options + (text,) + libraries, folder)
    # Where this process ignores SIGCHLD the status is 0, whatever happened.
    if status != 0 or not os.path.isfile(result) or not os.path.getsize(result):
        return "{} failed: {}".format(os.path.basename(words[0]), complaint(status, output))
    return None


def complaint(status, output):
    """The line of a compiler's output that says most."""
    text = output if isinstance(output, str) else output.decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["exit status {}".format(status)])[0]


def announce(what, seconds, directory, why):
    """One line on sys.stderr. why: what was wrong with the cache directory, or ""."""
    if os.environ.get(QUIET_VARIABLE, "0") in ("", "0"):
        place = directory if not why else "{} until this process ends: {}".format(directory, why)
        line = "im2col_compat: compiled {} in {:.1f} s (kept in {})\n".format(what, seconds, place)
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except Exception:
            pass  # closed, None, or too narrow for the path: nobody reads it, and the library is there
