"""What the documentation's site is made of, beside the pages here: MkDocs and griffe load this file, as mkdocs.yml says.

It makes pages of files that are elsewhere, and the reference, of the package's stubs and docstrings. Nothing is imported
from the package. (This file isn't called site.py: scripts here have this folder before others on their path, and Python has
a module of that name.)
"""

import ast
import copy
import os
import re
from pathlib import Path

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "im2col_compat"
#: Pages that are files elsewhere, or aren't Markdown: where links lead, and what the page is on the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "ffi/README.md": "map.md",
    "docs/distributed.py": "distributed.md",
}
#: The reference's pages: (file, title, what the page says at its top, names). Every public name is on one.
REFERENCE = (
    (
        "convolutions",
        "Convolutions",
        "The functions of PyTorch, with your own dot product. They take tensors or NumPy arrays.",
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear matmul",
    ),
    (
        "columns",
        "Columns",
        "Images as columns, which are their sliding blocks, and back; convolutions as matrices.",
        "unfold fold unfold_transpose conv_matrix Unfold Fold",
    ),
    (
        "layers",
        "Layers",
        "The functions as modules.",
        "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Linear",
    ),
    ("ops", "Ops", "What `op=` takes beside a name or a function, and what the names mean.", "Op ops"),
    (
        "networks",
        "Signs, tables, networks",
        "Layers of XNOR networks and of quantized ones, and networks with another op.",
        "BinaryConv2d BinaryLinear QuantConv2d QuantLinear convert",
    ),
    (
        "backends",
        "Backends and warnings",
        "Which engine computes the columns, and what is said about slow paths.",
        "use_backend backend available_backends SlowPathWarning",
    ),
    (
        "drawing",
        "Drawing",
        "`im2col_compat.drawing` needs matplotlib. Importing the package doesn't load it.",
        "drawing.draw",
    ),
)
TYPES = "reference/types.md"


def read(path):
    return path.read_text(encoding="utf-8")


def public():
    """`__all__`, without an import of the package."""
    (found,) = re.findall(r"^__all__ = (\[.*?\])", read(PACKAGE / "__init__.py"), re.M | re.S)
    return ast.literal_eval(found)


# ---------------------------------------------------------------- pages


def on_config(config):
    """The reference has its place in the navigation."""
    grouped = [name for page in REFERENCE for name in page[-1].split() if "." not in name]
    if sorted(grouped) != sorted(public()):
        wrong = sorted(set(grouped) ^ set(public())) or "one is named twice"
        raise PluginError("docs/website.py: REFERENCE must have each public name once: {}".format(wrong))
    pages = [{title: "reference/{}.md".format(file)} for file, title, _, _ in REFERENCE] + [{"Types": TYPES}]
    for entry in config.nav:
        for title, inside in entry.items():
            if title == "Reference":
                entry[title] = pages
    return config


def on_files(files, config):
    """The pages that are no files of this folder, and the style of code."""
    for source, page in ELSEWHERE.items():
        text = read(ROOT / source)
        if source.endswith(".py"):
            title = Path(source).stem.capitalize()
            text = "# {}\n\nThis is `{}`.\n\n```python\n{}```\n".format(title, source, text)
        files.append(File.generated(config, page, content=text))
    for file, title, text, names in REFERENCE:
        lines = ["# " + title, text] + ["::: im2col_compat." + name for name in names.split()]
        files.append(File.generated(config, "reference/{}.md".format(file), content="\n\n".join(lines) + "\n"))
    files.append(File.generated(config, TYPES, content=types()))
    style = STYLE + HtmlFormatter(style="default").get_style_defs(".highlight")
    files.append(File.generated(config, "website.css", content=style))
    return files


def on_page_markdown(markdown, page, **_):
    """Links lead to the site's pages, where code hosts have files."""
    found = [source for source, target in ELSEWHERE.items() if target == page.file.src_uri]
    folder = os.path.dirname(found[0] if found else "docs/" + page.file.src_uri)

    def relinked(match):
        target, fragment = match.groups()
        file = os.path.normpath(os.path.join(folder, target)).replace(os.sep, "/")
        on_site = ELSEWHERE.get(file) or (file[len("docs/") :] if file.startswith("docs/") else None)
        if on_site is None:
            return match.group()  # MkDocs warns of it
        return "]({}{})".format(
            os.path.relpath(on_site, os.path.dirname(page.file.src_uri)).replace(os.sep, "/"), fragment
        )

    return re.sub(r"\]\((?![a-z]+:)([^)#\s]+)((?:#[^)\s]*)?)\)", relinked, markdown)


