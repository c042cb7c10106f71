# -*- coding: utf-8 -*-
"""C source to a library on disk: what is kept and checked, which directory is used, what may go wrong."""

import ctypes
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from im2col_compat.codegen import cache, compile
from im2col_compat.codegen.compile import CannotCompile, library

SOURCE = "int answer(void) { return 42; }\n"
FLAGS = ("-O2",)
NAME = "a d\u00e9p\u00f4t"
# In a process of its own, the modules are imported without the package's __init__, which would import torch.
ALONE = """
import sys, types
for name, path in (("im2col_compat", {!r}), ("im2col_compat.codegen", {!r})):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from im2col_compat.codegen import compile
SOURCE, FLAGS = {!r}, {!r}
""".format(os.path.dirname(os.path.dirname(os.path.abspath(compile.__file__))),
           os.path.dirname(os.path.abspath(compile.__file__)), SOURCE, FLAGS)  # fmt: skip
REPORT = "print(compile.library(SOURCE, FLAGS, 'this'))\n"


def found():
    try:
        return compile.command()[0]
    except CannotCompile:
        return None


CC = found()
pytestmark = pytest.mark.skipif(CC is None or not hasattr(os, "geteuid"), reason="no C compiler, or not a Unix")
root_only = pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A new cache directory (not made yet), beside a new directory for temporary files; nothing is remembered."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IM2COL_COMPAT_QUIET", raising=False)
    monkeypatch.delenv("CC", raising=False)
    for memo in ("_memo", "_refused", "_given_up"):
        monkeypatch.setattr(compile, memo, {})
    monkeypatch.setattr(cache, "_temporary", None)
    yield str(tmp_path / "cache")
    shutil.rmtree(str(tmp_path), ignore_errors=True)


def forget():
    """What a new process would not know."""
    for memo in (compile._memo, compile._refused, compile._given_up):
        memo.clear()
    cache._temporary = None


def build():
    return library(SOURCE, FLAGS, "this")


def answer(path):
    return ctypes.CDLL(path).answer()


def is_temporary(path):
    return os.path.realpath(path).startswith(os.path.realpath(tempfile.gettempdir()) + os.sep)


def script(directory, text):
    """A program that can stand in for the compiler."""
    path = os.path.join(str(directory), "compiler.sh")
    with open(path, "w") as stream:
        stream.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o700)
    return path


def start(code, **environment):
    return subprocess.Popen(
        [sys.executable, "-B", "-c", ALONE + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, **environment),
    )


def finish(process):
    out, err = process.communicate()
    assert process.returncode == 0, err.decode("utf-8", "replace")
    return out.strip(), err


def run(code, **environment):
    """Output and error output (bytes) of a new interpreter that has the module and the source."""
    return finish(start(code, **environment))


def compilations(log):
    """How often a compiler made by logging() compiled."""
    with open(log) as stream:
        return len(stream.readlines())


def logging(directory, more=""):
    """A compiler that notes how it was called; and the file with its notes."""
    log = os.path.join(str(directory), "log")
    open(log, "w").close()
    return script(directory, "echo \"$*\" >> '{}'\n{}\nexec '{}' \"$@\"\n".format(log, more, CC)), log


# Compiling and keeping


def test_compiles(place, capfd):
    """The library loads and its functions can be called; one line on sys.stderr tells of it."""
    path = build()
    assert answer(path) == 42
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("im2col_compat: compiled this in ") and err.count("\n") == 1
    assert err.endswith(" s (kept in {})\n".format(os.path.realpath(place)))


def test_only_the_library_stays(place):
    """The cache directory is private and holds the library alone; no temporary file stays."""
    path = build()
    assert os.listdir(place) == [os.path.basename(path)]
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    assert not os.stat(path).st_mode & 0o077
    assert os.listdir(tempfile.gettempdir()) == []


def test_compilers_own_temporary_files(place, tmp_path, monkeypatch):
    """The compiler's own temporary files lie below the cache directory too, to be removed with the rest."""
    note = tmp_path / "note"
    monkeypatch.setenv("CC", logging(tmp_path, "echo \"$TMPDIR $LC_ALL\" > '{}'".format(note))[0])
    build()
    directory, locale = note.read_text().split()
    assert os.path.dirname(directory) == os.path.realpath(place) and locale == "C"


def test_open_umask(place):
    """With a umask of 0, directories and library are still writable by the user only, and used again."""
    umask = os.umask(0)
    try:
        os.environ["IM2COL_COMPAT_CACHE"] = os.path.join(place, "below")  # monkeypatch restores it
        first = build()
        made = os.stat(first).st_mtime
        forget()
        assert build() == first and os.stat(first).st_mtime == made
    finally:
        os.umask(umask)
    for path in (place, os.path.join(place, "below"), first):
        assert not os.stat(path).st_mode & 0o022


def test_remembered(place, monkeypatch):
    """Within a process, the second call runs and reads nothing."""
    path = build()
    monkeypatch.setattr(compile, "_find", None)
    assert build() == path


def test_second_process(place, tmp_path):
    """A new process takes the library from the cache: no compilation, no line, the file untouched."""
    cc, log = logging(tmp_path)
    path, err = run(REPORT, CC=cc)
    assert b"compiled this" in err and err.count(b"\n") == 1 and compilations(log) == 1
    before = os.stat(path)
    again, err = run(REPORT, CC=cc)
    after = os.stat(path)
    assert again == path and err == b"" and compilations(log) == 1
    assert (after.st_mtime, after.st_ino) == (before.st_mtime, before.st_ino)


