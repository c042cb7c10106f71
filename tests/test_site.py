"""The documentation's site, as `make docs` builds it: looked at as files, and in headless Chromium."""

import os
import re
import subprocess
import sys
import threading

import pytest

import im2col_compat

pytest.importorskip("mkdocs", reason="needs MkDocs: make docs")
pytest.importorskip("mkdocstrings", reason="needs mkdocstrings: make docs")

from html import unescape  # noqa: E402
from html.parser import HTMLParser  # noqa: E402
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer  # noqa: E402
from shutil import which  # noqa: E402
from urllib.parse import unquote, urljoin, urlsplit  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHROMIUM = next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage""".split()
#: Reads search.html as the reader of this page does, and ends loading when there are results: "wait" is served then.
SEARCH = """<!DOCTYPE html><iframe id="page" src="/search.html?q={}"></iframe><img src="/wait"><pre id="seen"></pre><script>
var timer = setInterval(function () {{
    var page = document.getElementById("page").contentDocument;
    var results = page && page.getElementById("mkdocs-search-results");
    if (results && results.querySelector("article, p")) {{
        clearInterval(timer);
        document.getElementById("seen").innerHTML = results.innerHTML;
        fetch("/done");
    }}
}}, 50);
</script>"""
#: What is in these is no prose.
CODE = ("pre", "code", "script")


class Page(HTMLParser):
    """What a page has: ids, links, what it loads, and its prose: (tag, text) of paragraphs and the like, without code."""

    def __init__(self, text):
        super(Page, self).__init__()
        self.tags, self.ids, self.links, self.loads, self.prose = set(), set(), [], [], []
        self._code = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.ids.update(attributes[name] for name in ("id", "name") if attributes.get(name) and tag != "meta")
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "link" and attributes.get("rel") != "canonical":
            self.loads.append(attributes["href"])
        if "src" in attributes:
            self.loads.append(attributes["src"])
        self._code += tag in CODE
        if tag in ("p", "h1", "h2", "h3", "li", "td"):
            self.prose.append((tag, ""))

    def handle_endtag(self, tag):
        self._code -= tag in CODE

    def handle_data(self, data):
        if self.prose:
            tag, text = self.prose[-1]
            self.prose[-1] = tag, text + ("`" if self._code else data)


def build(folder):
    """What MkDocs says while it builds the site into a folder. A warning ends it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = made.stdout.decode()
    assert made.returncode == 0, said
    return said


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """(the folder of the site, what MkDocs said)."""
    folder = str(tmp_path_factory.mktemp("site"))
    return folder, build(folder)


@pytest.fixture(scope="session")
def site(built):
    return built[0]


@pytest.fixture(scope="session")
def pages(site):
    """The pages by their names: "reference/ops.html"."""
    found = {}
    for folder, _, names in os.walk(site):
        for name in names:
            if name.endswith(".html"):
                with open(os.path.join(folder, name), encoding="utf-8") as text:
                    found[os.path.relpath(os.path.join(folder, name), site).replace(os.sep, "/")] = Page(text.read())
    return found


@pytest.fixture(scope="session")
def address(site):
    """Where the site is served."""

    class Handler(SimpleHTTPRequestHandler):
        done = threading.Event()

        def do_GET(self):
            url = urlsplit(self.path)
            if url.path == "/looks":
                self.done.clear()
                self.answer(SEARCH.format(url.query))
            elif url.path == "/wait":
                self.done.wait(30)
                self.answer("")
            elif url.path == "/done":
                self.done.set()
                self.answer("")
            else:
                super(Handler, self).do_GET()

        def answer(self, text):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    def handler(*arguments):
        return Handler(*arguments, directory=site)

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield "http://127.0.0.1:{}".format(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture
def look(address, tmp_path):
    """The page as Chromium has it when everything is loaded."""

    def look(path):
        command = [CHROMIUM] + FLAGS + ["--user-data-dir=" + str(tmp_path / "profile"), "--dump-dom", address + path]
        found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120)
        return found.stdout.decode("utf-8", "replace")

    return look