#: What the theme lacks: it is made for Sphinx's code and tables, not for these.
STYLE = """
.wy-nav-content { max-width: 1100px; }
.rst-content .highlight pre, .rst-content pre { padding: 0; margin: 0; border: 0; overflow-x: auto; }
.rst-content div.highlight, .rst-content section > pre { padding: 12px; margin-bottom: 24px; }
.rst-content .highlight pre code { padding: 0; border: 0; background: none; font-size: 12px; line-height: 1.4; }
.rst-content .doc-contents { margin-left: 24px; }
.rst-content .doc-heading { border-top: 1px solid #e1e4e5; padding-top: 12px; }
.rst-content table td, .rst-content table th { white-space: normal !important; padding: 4px 8px !important; }
.rst-content .doc-signature a { color: inherit; border-bottom: 1px dotted; }
"""


def types():
    """A page of the names in signatures that the stub gives types: what they stand for, and the comments above them."""
    text = read(PACKAGE / "__init__.pyi")
    parts = ["# Types", "What the names with an underscore in signatures stand for. They can't be imported."]
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            name = node.targets[0].id
            above = text.split("\n")[: node.lineno - 1]
            parts.append("## `{0}` {{#im2col_compat.{0}}}".format(name))
            if above and above[-1].startswith("# "):
                parts.append(above[-1][2:])
            parts.append("```python\n{}\n```".format(ast.get_source_segment(text, node)))
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- the reference


class Public(griffe.Extension):
    """The public names as the stubs have them, with types and defaults, and with the docstrings of the source.

    griffe merges stubs by itself, but what the source makes by calls, such as constructors, it takes for plain attributes.
    """

    def on_package(self, *, pkg, **_):
        for module in (pkg, pkg["ops"], pkg["drawing"]):
            file = PACKAGE / ("__init__.pyi" if module is pkg else module.name + ".pyi")
            stub = griffe.visit(module.path, file, read(file))
            for name, typed in stub.members.items():
                if not (name.startswith("_") or typed.is_alias):
                    document(typed, module[name], stub)
                    module.set_member(name, typed)
        pkg["ops"].docstring.value = markdown(pkg["ops"].docstring.value, ())


def document(typed, source, stub):
    """Give an object of a stub what the source says of it. Classes get what they have from the stub's private bases, too."""
    names = ()
    if typed.is_class:
        for base in [stub.members[str(base)] for base in typed.bases if str(base) in stub.members]:
            for name, member in base.members.items() if base.name.startswith("_") else ():
                if name not in typed.members:
                    typed.set_member(name, copy.copy(member))  # another class may have it, too
        for name, member in typed.members.items():
            if name in source.all_members:
                document(member, source.all_members[name], stub)
    if typed.is_class or typed.is_function:
        names = [parameter.name for parameter in typed.parameters]
    typed.labels.discard("module-attribute")  # of a named op it says nothing
    text = comments(source) if source.is_attribute else source.docstring and source.docstring.value
    typed.docstring = griffe.Docstring(markdown(text, names), parent=typed) if text else None


def comments(attribute):
    """The comments of an attribute, "#: text", in the lines above it."""
    lines = attribute.lines_collection[attribute.filepath][: attribute.lineno - 1]
    first = len(lines)
    while first and lines[first - 1].startswith("#: "):
        first -= 1
    return "\n".join(line[3:] for line in lines[first:])


def markdown(text, names):
    """A docstring as Markdown. What it says of arguments and errors, "name: text", becomes items of a list."""
    lines, inside = [], False
    for line in text.split("\n"):
        item = re.match(r"((?:\w+(?:\(\w, \w\))?(?:, (?=\w+(?:\(\w, \w\))?[,:]))?)+): (.*)", line)
        heads = re.findall(r"\w+(?:\(\w, \w\))?", item.group(1)) if item else []
        if heads and all(head.split("(")[0] in names or head.endswith("Error") for head in heads):
            lines += ([] if inside else [""]) + ["- {}: {}".format(", ".join(map("`{}`".format, heads)), item.group(2))]
            inside = True
        else:
            inside = inside and line != ""
            lines.append("    " + line.strip() if inside else line)
    # Code is left as it is; in prose, stars and the like are themselves, and names lead to what they name.
    parts = re.split(r"(``.+?``|`[^`]+`)", "\n".join(lines), flags=re.S)
    parts[::2] = [linked(re.sub(r"([*\\])", r"\\\1", part).replace("<", "&lt;")) for part in parts[::2]]
    return re.sub(r"^(Returns|Raises)\b", r"**\1**", "".join(parts), flags=re.M)


def linked(text):
    """Prose whose public names are links: those that are no words of English, and those that it refers to as such."""
    words = [name for name in public() if re.search(r"[\d_]|[a-z][A-Z]", name)]
    pattern = r"(?<![.\w])({}|Op\.\w+|(?<=as for )(?:{}))(?!\w)".format(*map("|".join, (words, public())))
    return re.sub(pattern, r"[\1][im2col_compat.\1]", text)