def test_what_matters_has_its_own_file(place, tmp_path, monkeypatch):
    """Another source, flags, compiler, options of it, or file in its place give another library."""
    paths = [build(), library(SOURCE + "\n", FLAGS, "this"), library(SOURCE, FLAGS + ("-g",), "this")]
    cc, _ = logging(tmp_path)
    for words in (cc, cc + " -O1", "env " + cc):
        monkeypatch.setenv("CC", words)
        for age in (1e9, 2e9):
            os.utime(cc, (age, age))
            forget()
            paths.append(build())
            forget()
            assert build() == paths[-1]
    assert len(set(paths)) == 9 and all(os.path.isfile(path) for path in paths)


def test_native_is_for_this_processor(place, monkeypatch):
    """With -march=native, another processor has another library; without it, the same."""
    command = compile.command()
    names = []
    for cpu in ("one", "two"):
        monkeypatch.setattr(cache, "_processor", lambda cpu=cpu: cpu)
        names.append([cache.name(SOURCE, flags, command, None) for flags in (("-march=native",), FLAGS)])
    assert names[0][0] != names[1][0]
    assert names[0][1] == names[1][1]


def test_libc_by_itself(monkeypatch):
    """Where os.confstr doesn't know the name, as on Python 2.7, the C library says its version; another says nothing."""
    told = cache.libc()
    if hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        assert told.startswith("glibc 2.")

    def confstr(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", confstr)
    assert cache.libc() == told
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert cache.libc() is None


def test_libraries_follow_the_source(place, tmp_path, monkeypatch):
    """Flags that start with -l stand after the source, the others before it; CC may have words of its own."""
    cc, log = logging(tmp_path)
    monkeypatch.setenv("CC", cc + " -DVALUE='6 * 7'")
    path = library("int answer(void) { return VALUE; }", ("-lm", "-O1"), "this")
    assert answer(path) == 42
    with open(log) as stream:
        words = stream.read().splitlines()[-1].split()
    source = [index for index, word in enumerate(words) if word.endswith(".c")][0]
    assert words.index("-O1") < source < words.index("-lm")


def truncate(path, content):
    return content[: len(content) // 2]


def truncate_by_one(path, content):
    return content[:-1]


def flip(path, content):
    middle = len(content) // 2
    return content[:middle] + bytes(bytearray([bytearray(content)[middle] ^ 1])) + content[middle + 1 :]


def flip_last(path, content):
    return content[:-1] + bytes(bytearray([bytearray(content)[-1] ^ 1]))


def empty(path, content):
    return b""


def garbage(path, content):
    return b"garbage" * 1000


@pytest.mark.parametrize("damage", [truncate, truncate_by_one, flip, flip_last, empty, garbage])
def test_damaged_file(place, damage):
    """A cached file that isn't what was written is compiled again, in its place."""
    path = build()
    with open(path, "rb") as stream:
        content = stream.read()
    damaged = damage(path, content)
    assert damaged != content
    with open(path, "wb") as stream:
        stream.write(damaged)
    forget()
    assert build() == path
    assert cache.intact(path) and answer(path) == 42
    assert os.listdir(place) == [os.path.basename(path)]


def test_file_others_can_write(place):
    """A cached file that others could have written, or a link, is replaced."""
    path = build()
    os.chmod(path, 0o722)
    forget()
    assert build() == path and not os.stat(path).st_mode & 0o022
    os.rename(path, path + ".moved")
    os.symlink(path + ".moved", path)
    forget()
    assert build() == path and not os.path.islink(path)


def test_file_removed_meanwhile(place):
    """A library that was deleted is compiled again, even by a process that remembers it."""
    path = build()
    shutil.rmtree(place)
    assert build() == path and answer(path) == 42


# The directory


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_writable_by_others(place, mode, capfd):
    """A cache directory that others can write isn't used, and the line tells why."""
    os.mkdir(place)
    os.chmod(place, mode)
    path = build()
    assert is_temporary(path) and answer(path) == 42 and os.listdir(place) == []
    err = capfd.readouterr()[1]
    assert "until this process ends: " in err and "isn't private" in err and err.count("\n") == 1


@pytest.mark.parametrize("above", ["parent", "parent/one/two"])
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_below_what_others_can_write(place, monkeypatch, above, mode, capfd):
    """Nor is one that others could replace, at any height, and nothing is made there. The line says how to mend it."""
    parent = os.path.join(place, "parent")
    os.makedirs(os.path.join(place, above))
    os.chmod(parent, mode)
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", os.path.join(place, above, "below"))
    assert is_temporary(build()) and os.listdir(os.path.join(place, above)) == []
    assert "{} isn't private: others can write there (chmod go-w)".format(parent) in capfd.readouterr()[1]
    forget()
    os.chmod(parent, mode & ~0o022)
    assert os.path.dirname(build()) == os.path.join(os.path.realpath(place), above, "below")


def test_below_a_sticky_directory(place, monkeypatch):
    """Where everybody may write, but nobody may move what is another's, as in /tmp, an own directory is used."""
    os.mkdir(place)
    os.chmod(place, 0o1777)
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", os.path.join(place, "below"))
    for _ in range(2):
        assert os.path.dirname(build()) == os.path.realpath(os.path.join(place, "below"))
        forget()


@root_only
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_below_another_users_directory(place, monkeypatch, mode, capfd):
    """Nor one that another user could move, though nobody else may write there."""
    below = os.path.join(place, "below")
    os.mkdir(place)
    os.mkdir(below, 0o700)
    os.chmod(place, mode)
    os.chown(place, 12345, -1)
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", below)
    assert is_temporary(build()) and os.listdir(below) == []
    assert "{} is another user's".format(place) in capfd.readouterr()[1]


@pytest.mark.parametrize("parent, mode", [("", 0o777), ("", 0o775), ("below", 0o777)])
def test_temporary_directory_that_others_can_move(place, tmp_path, monkeypatch, parent, mode):
    """A directory for temporary files is checked in the same way. With neither there is no library, and two reasons."""
    os.mkdir(place)
    os.chmod(place, 0o777)
    temporary = tmp_path / "temporary"
    (temporary / "below").mkdir()
    os.chmod(str(temporary), mode)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / parent))
    with pytest.raises(CannotCompile) as caught:
        build()
    reasons = str(caught.value).split("; ")
    assert len(reasons) == 2 and place in reasons[0] and str(temporary) in reasons[1], reasons
    assert all("isn't private" in reason for reason in reasons)
    assert os.listdir(place) == [] and os.listdir(str(temporary)) == ["below"]
    with pytest.raises(EnvironmentError):
        cache.scratch()
    os.chmod(place, 0o700)
    assert os.path.dirname(cache.scratch()) == os.path.realpath(place)