def reference(pages):
    return {name: page for name, page in pages.items() if name.startswith("reference/")}


# ---------------------------------------------------------------- the files


def test_builds_without_a_word_of_warning(built):
    """MkDocs says that it builds, and nothing of pages, links or names that are missing."""
    lines = [line for line in built[1].splitlines() if line.strip()]
    expected = "Cleaning site directory|Building documentation to directory|Documentation built in"
    assert all(re.match("INFO +-  ({})".format(expected), line) for line in lines), built[1]


def test_every_page_is_there(pages):
    """Every page of docs/, and those that are elsewhere."""
    names = {name[:-3] + ".html" for name in os.listdir(os.path.join(ROOT, "docs")) if name.endswith(".md")}
    names |= {"index.html", "changelog.html", "map.html", "distributed.html"}
    assert not names - set(pages)


def test_no_scripts_are_copied(site):
    """Of docs/, the site has pages and pictures."""
    assert not [name for _, _, names in os.walk(site) for name in names if name.endswith((".py", ".pyc", ".md"))]


def test_every_public_name_is_in_the_reference(pages):
    """Each has an anchor, and so do the named ops, methods and draw."""
    ids = set().union(*(page.ids for page in reference(pages).values()))
    names = list(im2col_compat.__all__) + ["Op.from_c", "Op.from_table", "Op.explain", "Op.replace", "Conv2d.from_conv"]
    names += ["ops." + name for name in ("dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus")] + ["drawing.draw"]
    names += ["QuantConv2d.start_calibration", "Linear.from_linear", "_Size", "_T"]
    assert [name for name in names if "im2col_compat." + name not in ids] == []


def test_every_public_name_is_described(site, pages):
    """Behind each heading of the reference there are a signature, where it is called, and words."""
    seen = set()
    for name in reference(pages):
        with open(os.path.join(site, name), encoding="utf-8") as text:
            parts = re.split(r'<h[23] id="im2col_compat\.([\w.]+)" class="doc', text.read())
        for heading, part in zip(parts[1::2], parts[2::2]):
            seen.add(heading)
            assert re.search(r"<p>[^<]*\w", part), heading
            if heading not in ("ops", "SlowPathWarning"):
                assert "doc-signature" in part, heading
    assert set(im2col_compat.__all__) <= seen


def test_signatures_have_types_and_defaults(site):
    """Of functions, of layers, whose constructors are made by a call, and of what they inherit."""

    def signature(page, name):
        with open(os.path.join(site, "reference", page), encoding="utf-8") as text:
            part = text.read().split('id="im2col_compat.{}"'.format(name))[1]
        shown = re.search(r'<div class="doc-signature.*?</div>', part, re.S).group()
        return " ".join(unescape(re.sub("<[^>]*>", "", shown)).split())

    for dims in ("1d", "2d", "3d"):
        conv = signature("convolutions.html", "conv" + dims)
        assert "input: _T, weight: _T, bias: Optional[_T] = None, stride: _Size = 1, padding: _Padding = 0," in conv
        assert 'op: _Op = "dot", params: Optional[_Params] = None, ) -> _T' in conv
        layer = signature("layers.html", "Conv" + dims)
        assert "in_channels: int," in layer and 'padding_mode: _PaddingMode = "zeros",' in layer
        made = signature("layers.html", "ConvTranspose{}.from_conv".format(dims))
        assert "conv: torch.nn.ConvTranspose" + dims in made and "-> ConvTranspose" + dims in made
    assert "narrow_range: bool = False" in signature("networks.html", "QuantConv2d")
    assert signature("ops.html", "ops.xnor") == "xnor: Op"


