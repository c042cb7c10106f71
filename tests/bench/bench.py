"""python tests/bench/bench.py: times im2col_compat against its peers, one process for each number of threads,
and one without AVX-512.

With --output FOLDER it writes FOLDER/performance.md and performance.png. A part of the benchmark writes
performance-part.md and .png instead.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import report

# Libraries read these when they are imported, so they hold for a whole process.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
AVX2 = {"IM2COL_COMPAT_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes, three rounds: a test of the benchmark")
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="by default 1 2, with --quick 2")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases that match, such as '^unfold' or '7x7'")
    parser.add_argument("--output", metavar="FOLDER", help="where to write the page and its picture")
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--avx2", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    results, failures = [], []
    date, start = time.strftime("%Y-%m-%d"), time.perf_counter()
    counts = options.threads or ([2] if options.quick else [1, 2])
    for threads, avx2 in [(count, False) for count in counts] + [(1, True)] * (1 in counts):
        lines, code = spawn(options, threads, avx2)
        results += lines
        if code:
            failures.append(f"The process with {threads} threads ended with {code}, after {len(lines)} cases.")
    command = " ".join(["python tests/bench/bench.py", *sys.argv[1:]])
    text = report.text(results, failures, date, command, (time.perf_counter() - start) / 60)
    print(text)
    if options.output:
        part = options.quick or options.only or options.threads or failures
        write(options.output, "performance-part" if part else "performance", text, results)
    sys.exit(1 if failures or any(result["wrong"] for result in results) else 0)


def spawn(options, threads, avx2):
    """The results of a process of its own, and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "results")
        open(path, "w").close()
        # Inductor's code depends on the number of threads, the names in its cache don't.
        environment = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=os.path.join(folder, "inductor"))
        environment.update(dict.fromkeys(THREAD_VARIABLES, str(threads)), **AVX2 if avx2 else {})
        command = [sys.executable, __file__, "--worker", path, "--threads", str(threads), "--only", options.only]
        code = subprocess.call(command + ["--quick"] * options.quick + ["--avx2"] * avx2, env=environment)
        with open(path) as lines:
            return [json.loads(line) for line in lines], code


def work(options):
    """Writes each case's results, a line of JSON, as soon as they are there."""
    import torch
    from tqdm import tqdm

    (threads,) = options.threads
    torch.set_num_threads(threads)
    import cases

    all_cases = cases.avx2_cases() if options.avx2 else cases.all_cases(options.quick)
    chosen = [case for case in all_cases if re.search(options.only, str(case))]
    with tqdm(chosen, mininterval=0.5, dynamic_ncols=True) as bar:
        for case in bar:

            def progress(what, case=case):
                bar.set_description(f"threads: {threads}, {case}, {what}"[:100], refresh=False)
                bar.update(0)

            torch.set_num_threads(threads)  # a case may have changed it
            result = cases.run(case, options.quick, progress)
            with open(options.worker, "a") as lines:
                lines.write(json.dumps(result) + "\n")


def write(folder, name, text, results):
    import picture

    drawn = picture.draw(os.path.join(folder, f"{name}.png"), results)
    image = f"![Each way's time divided by that of im2col_compat]({name}.png)\n\n" if drawn else ""
    with open(os.path.join(folder, f"{name}.md"), "w") as file:
        file.write(f"# Performance\n\n{image}{text}\n")


if __name__ == "__main__":
    main()