@root_only
def test_another_users_directory(place):
    """Nor one that belongs to another user."""
    os.mkdir(place, 0o700)
    os.chown(place, 12345, -1)
    assert is_temporary(build())


@root_only
def test_another_users_link(place):
    """Nor one behind a link that another user made, wherever in the path the link is."""
    os.mkdir(place + ".real", 0o700)
    os.symlink(place + ".real", place)
    os.lchown(place, 12345, -1)
    assert is_temporary(build())
    forget()
    os.environ["IM2COL_COMPAT_CACHE"] = os.path.join(place, "below")  # monkeypatch restores it
    assert is_temporary(build())


def test_own_link(place):
    """The user's own link to a private directory is followed; a dangling one isn't."""
    os.symlink(place + ".real", place)
    assert is_temporary(build()) and not os.path.exists(place + ".real")
    forget()
    os.mkdir(place + ".real", 0o700)
    assert os.path.dirname(build()) == os.path.realpath(place + ".real")


def test_links_to_links(place, monkeypatch):
    """So are links in links and relative ones, and each directory on the way is checked; a circle isn't a directory."""
    for directory in (place, place + ".real", place + ".real/deep", place + ".open", place + ".open/deep"):
        os.mkdir(directory, 0o700)
    real = os.path.realpath(place + ".real")
    os.symlink(os.path.basename(place) + ".real", place + ".one")
    os.symlink("../{}.one/./deep/..".format(os.path.basename(place)), os.path.join(place, "two"))
    os.symlink("three", os.path.join(place, "three"))
    os.symlink(place + ".open/deep", os.path.join(place, "four"))
    os.chmod(place + ".open", 0o777)
    for name, expected in (("two", real), ("two/deep/new", real + "/deep/new"), ("three", None), ("four", None)):
        monkeypatch.setenv("IM2COL_COMPAT_CACHE", os.path.join(place, name))
        forget()
        path = build()
        assert is_temporary(path) if expected is None else os.path.dirname(path) == expected, name


#: What is run with two users: a victim, whose cache is below a directory that is an attacker's, who swaps the cache for
#: a directory of his. It prints what the victim loads: at first, and meanwhile.
ATTACK = """
import ctypes, os, signal, subprocess, tempfile, traceback
OWNER, GROUP, MODE, READY = {!r}
ABOVE = tempfile.gettempdir()
VICTIM, ATTACKER = 65533, 65534
PARENT = ABOVE + "/parent"
place, evil, away = PARENT + "/cache", PARENT + "/evil", PARENT + "/away"

def forked(user, work):
    pid = os.fork()
    if pid == 0:
        status = 9
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid

def status_of(pid):
    return os.WEXITSTATUS(os.waitpid(pid, 0)[1])

def load():
    try:
        return ctypes.CDLL(compile.library(SOURCE, FLAGS, "this")).answer()
    except (compile.CannotCompile, OSError):
        return 0
    finally:
        if not READY:
            try:
                os.rmdir(place)
            except OSError:
                pass

def attack():
    while True:
        if READY:
            moves = [lambda pair=pair: os.rename(*pair) for pair in
                     ((place, away), (evil, place), (place, evil), (away, place))]
        else:
            moves = [lambda: os.symlink(evil, place), lambda: os.remove(place),
                     lambda: os.mkdir(place), lambda: os.rmdir(place)]
        for move in moves:
            try:
                move()
            except OSError:
                pass

# The compiler is open to the first load alone, and no directory for temporary files is.
tempfile.tempdir = ABOVE + "/open"
os.mkdir(tempfile.tempdir)
os.chmod(tempfile.tempdir, 0o777)
os.environ["IM2COL_COMPAT_CACHE"], os.environ["CC"] = place, ABOVE + "/cc"
with open(ABOVE + "/cc", "w") as stream:
    stream.write("#!/bin/sh\\n[ -e '%s/closed' ] && exit 1\\nexec cc \\"$@\\"\\n" % ABOVE)
os.chmod(ABOVE + "/cc", 0o755)
os.mkdir(PARENT, 0o755)
for directory, user in ((place, VICTIM), (evil, ATTACKER)):
    os.mkdir(directory, 0o700)
    os.chown(directory, user, user)
ready, READY = READY, True
assert status_of(forked(VICTIM, load)) == 42
READY = ready
library = os.listdir(place)[0]
with open(evil + "/answer.c", "w") as stream:
    stream.write("int answer(void) {{ return 66; }}")
subprocess.check_call(["cc", "-shared", "-fPIC", "-o", evil + "/" + library, evil + "/answer.c"])
os.chmod(evil, 0o755)
os.chmod(evil + "/" + library, 0o755)
os.chown(evil + "/" + library, ATTACKER, ATTACKER)
if not READY:
    os.remove(place + "/" + library)
    os.rmdir(place)
open(ABOVE + "/closed", "w").close()
os.chown(PARENT, ATTACKER if OWNER else 0, ATTACKER if GROUP else 0)
os.chmod(PARENT, MODE)
first = status_of(forked(VICTIM, load))
attacker = forked(ATTACKER, attack)
try:
    found = [status_of(forked(VICTIM, load)) for _ in range(100 if READY else 20)]
finally:
    os.kill(attacker, signal.SIGKILL)
    os.waitpid(attacker, 0)
print("%d %s" % (first, sorted(set(found))))
"""


