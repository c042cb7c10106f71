"""Metadata, and a C extension that the package can do without. No C flags: ffi/build.py has them."""

import io
import os
import re
import sys
import sysconfig
from threading import Thread

from setuptools import setup
from setuptools.command.build_ext import build_ext

here = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with io.open(os.path.join(here, name), encoding="utf-8") as text:
        return text.read()


def without_c(why):
    sys.stderr.write(
        "\n*** im2col_compat: installing WITHOUT the C library: {}.\n"
        "*** Everything works, but the engine 'ffi' is missing and unfold is slower where\n"
        "*** PyTorch has no F.unfold. To have it, install a C compiler, cffi and Python's headers, then,\n"
        "*** in this folder, pip install --force-reinstall --no-deps --no-cache-dir .\n\n".format(why)
    )


class OptionalBuildExt(build_ext):
    """Failing to compile must not fail the installation. (optional=True does that on Python 3 only.)"""

    def run(self):
        try:
            build_ext.run(self)
        except Exception as error:
            without_c(error)

    def build_extension(self, ext):
        one_by_one = self.compiler.compile

        def several_at_a_time(sources, **settings):
            # Threads take from the end: what takes longest comes first. (Not a pool of multiprocessing's: it wants
            # semaphores, which not every system has, and goes on after a failure.)
            waiting = sorted(sources, key=lambda source: "dot_named_" in source)
            objects, failures = [], []

            def work():
                while not failures:
                    try:
                        source = waiting.pop()
                    except IndexError:
                        return
                    try:
                        objects.extend(one_by_one([source], **settings))
                    except Exception as error:
                        failures.append(error)

            # Two files take as long as all others, and each thread takes memory.
            processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
            threads = [Thread(target=work) for _ in range(min(processors, 4))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failures:
                raise failures[0]
            return sorted(objects)  # always linked in this order

        self.compiler.compile = several_at_a_time
        try:
            build_ext.build_extension(self, ext)
        except Exception as error:
            without_c(error)


options = {}
try:
    import cffi

    cffi.FFI().cdef("int probe(void);")  # a cffi without a working pycparser fails here, not in setup()
    extension = {"cffi_modules": ["ffi/build.py:ffibuilder"]}
    if sys.version_info >= (3, 6) and not sysconfig.get_config_var("Py_GIL_DISABLED"):
        # cffi builds against the stable ABI by itself; the wheel has to be told.
        options = {"bdist_wheel": {"py_limited_api": "cp36"}}
except Exception as error:
    # setuptools would ignore cffi_modules without a word.
    extension = {}
    without_c("cffi doesn't work where setup.py runs ({}); pip 10 and later install it by themselves".format(error))

setup(
    name="im2col_compat",
    version=re.search(r'__version__ = "(.*)"', read("im2col_compat/__init__.py")).group(1),
    description="Convolution with your own dot product, on any PyTorch from 0.3 to today",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=["im2col_compat"]
    + ["im2col_compat." + room for room in ("codegen", "compat", "cuda", "engines", "paths", "terms")],
    package_data={"im2col_compat": ["py.typed", "*.pyi"], "im2col_compat.cuda": ["*.cu"]},
    python_requires=">=2.7, !=3.0.*, !=3.1.*, !=3.2.*, !=3.3.*, !=3.4.*",
    # NumPy 1.13 is the first whose functions tell an operand that they are called, so that ops with them can be traced.
    install_requires=["cffi>=1.10", "numpy>=1.13", 'pycparser<2.22; python_version < "3.8"'],
    # Kernels for GPUs. What it needs in turn, bindings and NVRTC, comes with builds of PyTorch for CUDA, or with its own extras.
    extras_require={"cuda": ['cuda-core>=1; python_version >= "3.10"']},
    cmdclass={"build_ext": OptionalBuildExt},
    options=options,
    zip_safe=False,
    classifiers=[
        "Programming Language :: C",
        "Programming Language :: Python :: 2.7",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    **extension
)
