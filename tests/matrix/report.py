"""The tables of docs/compatibility.md, from what the legs of noxfile.py left in a folder.

A leg leaves NAME.json (what facts.py printed, and "ended" where nothing failed) and pytest's NAME.xml; run.py leaves
NAME.skipped (why it was skipped) and NAME.log (that it was tried).
"""

import ast
import collections
import datetime
import json
import platform
import textwrap
import xml.etree.ElementTree

PAGE = """# Compatibility

`make matrix` writes this page. Each leg is an environment of its own, in which the package was installed as a user of that
Python would, and then tested as it is installed there. Here: im2col_compat {version}, {date},
{machine}, {libc}.

## The whole suite

{whole}

Engine: what `backend()` chooses for a float32 tensor, or array where there is no PyTorch. Own ops: how a function of the
user's is run.

## Other releases of PyTorch, with a part of the suite

{thin}

## Ways of installing, with a part of the suite

{ways}

## Beside the suite

{beside}

## Why tests were skipped

{skipped}
"""
COLUMNS = (
    "Leg",
    "Python",
    "PyTorch",
    "NumPy",
    "cffi",
    "Installed by",
    "Engine",
    "Own ops",
    "Passed",
    "Failed",
    "Skipped",
)


def table(columns, rows):
    lines = [columns, ["---"] * len(columns)] + rows
    return "\n".join("| {} |".format(" | ".join(str(cell) for cell in line)) for line in lines)


def outcome(folder, leg):
    """(facts or None, Counter of outcomes or None, Counter of the reasons of skips)."""
    description = folder / (leg.name + ".json")
    facts = json.loads(description.read_text()) if description.exists() else None
    results = folder / (leg.name + ".xml")
    if not results.exists():
        return facts, None, {}
    counts = collections.Counter()
    reasons = collections.Counter()
    for case in xml.etree.ElementTree.parse(str(results)).iter("testcase"):
        kinds = {child.tag for child in case}
        skipped = case.find("skipped")
        if kinds & {"failure", "error"}:
            counts["failed"] += 1
        elif skipped is not None:
            counts["skipped"] += 1
            reasons[reason(skipped)] += 1
        else:
            counts["passed"] += 1
    return facts, counts, reasons


def reason(skipped):
    """Why, of one test or of a whole file, in a cell of a table."""
    why = skipped.get("message")
    if why == "collection skipped":
        why = "a whole file: " + ast.literal_eval(skipped.text)[2].replace("Skipped: ", "")
    return textwrap.shorten(why.replace("|", "or"), 120, placeholder=" ...")


def not_run(folder, leg):
    skipped = folder / (leg.name + ".skipped")
    if skipped.exists():
        return "skipped: " + skipped.read_text()
    return "FAILED to make an environment" if (folder / (leg.name + ".log")).exists() else "not run"


def row(folder, leg):
    facts, counts, _ = outcome(folder, leg)
    if facts is None:
        return [leg.name, not_run(folder, leg)] + [""] * 9
    if "engine" not in facts:
        return [leg.name, "FAILED to install"] + [""] * 9
    cells = [leg.name, facts["python"], facts["torch"] or "none", facts["numpy"], facts["cffi"]]
    cells += ["pip {}, {}".format(facts["pip"], leg.source) if "pip" not in leg.source else leg.source]
    cells += [facts["engine"] + ("" if facts["library"] else ", no C library"), facts["own"]]
    if counts is None:
        return cells + ["FAILED, no test results", "", ""]
    after = "" if counts["failed"] or facts.get("ended") else ", FAILED after the tests"
    return cells + [counts["passed"], "{}{}".format(counts["failed"], after), counts["skipped"]]


def rows(folder, legs):
    return table(COLUMNS, [row(folder, leg) for leg in legs])


def skips(folder, legs):
    """Every reason, and how many tests of which legs it skipped."""
    where = collections.defaultdict(list)
    for leg in legs:
        for reason, count in outcome(folder, leg)[2].items():
            where[reason].append("{} {}".format(leg.name, count))
    return table(("Reason", "Leg and number of tests"), [(why, ", ".join(where[why])) for why in sorted(where)])


def beside(folder):
    """What the sessions that aren't legs say."""
    for name in ("dist", "states", "compilers"):
        path = folder / (name + ".txt")
        yield path.read_text() if path.exists() else "{}: FAILED".format(name)
    for path in sorted(folder.glob("*-demo.txt")):
        yield path.read_text()


def version(folder):
    """That of the sdist."""
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return sdist.name[len("im2col_compat-") : -len(".tar.gz")]


def page(folder, legs, whole, thin):
    """The page. legs: noxfile's; whole(leg): whether it runs the whole suite; thin(leg): whether it is a release's."""
    return PAGE.format(
        version=version(folder),
        date=datetime.date.today(),
        machine="{} {}".format(platform.system(), platform.machine()),
        libc=" ".join(platform.libc_ver()),
        whole=rows(folder, [leg for leg in legs if whole(leg)]),
        thin=rows(folder, [leg for leg in legs if thin(leg)]),
        ways=rows(folder, [leg for leg in legs if not whole(leg) and not thin(leg)]),
        beside="\n".join("- " + line for line in beside(folder)),
        skipped=skips(folder, legs),
    )