@pytest.fixture
def common():
    """A directory for temporary files that every user may use."""
    above = tempfile.mkdtemp(dir="/tmp")
    try:
        if os.geteuid() == 0:
            try:
                os.chown(above, 65533, 65533)
                os.chown(above, 0, 0)
            except OSError:
                pytest.skip("root of a container that has no other users")
        os.chmod(above, 0o1777)
        yield above
    finally:
        shutil.rmtree(above)


@root_only
@pytest.mark.parametrize(
    "owner, group, mode, ready, first, all_of_them",
    [
        (True, False, 0o755, True, b"0", b"[0]"),
        (True, False, 0o1777, True, b"0", b"[0]"),
        (False, True, 0o775, True, b"0", b"[0]"),
        (False, False, 0o777, True, b"0", b"[0]"),
        (False, False, 0o1777, True, b"42", b"[42]"),
        (False, False, 0o1777, False, b"0", b"[0]"),
    ],
)
def test_attack(place, common, owner, group, mode, ready, first, all_of_them):
    """Another user who can move the cache directory, or make it first, gets nothing loaded. He can do nothing about one
    that lies as those of /tmp do."""
    out, _ = run(ATTACK.format((owner, group, mode, ready)), TMPDIR=common, IM2COL_COMPAT_QUIET="1")
    assert out == first + b" " + all_of_them


#: A user in a container that has no root: its files, and all those of others, appear as nobody's.
CONTAINER = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65533)
    os.setuid(65533)
    libc.prctl(4, 1, 0, 0, 0)  # for a process that changed its user, /proc/self is root's
user = os.geteuid()
try:
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "no namespaces")
    with open("/proc/self/uid_map", "w") as stream:
        stream.write("%d %d 1" % (user, user))
except EnvironmentError as error:
    print("skip: %s" % error)
    sys.exit()
assert os.geteuid() == user and os.stat("/").st_uid not in (0, user)
path = compile.library(SOURCE, FLAGS, "this")
assert ctypes.CDLL(path).answer() == 42
print(os.path.dirname(path))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs namespaces of users")
def test_container_without_root(place, common):
    """In Apptainer or Bubblewrap root's directories aren't anybody's, and are taken for root's."""
    directory = os.path.join(common, "cache")
    out, _ = run(CONTAINER, TMPDIR=common, IM2COL_COMPAT_CACHE=directory)
    if out.startswith(b"skip"):
        pytest.skip(out.decode())
    assert out.decode() == directory


# What no library can be loaded from


@pytest.fixture
def noexec(place):
    """Mounts a directory noexec, once; skips where that can't be done."""
    mounted = []

    def mount(directory):
        with open(os.devnull, "w") as nothing:
            words = ["mount", "-t", "tmpfs", "-o", "noexec,mode=700", "tmpfs", directory]
            if not sys.platform.startswith("linux") or subprocess.call(words, stdout=nothing, stderr=nothing):
                pytest.skip("a directory can't be mounted noexec here")
        mounted.append(directory)

    yield mount
    for directory in mounted:
        subprocess.check_call(["umount", "-l", directory])


def test_mounted_noexec(place, tmp_path, noexec, monkeypatch, capfd):
    """Nothing is compiled for a cache from which nothing can be loaded. The temporary directory is used, and the line
    says why."""
    os.mkdir(place)
    noexec(place)
    cc, log = logging(tmp_path)
    monkeypatch.setenv("CC", cc)
    path = build()
    assert is_temporary(path) and answer(path) == 42 and compilations(log) == 1 and os.listdir(place) == []
    assert "no library can be loaded from {} (is it mounted noexec?)".format(place) in capfd.readouterr()[1]
    forget()
    noexec(tempfile.gettempdir())
    with pytest.raises(CannotCompile) as caught:
        build()
    reasons = str(caught.value).split("; ")
    assert len(reasons) == 2 and all("mounted noexec" in reason for reason in reasons)
    assert place in reasons[0] and tempfile.gettempdir() in reasons[1] and compilations(log) == 1


def test_library_that_is_noexec(place, noexec):
    """A library that is there, whole, but can't be loaded, isn't used."""
    path = build()
    with open(path, "rb") as stream:
        content = stream.read()
    noexec(place)
    with open(path, "wb") as stream:
        stream.write(content)
    os.chmod(path, 0o700)
    forget()
    assert is_temporary(build()) and answer(build()) == 42