def test_prose_is_prose(pages):
    """Markdown isn't left in the text: no lists that are paragraphs, no tables that are lines."""
    for name, page in pages.items():
        for tag, text in page.prose:
            assert not re.search(r"(?m)^\s*([-*]|\d+\.) \w|\|[- ]+\||\]\(|(?<!\w)\*\*[A-Za-z]|\\[*<]|^#+ ", text), (
                name,
                text,
            )


def test_words_are_not_taken_for_tags(pages):
    """A word as <lambda> in a page's prose would be no part of the text."""
    known = """a body code div footer form h1 h2 h3 h4 head hr html i img input li link meta nav ol p pre script section small
        span strong em table tbody td th thead title tr ul"""
    assert {
        name: page.tags - set(known.split()) for name, page in pages.items() if page.tags - set(known.split())
    } == {}


def test_no_link_leads_nowhere(site, pages):
    """Links, pictures, scripts and styles are there, and what is behind # is on the page."""
    wrong = []
    for name, page in pages.items():
        base = "/" if name == "404.html" else "/" + name  # served in the place of pages anywhere
        for link in page.links + page.loads:
            url = urlsplit(urljoin("http://site" + base, link))
            if url.netloc != "site":
                continue
            path = unquote(url.path).lstrip("/") or "index.html"
            if not os.path.isfile(os.path.join(site, path)):
                wrong.append((name, link))
            elif url.fragment and path.endswith(".html") and unquote(url.fragment) not in pages[path].ids:
                wrong.append((name, link))
    assert not wrong


def test_nothing_is_loaded_from_elsewhere(site, pages):
    """No page, style or script asks another host."""
    assert not [(name, load) for name, page in pages.items() for load in page.loads if urlsplit(load).scheme]
    for folder, _, names in os.walk(site):
        for name in names:
            if name.endswith(".css"):
                with open(os.path.join(folder, name), encoding="utf-8") as text:
                    assert not re.search(r"url\(['\"]?(https?:)?//|@import", text.read()), name


def test_a_name_in_no_group_fails(tmp_path):
    """A public name that the reference has no place for ends the build; so do links that lead nowhere."""
    sys.path.insert(0, os.path.join(ROOT, "docs"))
    try:
        import website
    finally:
        sys.path.pop(0)
    from mkdocs.exceptions import PluginError

    class Config(object):
        nav = []

    assert sorted(website.public()) == sorted(im2col_compat.__all__)
    website.on_config(Config)
    kept = website.public
    website.public = lambda: kept() + ["new"]
    try:
        with pytest.raises(PluginError, match="new"):
            website.on_config(Config)
    finally:
        website.public = kept


# ---------------------------------------------------------------- in a browser


@needs_chromium
def test_home_in_a_browser(look):
    """The home page is README."""
    seen = look("/index.html")
    assert re.search("<h1[^>]*>im2col_compat</h1>", seen)
    assert 'href="reference/convolutions.html"' in seen and seen.count('role="search"') == 1


@needs_chromium
@pytest.mark.parametrize("words, name", [("unfold_transpose", "unfold_transpose"), ("from_table", "Op.from_table")])
def test_search_in_a_browser(look, pages, words, name):
    """The search finds a function where the reference has it."""
    seen = look("/looks?" + words).split('<pre id="seen">')[1]
    links = [urlsplit(link) for link in re.findall(r'<a href="([^"]*)"', seen)]
    found = [link.path.lstrip("./") for link in links if link.fragment == "im2col_compat." + name]
    assert found and all("im2col_compat." + name in pages[path].ids for path in found), seen


@needs_chromium
def test_search_can_fail(look):
    """Where nothing is found, the page says so."""
    assert "No results found" in look("/looks?qwertyuiop").split('<pre id="seen">')[1]


@needs_chromium
def test_types_in_a_browser(look):
    """A signature's types lead to what they stand for."""
    seen = look("/reference/convolutions.html")
    assert re.search(r'<a [^>]*href="types.html#im2col_compat._Padding"[^>]*>_Padding</a>', seen)
