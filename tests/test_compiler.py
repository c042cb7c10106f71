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
    monkeypatch.setattr(compile, "_memo", {})
    monkeypatch.setattr(cache, "_temporary", None)
    yield str(tmp_path / "cache")
    shutil.rmtree(str(tmp_path), ignore_errors=True)


def forget():
    """What a new process would not know."""
    compile._memo.clear()
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


def test_parent_writable_by_everyone(place):
    """Nor is one that anybody could replace."""
    os.mkdir(place)
    os.chmod(place, 0o777)
    os.environ["IM2COL_COMPAT_CACHE"] = os.path.join(place, "below")  # monkeypatch restores it
    assert is_temporary(build())
    forget()
    os.chmod(place, 0o1777)  # as /tmp is
    assert os.path.dirname(build()) == os.path.realpath(os.path.join(place, "below"))


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
    assert is_temporary(build())
    forget()
    os.mkdir(place + ".real", 0o700)
    assert os.path.dirname(build()) == os.path.realpath(place + ".real")


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