def test_nothing_is_compiled_in_vain(place, tmp_path, monkeypatch):
    """The same where nothing can be mounted: the system is asked before anything is compiled."""

    def fails(descriptor, directory):
        if directory.startswith(os.path.realpath(place)):
            raise OSError("not from here")

    monkeypatch.setattr(cache, "check_loads", fails)
    cc, log = logging(tmp_path)
    monkeypatch.setenv("CC", cc)
    assert is_temporary(build()) and compilations(log) == 1


# What is left and kept too long


def test_what_killed_compilations_left(place):
    """Directories of compilations that were killed a day ago go with the next one. Others, and others' files, stay."""
    os.mkdir(place, 0o700)
    names = {}
    for name, age in (("old", 1.5), ("new", 0.5)):
        names[name] = os.path.basename(cache.work(place))
        open(os.path.join(place, names[name], "source.c"), "w").close()
        os.utime(os.path.join(place, names[name]), (time.time() - age * 86400,) * 2)
    for name in ("tmpfiles", "im2col_compat"):
        os.mkdir(os.path.join(place, name))
        os.utime(os.path.join(place, name), (1e9, 1e9))
    os.symlink(place, os.path.join(place, names["old"] + "link"))
    path = build()
    kept = ["tmpfiles", "im2col_compat", names["new"], names["old"] + "link", os.path.basename(path)]
    assert sorted(os.listdir(place)) == sorted(kept)


def test_killed(place, tmp_path):
    """A compilation that is killed leaves a directory that is known as such."""
    note = tmp_path / "note"
    cc, _ = logging(tmp_path, "echo $$ > '{}'; sleep 60".format(note))
    process = start(REPORT, CC=cc)
    while not (note.exists() and note.read_text().strip()):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    os.kill(int(note.read_text()), signal.SIGKILL)
    assert len(os.listdir(place)) == 1
    os.utime(os.path.join(place, os.listdir(place)[0]), (1e9, 1e9))
    assert os.listdir(place) != [os.path.basename(build())] and len(os.listdir(place)) == 1


def test_oldest_out(place, monkeypatch):
    """Beyond a bound those that weren't used for longest go; the new one stays, and what isn't ours. One that a process
    has loaded works on."""
    paths = [library("int answer(void) {{ return {}; }}".format(i), FLAGS, "this") for i in range(5)]
    loaded = ctypes.CDLL(paths[2])
    size = os.path.getsize(paths[0])
    for path, used, written in zip(paths, (50, 10, 20, 30, 40), (1, 2, 3, 4, 60)):
        os.utime(path, (used, written))
    other = os.path.join(place, "notes.so")
    with open(other, "wb") as stream:
        stream.write(b" " * 10 * size)
    os.utime(other, (1, 1))
    monkeypatch.setattr(cache, "MOST", 4 * size + 10)
    paths.append(build())
    assert [os.path.exists(path) for path in paths] == [True, False, False, True, True, True]
    assert loaded.answer() == 2 and os.path.exists(other)
    monkeypatch.setattr(cache, "MOST", 1)
    paths.append(library(SOURCE + "\n", FLAGS, "this"))
    assert [os.path.exists(path) for path in paths] == [False] * 6 + [True] and answer(paths[-1]) == 42


@pytest.mark.parametrize("below", ["", "below"])
def test_file_in_its_place(place, below, monkeypatch):
    """Where a file is in the place of the directory, or of one above it, the temporary one is used."""
    open(place, "w").close()
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", os.path.join(place, below).rstrip(os.sep))
    path = build()
    assert is_temporary(path) and answer(path) == 42


def test_directory_in_the_files_place(place):
    """Where a directory has the library's name, the temporary directory is used."""
    path = build()
    os.remove(path)
    os.mkdir(path)
    forget()
    assert is_temporary(build()) and os.listdir(place) == [os.path.basename(path)]


def fail_below(monkeypatch, module, name, places, code):
    """Have a function fail for paths below any of the places."""
    real = getattr(module, name)

    def fails(path, *arguments, **options):
        if any(os.path.realpath(str(path)).startswith(os.path.realpath(each)) for each in places):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(module, name, fails)


@pytest.mark.parametrize("exists", [False, True])
def test_read_only(place, monkeypatch, exists):
    """Where the directory can't be made or nothing made in it, the temporary one is used."""
    if exists:
        os.mkdir(place, 0o700)
    fail_below(monkeypatch, os, "mkdir", [place], errno.EROFS)
    path = build()
    assert is_temporary(path) and answer(path) == 42


def test_read_only_with_library(place, monkeypatch):
    """A library that is there is used, though nothing can be written."""
    path = build()
    forget()
    for module, name in ((os, "mkdir"), (cache, "write")):
        fail_below(monkeypatch, module, name, [place], errno.EROFS)
    assert build() == path


def test_full_disk(place, monkeypatch):
    """Where the cache's disk is full for us, the temporary directory is used; nothing stays behind."""
    fail_below(monkeypatch, cache, "write", [place], errno.ENOSPC)
    path = build()
    assert is_temporary(path) and answer(path) == 42 and os.listdir(place) == []


def test_full_disk_for_the_compiler(place, tmp_path, monkeypatch):
    """The same where it is full for the compiler."""
    full = "case \"$PWD\" in '{}'/*) echo 'fatal error: No space left on device'; exit 1;; esac"
    monkeypatch.setenv("CC", logging(tmp_path, full.format(os.path.realpath(place)))[0])
    path = build()
    assert is_temporary(path) and answer(path) == 42 and os.listdir(place) == []


