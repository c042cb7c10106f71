"""All of noxfile.py in its order, several legs at a time: python run.py [--jobs N] [LEG ...].

What nox prints of a leg is in .nox/matrix/LEG.log; here it gets a line. Without legs it's all of them, and the page is written.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / ".nox" / "matrix"
NOX = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py")]


def nox(*arguments):
    return subprocess.run(NOX + list(arguments)).returncode == 0


def run(leg):
    start = time.time()
    with open(LOGS / (leg + ".log"), "w") as log:
        ended = subprocess.run(NOX + ["--session", leg], stdout=log, stderr=subprocess.STDOUT)
    text = Path(log.name).read_text(errors="replace")
    skipped = re.search(r"^nox > Session \S+ skipped: (.*?)\.?$", text, re.MULTILINE)
    if skipped:
        (LOGS / (leg + ".skipped")).write_text(skipped.group(1))  # for the page
    result = "failed, see " + log.name if ended.returncode else skipped.group(0) if skipped else "passed"
    print("{:40} {:4.0f} s  {}".format(leg, time.time() - start, result), flush=True)
    return not ended.returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("legs", nargs="*")
    arguments = parser.parse_args()
    listed = subprocess.run(NOX + ["--list", "--json", "--tags", "leg"], stdout=subprocess.PIPE, check=True).stdout
    legs = arguments.legs or [session["session"] for session in json.loads(listed)]
    if arguments.jobs > 1:
        # Threads of one leg that wait for each other would keep the cores that another's need.
        os.environ["OMP_NUM_THREADS"] = "1"
    if not nox("--session", "dist"):
        sys.exit("no sdist and wheel")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        green = list(pool.map(run, legs))
    if arguments.legs:
        green.append(nox("--session", "table", "--", *legs))
    else:
        green += [nox("--session", session) for session in ("states", "compilers", "page")]
    sys.exit(0 if all(green) else 1)


if __name__ == "__main__":
    main()
