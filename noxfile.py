"""Every environment: the suite on the installed package in each, and docs/compatibility.md written from that.

    make matrix JOBS=2                                  all of it, two legs at a time
    make matrix LEGS="py2.7-torch1.0.0 py3.13-numpy2"   some legs; the table goes to the screen only
    IM2COL_COMPAT_MATRIX_PYTHON=path/to/python          adds the leg of an interpreter that brings its own torch
                                                        (several are separated as in PATH)

A leg makes an environment of its Python, installs the package as a user of that Python would, with that Python's own
pip, looks which engine it got, and runs pytest. tests/matrix/ has what runs inside the environments, and the table's
writer. This file knows the legs and how to install.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
TOOLS = ROOT / "tests" / "matrix"
RESULTS = ROOT / ".nox" / "matrix"
sys.path.insert(0, str(TOOLS))
import pythons  # noqa: E402
import report  # noqa: E402

nox.options.error_on_missing_interpreters = False  # the table names what is missing
# One cache for all legs, as the legs of one user would have, and not that user's own.
os.environ["IM2COL_COMPAT_CACHE"] = str(RESULTS / "kernels")
# Old pips take a constraint that the machine has for torch in place of what a leg asks for.
os.environ["PIP_CONSTRAINT"] = os.devnull
pythons.name_all()

if os.path.isdir("/usr/lib/ccache"):
    # Legs of one Python compile the same C, in other folders. (What is kept isn't in a home: tests look what gets there.)
    os.environ.update(PATH=os.pathsep.join(["/usr/lib/ccache", os.environ["PATH"]]), CCACHE_NOHASHDIR="1")
    os.environ["CCACHE_DIR"] = str(ROOT / ".nox" / "ccache")

#: The pip of the time, not the newest one.
EMBEDDED = ["--no-periodic-update"] + [
    word for name in ("pip", "setuptools", "wheel") for word in ("--" + name, "embed")
]
COMPILERS = ("gcc", "clang", "aarch64-linux-gnu-gcc", "i686-linux-gnu-gcc")
EVERYTHING = ("tests",)
# Not left to pip: the old ones don't see, in every index, that pycparser's later releases are for later Pythons.
PYCPARSER = "pycparser<2.22"
CFFI = ("cffi", "numpy<1.17; python_version < '3.7'", "numpy; python_version >= '3.7'", PYCPARSER)
TEST_TOOLS = ("pytest", "hypothesis")
#: What PyTorch 2.13's own tests, and exports to ONNX, are tested with.
TOOLS_OF_TODAY = ("expecttest", "onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.32.0")
#: What another way of installing is tried with: engines, the C library's columns, compiled ops, the documents' examples.
SOME = tuple("tests/test_{}.py".format(name) for name in ("columns", "backends", "kernels", "docs"))
#: What each release of PyTorch is tried with.
THIN = tuple("tests/test_{}.py".format(name) for name in ("columns", "conv", "kernels", "autograd", "modules"))
#: What PyTorch asks for beside CUDA's libraries.
ASKED = ("typing_extensions", "sympy", "networkx", "jinja2", "fsspec", "filelock", "setuptools")


@dataclasses.dataclass(frozen=True)
class Leg:
    """One environment, and what the installation must have given there."""

    python: str  # a version, or a path
    packages: tuple = ()  # beside those that im2col_compat asks for
    what: str = ""
    source: str = "sdist"  # "wheel", "sdist, no isolation", "setup.py install"
    pip: str = ""  # if another than the Python's own
    variables: dict = dataclasses.field(default_factory=dict)
    compiler: bool = True
    tests: tuple = EVERYTHING
    demo: bool = False
    engine: str = "ffi"
    library: bool = True
    alone: str = ""  # the PyTorch that is installed without CUDA's libraries
    site: str = ""  # where an interpreter that brings its own torch has it
    missing: str = ""  # why it can't be run, but for a missing Python

    @property
    def name(self):
        python = "py" + self.python if os.sep not in self.python else ""
        packages = self.packages + (self.alone,)
        torch = [package.replace("==", "") for package in packages if package.startswith("torch")]
        return "-".join(filter(None, [python] + torch + [self.what]))


def torch(python, version, *packages, **more):
    return Leg(python, ("torch==" + version,) + packages, engine="torch", **more)


def thin(python, version, *packages):
    """A release by itself, with the wheel. Its environment goes when it has passed: they would fill a disk."""
    asked = ASKED if version.startswith("2") else ASKED[:1]
    return Leg(python, packages + asked, "", "wheel", alone="torch==" + version, engine="torch", tests=THIN)


def oldest(python, cffi, numpy):
    """The oldest cffi and NumPy of a Python, to build with and to run with."""
    tests = EVERYTHING if python == "2.7" else SOME
    return Leg(python, ("cffi==" + cffi, "numpy==" + numpy, PYCPARSER), "oldest", "sdist, no isolation", tests=tests)


def pip9(python, *packages, **more):
    """The last pip that knows nothing of pyproject.toml."""
    what = "pip9-with-cffi" if packages else "pip9"
    return Leg(python, packages, what, pip="pip==9.0.3", tests=SOME, **more)


def own(path):
    """An interpreter that brings its own torch: its environment sees that interpreter's packages behind its own."""
    ask = (
        "import os, sys, torch; print('%d.%d' % sys.version_info[:2]); print(torch.__version__);"
        "print(os.path.dirname(os.path.dirname(os.path.abspath(torch.__file__))));"
        "print('torch' if hasattr(torch.nn.functional, 'unfold') else 'ffi')"
    )
    try:
        answer = subprocess.run([path, "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return Leg(path, what="own-torch", missing="no torch in {}".format(path))
    version, torch_version, site, engine = answer.stdout.decode().split("\n")[:4]
    old = engine == "ffi"
    tests = EVERYTHING if old else THIN
    name = "own-torch{}-py{}".format(torch_version, version)
    return Leg(path, (), name, demo=old, engine=engine, site=site, tests=tests)


#: The system's Python has a packaged torch on some systems.
OWN = ["/usr/bin/python3"] + os.environ.get("IM2COL_COMPAT_MATRIX_PYTHON", "").split(os.pathsep)

LEGS = [
    *[own(path) for path in OWN if path],
    torch("2.7", "1.0.0", demo=True),
    torch("2.7", "1.4.0", "future", tests=THIN),  # needed on 2.7, but not asked for
    torch("3.6", "1.0.0", tests=THIN),
    torch("3.6", "1.10.2", tests=THIN),
    torch("3.7", "1.12.1", tests=THIN),
    torch("3.8", "1.8.1", tests=THIN),
    torch("3.9", "1.12.1", "numpy<2"),  # which PyTorch before 2.3 asks for, without saying so
    torch("3.11", "2.13.0", tests=THIN),  # make test has the whole suite
    torch("3.11", "2.13.0", "numpy<2", what="numpy1-baseline", variables={"IM2COL_COMPAT_ISA": "baseline"}, tests=THIN),
    torch("3.9", "1.12.1", "numpy<2", what="no-compiler", compiler=False, library=False),
    Leg("3.12", ("numpy<2",), "numpy1", "wheel", tests=SOME),
    Leg("3.12", (), "no-compiler", "wheel", compiler=False),
    Leg("3.13", (), "numpy2", "wheel"),
    Leg("3.5"),
    Leg("3.14", (), "", "wheel"),
    oldest("2.7", "1.10.0", "1.13.0"),
    oldest("3.6", "1.10.0", "1.13.0"),
    oldest("3.7", "1.11.5", "1.14.5"),
    oldest("3.8", "1.13.0", "1.17.3"),
    oldest("3.9", "1.14.3", "1.19.3"),
    oldest("3.10", "1.15.0", "1.21.2"),
    oldest("3.11", "1.15.1", "1.23.2"),
    oldest("3.12", "1.16.0", "1.26.0"),
    oldest("3.13", "1.17.0", "2.1.0"),
    # The releases that have no leg above.
    thin("3.6", "1.1.0"),
    thin("3.6", "1.2.0"),
    thin("3.6", "1.3.1"),
    thin("3.7", "1.5.1"),
    thin("3.7", "1.6.0"),
    thin("3.7", "1.7.1"),
    thin("3.8", "1.9.1"),
    thin("3.8", "1.11.0"),
    thin("3.10", "1.13.1", "numpy<2"),
    thin("3.10", "2.0.1", "numpy<2"),
    *[thin("3.11", version, "numpy<2") for version in ("2.1.2", "2.2.2", "2.3.1", "2.4.1", "2.5.1")],
    *[thin("3.12", version) for version in ("2.6.0", "2.7.1", "2.8.0", "2.9.1")],
    *[thin("3.13", version) for version in ("2.10.0", "2.11.0", "2.12.1", "2.14.1")],
    dataclasses.replace(thin("3.13", "2.15.0"), tests=EVERYTHING),
    # Ways to install of 2018, when pip first learnt of pyproject.toml, and of those who can't have another.
    pip9("2.7", engine="slices", library=False),
    pip9("2.7", *CFFI),
    pip9("3.6", engine="slices", library=False),
    pip9("3.6", *CFFI),
    Leg("3.6", (), "pip10", pip="pip==10.0.1", tests=SOME),
    Leg("2.7", (), "pip18", pip="pip==18.1", tests=SOME),
    Leg("2.7", (), "pip19", pip="pip==19.3.1", tests=SOME),
    Leg("3.6", (), "pip19", pip="pip==19.3.1", tests=SOME),
    Leg("2.7", CFFI, "setup.py-install", "setup.py install", tests=SOME),
    Leg("3.6", CFFI, "setup.py-install", "setup.py install", tests=SOME),
    Leg("3.12", CFFI, "setup.py-install", "setup.py install", tests=SOME),
    Leg("3.6", (), "gnu89", variables={"CC": "gcc -std=gnu89"}, tests=SOME),
]


@nox.session(python=False)
def dist(session):
    """The sdist and the wheel that the legs install: made by `python -m build`, and audited."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    session.run(sys.executable, "-m", "build", "--quiet", "--outdir", str(RESULTS / "dist"))
    session.run(sys.executable, str(TOOLS / "distribution.py"), "--audit", str(RESULTS / "dist"))
    (RESULTS / "dist.txt").write_text("The wheel is {}.".format(Path(distribution(".whl")).name))


def distribution(suffix):
    (found,) = (RESULTS / "dist").glob("*" + suffix)
    return str(found)


#: PyTorch's libraries, without an import of it.
WHERE = "import os, sysconfig; print(os.path.join(sysconfig.get_paths()['purelib'], 'torch', 'lib'))"


def install(session, leg):
    if leg.pip:
        # Today's indexes aren't for pips of then: the address that pip 9 asks is no more. So the Python's own pip
        # downloads everything for it, and what is tested is what it makes of that.
        wheels = str(RESULTS / (leg.name + "-wheels"))
        everything = (leg.pip, "setuptools", "wheel") + CFFI + TEST_TOOLS
        session.run("python", "-m", "pip", "download", "--quiet", "--dest", wheels, *everything)
        session.env.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=wheels)
        session.install(leg.pip)
    if leg.alone:
        session.install("--no-deps", leg.alone)
    if leg.packages:
        session.install(*leg.packages)
    if leg.alone:
        libraries = session.run("python", "-c", WHERE, silent=True).strip()
        standins = str(RESULTS / (leg.name + "-standins"))
        session.run(sys.executable, str(TOOLS / "standins.py"), libraries, standins, silent=True)
        session.env["LD_LIBRARY_PATH"] = standins
    if leg.source == "wheel":
        session.install(distribution(".whl"))
    elif leg.source == "sdist":
        session.install(distribution(".tar.gz"))
    else:
        session.install("setuptools", "wheel")
        if leg.source == "sdist, no isolation":
            session.install("--no-build-isolation", distribution(".tar.gz"))
        else:
            with tarfile.open(distribution(".tar.gz")) as archive:
                archive.extractall(RESULTS / leg.name)
            (source,) = (RESULTS / leg.name).iterdir()
            with session.chdir(source):
                session.run("python", "setup.py", "--quiet", "install")


def run_leg(session, leg):
    if leg.missing:
        session.skip(leg.missing)
    result = RESULTS / (leg.name + ".json")
    result.write_text("{}")  # stays, if the installation fails
    session.env.update(leg.variables)
    if leg.site:
        place = session.run("python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", silent=True)
        Path(place.strip(), "own_torch.pth").write_text(leg.site + "\n")
    if not leg.compiler:
        session.env["PATH"] = session.bin
    # Elsewhere, as old pips take what the source tree's folder holds for installed.
    with session.chdir(RESULTS):
        install(session, leg)
        if not leg.site and not leg.alone:
            session.run("python", "-m", "pip", "check")
        facts = json.loads(session.run("python", str(TOOLS / "facts.py"), silent=True).splitlines()[-1])
        result.write_text(json.dumps(facts))
        for what, expected in (("engine", leg.engine), ("library", leg.library)):
            if facts[what] != expected:
                session.error("{}: {} expected, but got {}".format(what, expected, facts[what]))
        session.install(*TEST_TOOLS, *(TOOLS_OF_TODAY if "2.13" in (facts["torch"] or "") else ()))
    session.run("python", "-m", "pytest", "-q", "--junitxml", str(result.with_suffix(".xml")), *leg.tests)
    if leg.demo:
        session.install("scikit-learn")
        session.run("python", str(ROOT / "docs" / "demo.py"), "--core")
        (RESULTS / (leg.name + "-demo.txt")).write_text("docs/demo.py --core ran in {}.".format(leg.name))
    if leg.alone:
        shutil.rmtree(session.virtualenv.location)
    elif not facts["torch"]:  # with one, the environment is needed for the state dicts
        with session.chdir(RESULTS):
            session.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "im2col_compat")
            session.run("python", str(TOOLS / "leftovers.py"))
    result.write_text(json.dumps(dict(facts, ended=True)))


def register(leg):
    """A session for a leg. Python's venv has the pip that came with it; that of 3.6 is too old for today's indexes."""
    backend = dict(venv_backend="venv")
    if leg.python in ("2.7", "3.6") or leg.site:
        backend = dict(venv_backend="virtualenv", venv_params=EMBEDDED)

    @nox.session(name=leg.name, python=leg.python, tags=["leg"], **backend)
    def session(session):
        run_leg(session, leg)


for each in LEGS:
    register(each)


@nox.session(python=False)
def states(session):
    """State dicts of every PyTorch, loaded by every PyTorch."""
    folder = RESULTS / "states"
    folder.mkdir(exist_ok=True)
    pythons = {}
    for leg in LEGS:
        facts = report.outcome(RESULTS, leg)[0]
        if facts and facts.get("torch") and not leg.alone:
            pythons.setdefault(facts["torch"], facts["executable"])
    for version, python in pythons.items():
        session.run(python, str(TOOLS / "states.py"), "save", str(folder), version, external=True)
    for python in pythons.values():
        session.run(python, str(TOOLS / "states.py"), "load", str(folder), external=True)
    (RESULTS / "states.txt").write_text(
        "State dicts with every named op saved by each of PyTorch {} were loaded by each, with the same results.".format(
            ", ".join(pythons)
        )
    )


@nox.session(python=False)
def compilers(session):
    """The C library compiles without a warning by every compiler that is here."""
    sys.path.insert(0, str(ROOT / "ffi"))
    from build import FLAGS

    tried = []
    for compiler in COMPILERS:
        if shutil.which(compiler) is None:
            tried.append(compiler + ": not here")
            continue
        for source in sorted((ROOT / "ffi").glob("*.c")):
            session.run(compiler, *FLAGS, "-Werror", "-c", str(source), "-o", os.devnull, external=True)
        version = session.run(compiler, "-dumpfullversion", "-dumpversion", silent=True, external=True)
        tried.append("{} {}: no warnings".format(compiler, version.strip()))
    (RESULTS / "compilers.txt").write_text("C compilers. " + "; ".join(tried) + ".")


@nox.session(python=False)
def page(session):
    """docs/compatibility.md."""
    text = report.page(RESULTS, LEGS, lambda leg: leg.tests == EVERYTHING, lambda leg: leg.tests == THIN)
    (ROOT / "docs" / "compatibility.md").write_text(text)


@nox.session(python=False)
def table(session):
    """The rows of the legs that are named behind `--`, on the screen."""
    print(report.rows(RESULTS, [leg for leg in LEGS if leg.name in session.posargs]))