def test_all_disks_full(place, monkeypatch):
    """Where nothing can be written anywhere, CannotCompile says so; nothing stays behind."""
    places = [place, tempfile.gettempdir()]
    fail_below(monkeypatch, cache, "write", places, errno.ENOSPC)
    with pytest.raises(CannotCompile, match="No space left"):
        build()
    assert os.listdir(place) == []
    assert [files for _, _, files in os.walk(places[1]) if files] == []


def test_no_directory_at_all(place, monkeypatch):
    """Where no directory can be made either, CannotCompile says so."""
    fail_below(monkeypatch, os, "mkdir", [place, tempfile.gettempdir()], errno.EACCES)
    with pytest.raises(CannotCompile, match="can't be written"):
        build()


def test_temporary_directory_goes(place):
    """The temporary directory is removed when its process ends; a forked child doesn't remove it."""
    os.mkdir(place)
    os.chmod(place, 0o777)
    code = (
        "import os\n"
        "path = compile.library(SOURCE, FLAGS, 'this')\n"
        "pid = os.fork()\n"
        "if pid == 0: sys.exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "assert os.path.isfile(path)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    mine = compile.library(SOURCE, FLAGS, 'this')\n"
        "    assert mine != path and os.path.isfile(mine)\n"
        "    sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert os.path.isfile(path)\n" + REPORT
    )
    out, _ = run(code)
    assert is_temporary(out.decode()) and os.listdir(tempfile.gettempdir()) == []


def test_temporary_directory_of_a_worker_goes(place):
    """So is that of a child of multiprocessing, which ends in another way."""
    os.mkdir(place)
    os.chmod(place, 0o777)
    code = (
        "import multiprocessing\n"
        "def work(): assert compile.library(SOURCE, FLAGS, 'this')\n"
        "context = multiprocessing.get_context('fork') if sys.version_info >= (3,) else multiprocessing\n"
        "process = context.Process(target=work)\n"
        "process.start()\n"
        "process.join()\n"
        "assert process.exitcode == 0\n"
    )
    run(code)
    assert os.listdir(tempfile.gettempdir()) == []


