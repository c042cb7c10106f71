"""Stand-ins for the libraries that a CUDA build of PyTorch asks for: python standins.py TORCH/lib FOLDER.

Such a build imports only where CUDA's libraries are, gigabytes of them, even without a GPU. With FOLDER on LD_LIBRARY_PATH
it imports, finds no device, and computes on the CPU. Needs a C compiler and readelf, which comes with it.
"""

import re
import subprocess
import sys
from pathlib import Path

CUDA = "(cu|nv|nccl)"  # how CUDA's names begin
FUNCTION = "int {}(void) {{ return 100; }}\n"  # cudaErrorNoDevice


def readelf(*arguments):
    return subprocess.run(["readelf", "-W"] + list(arguments), stdout=subprocess.PIPE, check=True).stdout.decode()


def main(libraries, folder):
    folder.mkdir(exist_ok=True)
    files = [str(path) for path in libraries.glob("*.so*")]
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", readelf("-d", *files)))
    here = {path.name for path in libraries.iterdir()}
    names = re.findall(r" GLOBAL +\S+ +UND (_*%s\w+)" % CUDA, readelf("--dyn-syms", *files))
    code = "".join(FUNCTION.format(name) for name in sorted({name for name, _ in names}))
    # All functions are in a library of another name: glibc insists that one named as a version has that version.
    make(folder, "libstandins.so", code)
    for library in sorted(needed - here):
        if re.match("lib" + CUDA, library):
            make(folder, library, "", "-Wl,--no-as-needed", str(folder / "libstandins.so"))
            print(library)


def make(folder, library, code, *others):
    command = ["cc", "-shared", "-fPIC", "-w", "-fno-builtin", "-Wl,-soname," + library, "-o", str(folder / library)]
    subprocess.run(command + ["-x", "c", "-", "-x", "none"] + list(others), input=code.encode(), check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