def test_working_directory(place, tmp_path):
    """A working directory that is deleted is no obstacle, and the process stays where it was."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import ctypes, os, signal\n"
        "os.chdir({!r})\n"
        "os.rmdir({!r})\n"
        "inode, handlers = os.stat('.').st_ino, [signal.getsignal(n) for n in range(1, 32)]\n"
        "path = compile.library(SOURCE, FLAGS, 'this')\n"
        "assert ctypes.CDLL(path).answer() == 42\n"
        "assert os.stat('.').st_ino == inode\n"
        "assert handlers == [signal.getsignal(n) for n in range(1, 32)]\n"
        "print(path)\n".format(str(gone), str(gone))
    )
    path, _ = run(code)
    assert os.path.dirname(path.decode()) == os.path.realpath(place)


def test_working_directory_without_permission(place, tmp_path, monkeypatch):
    """Nothing is written to the working directory."""
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.chdir(closed)
    os.chmod(str(closed), 0o500)
    assert answer(build()) == 42
    assert os.getcwd() == os.path.realpath(str(closed)) and os.listdir(".") == []


@pytest.mark.skipif(sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"), reason="the names can't be had")
def test_any_name(place, tmp_path):
    """The path may have spaces and characters beyond ASCII, wherever the line goes."""
    directory = os.path.join(place, NAME if sys.version_info >= (3,) else NAME.encode("utf-8"))
    for locale in ("C", "C.UTF-8"):
        shutil.rmtree(place, ignore_errors=True)
        code = "import ctypes\nassert ctypes.CDLL(compile.library(SOURCE, FLAGS, 'this')).answer() == 42\n"
        _, err = run(code, IM2COL_COMPAT_CACHE=directory, LC_ALL=locale)
        assert b"compiled this" in err
        assert len(os.listdir(directory)) == 1


def test_default_directory(place, tmp_path, monkeypatch):
    """Without the variable it's im2col_compat below XDG_CACHE_HOME where that is absolute, else below ~/.cache."""
    home = os.path.realpath(str(tmp_path))
    monkeypatch.delenv("IM2COL_COMPAT_CACHE")
    monkeypatch.setenv("HOME", home)
    for chosen, expected in ((home + "/xdg", home + "/xdg"), ("xdg", home + "/.cache"), ("", home + "/.cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", chosen)
        forget()
        assert os.path.dirname(build()) == expected + "/im2col_compat"


@pytest.mark.parametrize("home", [None, "", "nowhere"])
def test_no_home(place, tmp_path, monkeypatch, home):
    """Without a home directory the temporary one is used, and no home is made."""
    monkeypatch.delenv("IM2COL_COMPAT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home and str(tmp_path / home))
    assert is_temporary(build())
    assert not (tmp_path / "nowhere").exists()


@root_only
def test_home_of_another_user(place, tmp_path, monkeypatch):
    """Root makes nothing in another user's home."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(str(home), 12345, -1)
    monkeypatch.delenv("IM2COL_COMPAT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    assert is_temporary(build()) and os.listdir(str(home)) == []


# The compiler


def test_no_compiler(place, monkeypatch):
    """Without a compiler, the reason names those that were tried."""
    monkeypatch.setenv("PATH", os.path.dirname(place))
    with pytest.raises(CannotCompile) as caught:
        build()
    assert str(caught.value) == "there is no C compiler (tried cc, gcc, clang)"
    monkeypatch.setenv("CC", "tcc -g")
    with pytest.raises(CannotCompile) as caught:
        build()
    assert str(caught.value) == "there is no C compiler (tried tcc)"
    monkeypatch.setenv("CC", "'")
    with pytest.raises(CannotCompile, match="CC isn't a command"):
        build()


def test_compiler_that_does_not_start(place, tmp_path, monkeypatch):
    """A program that can't be executed is a CannotCompile too."""
    cc = script(tmp_path, "")
    with open(cc, "wb") as stream:
        stream.write(b"\x7fELF")
    monkeypatch.setenv("CC", cc)
    with pytest.raises(CannotCompile, match="compiler.sh can't be run"):
        build()


def test_bad_source(place):
    """The reason is the compiler's first error; nothing stays, and a later call may succeed."""
    with pytest.raises(CannotCompile) as caught:
        library("int good;\nint bad bad;\n", FLAGS, "this")
    assert str(caught.value).startswith(os.path.basename(CC) + " failed: ") and "error" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(place) == []
    assert answer(build()) == 42


@pytest.mark.parametrize(
    "text, reason",
    [("exit 3", "exit status 3"), ("echo no licence; exit 1", "no licence"), ("exit 0", "exit status 0")],
)
def test_compiler_that_fails(place, tmp_path, monkeypatch, text, reason):
    """One that fails without an error, or says that all is well and writes nothing, is a CannotCompile."""
    monkeypatch.setenv("CC", script(tmp_path, text + "\n"))
    with pytest.raises(CannotCompile) as caught:
        build()
    assert str(caught.value) == "compiler.sh failed: " + reason


def test_compiler_that_hangs(place, tmp_path, monkeypatch):
    """A hang is cut off, the programs that the compiler started included, and not tried twice."""
    monkeypatch.setattr(compile, "LIMIT", 1)
    note = tmp_path / "pid"
    cc, log = logging(tmp_path, "sleep 60 & echo $! > '{}'; wait".format(note))
    monkeypatch.setenv("CC", cc)
    started = time.time()
    with pytest.raises(CannotCompile) as caught:
        build()
    assert str(caught.value) == "compiler.sh was cut off after 1 s"
    assert time.time() - started < 10 and compilations(log) == 1
    assert os.listdir(place) == [] and ended(int(note.read_text()))


def test_compiler_that_hangs_once(place, tmp_path, monkeypatch):
    """It isn't tried again in this process, for the same kind, by any number of threads. What is there is used."""
    cc, log = logging(tmp_path, "[ -e '{}' ] && sleep 60".format(tmp_path / "stuck"))
    monkeypatch.setenv("CC", cc)
    path = library(SOURCE, FLAGS, "this", "one")
    (tmp_path / "stuck").mkdir()
    monkeypatch.setattr(compile, "LIMIT", 1)
    reasons = []

    def work(i):
        try:
            library(SOURCE + "\n" * (i % 2), FLAGS + ("-g",), "this", "one")
        except CannotCompile as error:
            reasons.append(str(error))

    started, before = time.time(), compilations(log)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons == ["compiler.sh was cut off after 1 s"] * 4 and time.time() - started < 3
    assert compilations(log) == before + 1
    compile._memo.clear()
    assert library(SOURCE, FLAGS, "this", "one") == path
    with pytest.raises(CannotCompile):
        library(SOURCE, FLAGS + ("-g",), "this", "other")
    assert compilations(log) == before + 2


def test_compiler_that_makes_nothing(place, tmp_path, monkeypatch):
    """One that fails for the simplest source, in both directories, isn't tried again in this process for the kind."""
    cc, log = logging(tmp_path, "exit 3")
    monkeypatch.setenv("CC", cc)
    for i in range(3):
        with pytest.raises(CannotCompile) as caught:
            library(SOURCE + "\n" * i, FLAGS, "this", "one")
        assert str(caught.value) == "compiler.sh failed: exit status 3" and type(caught.value) is CannotCompile
        assert compilations(log) == 3
    os.utime(cc, (1e9, 1e9))  # another compiler
    with pytest.raises(CannotCompile):
        library(SOURCE, FLAGS, "this", "one")
    assert compilations(log) == 6


def test_whose_fault_it_is(place, tmp_path, monkeypatch):
    """A source that doesn't compile is tried once, and others are compiled. Flags that the compiler doesn't know, or
    with which it fails in itself, are another matter; with flags that aren't known nothing is tried again."""
    cc, log = logging(tmp_path, "case \"$*\" in *-mnew*) echo 'error: no such instruction'; exit 1;; esac")
    monkeypatch.setenv("CC", cc)
    bad = "int bad bad;\n"
    for i, expected in ((1, 3), (2, 5)):  # beside it the simplest one, without flags and, once, with them
        with pytest.raises(CannotCompile) as caught:
            library(bad * i, FLAGS, "this")
        assert type(caught.value) is CannotCompile and "bad" in str(caught.value)
        assert compilations(log) == expected
    assert answer(build()) == 42
    before = compilations(log)
    for i in range(3):
        with pytest.raises(compile.OtherFlags, match="no such instruction"):
            library(SOURCE + "\n" * i, FLAGS + ("-mnew",), "this")
        assert compilations(log) == before + 3
    ice = "case \" $* \" in *\" -g \"*) echo 'internal compiler error: in extract_insn'; exit 1;; esac"
    monkeypatch.setenv("CC", logging(tmp_path, ice)[0])
    with pytest.raises(compile.OtherFlags, match="internal"):
        library(SOURCE, FLAGS + ("-g",), "this")
    assert os.listdir(tempfile.gettempdir()) == []


def test_disk_with_little_room(place, monkeypatch):
    """A disk that takes the simplest library, and not this one, is full."""
    fail = cache.write

    def write(path, mode, content):
        if path.startswith(os.path.realpath(place)) and len(content) > 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        fail(path, mode, content)

    make = compile._make
    monkeypatch.setattr(cache, "write", write)
    monkeypatch.setattr(compile, "_make", lambda source, flags, words, folder: (
        "No space left" if source == SOURCE and folder.startswith(os.path.realpath(place))
        else make(source, flags, words, folder)))  # fmt: skip
    assert is_temporary(build()) and os.listdir(place) == []


def test_much_output(place, tmp_path, monkeypatch):
    """What a program prints without end is dropped, and its end is heard of."""
    monkeypatch.setattr(compile, "MOST_OUTPUT", 1000)
    words = [sys.executable, "-c", "print('error: ' + 'x' * 100000); raise SystemExit(3)"]
    status, output = compile.run(words, str(tmp_path))
    assert status == 3 and len(output) == 1000 and output.startswith(b"error: xx")


def ended(pid):
    """Whether a process ends within a second; a zombie, which nobody may reap in a container, has."""
    for _ in range(100):
        try:
            with open("/proc/{}/stat".format(pid)) as stream:
                if stream.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except EnvironmentError:
            return True
        time.sleep(0.01)
    return False


def test_interrupt(place, tmp_path):
    """Ctrl-C ends the compiler, is raised as ever, and leaves no temporary files."""
    note = tmp_path / "pid"
    cc, _ = logging(tmp_path, "echo $$ > '{}'; sleep 60".format(note))
    code = "try:\n    compile.library(SOURCE, FLAGS, 'this')\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    process = start("import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + code, CC=cc)
    while not (note.exists() and note.read_text().strip()):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)  # the compiler may run before subprocess.Popen has returned, which is out of our hands
    interrupted = time.time()
    os.kill(process.pid, signal.SIGINT)
    assert finish(process)[0] == b"interrupted"
    assert time.time() - interrupted < 30 and ended(int(note.read_text()))
    assert os.listdir(place) == [] and os.listdir(tempfile.gettempdir()) == []


def test_children_ignored(place):
    """A process that ignores SIGCHLD, and so learns no exit status, has its library, and the right reason."""
    code = (
        "import ctypes, signal\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "assert ctypes.CDLL(compile.library(SOURCE, FLAGS, 'this')).answer() == 42\n"
        "try: compile.library('int bad bad;', FLAGS, 'this')\n"
        "except compile.CannotCompile as error: print(error)\n"
    )
    assert b"failed: " in run(code)[0]


# Many at once


def test_two_processes(place, tmp_path):
    """Processes that compile the same at once all succeed; one library and no temporary file stays."""
    cc, log = logging(tmp_path, "sleep 0.5")
    code = "import ctypes\nassert ctypes.CDLL(compile.library(SOURCE, FLAGS, 'this')).answer() == 42\n" + REPORT
    processes = [start(code, CC=cc) for _ in range(2)]
    paths = set([finish(process)[0] for process in processes])
    assert len(paths) == 1 and compilations(log) == 2
    assert os.listdir(place) == [os.path.basename(paths.pop().decode())]
    assert os.listdir(tempfile.gettempdir()) == []


def test_eight_threads(place, tmp_path, monkeypatch):
    """Threads that ask for the same library at once have it compiled once."""
    cc, log = logging(tmp_path, "sleep 0.2")
    monkeypatch.setenv("CC", cc)
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(build())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 8 and len(set(paths)) == 1 and compilations(log) == 1


def test_fork_while_compiling(place, tmp_path):
    """A child forked while another thread compiles has a lock of its own: it compiles, and ends."""
    note = tmp_path / "note"
    cc, log = logging(tmp_path, "echo > '{}'; sleep 1".format(note))
    code = (
        "import os, signal, threading, time, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "thread = threading.Thread(target=compile.library, args=(SOURCE, FLAGS, 'this'))\n"
        "thread.start()\n"
        "while not os.path.exists({!r}): time.sleep(0.01)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    signal.alarm(60)\n"
        "    compile.library(SOURCE, FLAGS, 'this')\n"
        "    os._exit(0)\n"
        "thread.join()\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert compile.library(SOURCE, FLAGS, 'this')\n".format(str(note))
    )
    run(code, CC=cc)
    assert compilations(log) == 2 and len(os.listdir(place)) == 1


def test_child_uses_what_the_parent_found(place, monkeypatch):
    """A forked child remembers the libraries in the cache directory."""
    path = build()
    pid = os.fork()
    if pid == 0:
        compile._find = None
        os._exit(0 if build() == path else 1)
    assert os.waitpid(pid, 0)[1] == 0


# The line


@pytest.mark.parametrize("value, quiet", [("1", True), ("0", False), ("", False)])
def test_quiet(place, monkeypatch, capfd, value, quiet):
    """IM2COL_COMPAT_QUIET=1 silences the line."""
    monkeypatch.setenv("IM2COL_COMPAT_QUIET", value)
    build()
    assert (capfd.readouterr()[1] == "") == quiet


def test_no_stderr(place, monkeypatch):
    """Without a sys.stderr, or with one that is closed, there is no line, and no error."""
    monkeypatch.setattr(sys, "stderr", None)
    assert os.path.isfile(build())
    closed = open(os.devnull, "w")
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert os.path.isfile(library(SOURCE + "\n", FLAGS, "this"))
