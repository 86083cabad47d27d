"""The dashboard's files: whole, small, from nowhere else, and safe with names from strangers."""

import re
from pathlib import Path

import pytest

WEB = Path(__file__).parents[3] / "services/gateway/web"
SCRIPTS = sorted(WEB.rglob("*.js"))
TEXTS = sorted(path for path in WEB.rglob("*") if path.suffix in {".js", ".css", ".html", ".svg"})
MOST_LINES = 300
SVG = "http://www.w3.org/2000/svg"
AS_HTML = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|\beval\(|new Function"
)


def _name(path: Path) -> str:
    return str(path.relative_to(WEB))


def test_there_are_some() -> None:
    assert len(SCRIPTS) > 20
    assert "index.html" in {_name(path) for path in TEXTS}


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_nothing_comes_from_elsewhere(path: Path) -> None:
    text = path.read_text().replace(SVG, "")
    assert not re.search(r"""(https?:|["'(])//\w""", text)
    assert "@import" not in text


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_scripts_are_small_and_never_write_html(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    assert not AS_HTML.search(text)
    assert "javascript:" not in text


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_what_is_imported_is_there(path: Path) -> None:
    for names, source in re.findall(
        r"""^import {([^}]+)} from "([^"]+)";""", path.read_text(), re.MULTILINE
    ):
        assert source.startswith("."), source
        exported = (path.parent / source).read_text()
        for name in names.split(","):
            wanted = name.split(" as ")[0].strip()
            pattern = rf"^export (async )?(function|class|const|let) {re.escape(wanted)}\b"
            assert re.search(pattern, exported, re.MULTILINE), f"{wanted} of {source}"


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_what_is_imported_is_used(path: Path) -> None:
    text = path.read_text()
    for names in re.findall(r"^import {([^}]+)}", text, re.MULTILINE):
        for name in names.split(","):
            own = name.split(" as ")[-1].strip()
            assert len(re.findall(rf"\b{re.escape(own)}\b", text)) > 1, own


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_pages_obey_their_own_policy(name: str) -> None:
    text = (WEB / name).read_text()
    assert not re.search(r"<[^>]+\s(style|on\w+)=", text), "style and handlers are refused inline"
    assert not re.search(r"<(style|script)>", text)
    for asset in re.findall(r'(?:href|src)="/web/([^"]+)"', text):
        assert (WEB / asset).is_file(), asset


def test_styles_name_only_variables_that_are_there() -> None:
    styles = "".join(path.read_text() for path in WEB.rglob("*.css"))
    scripts = "".join(path.read_text() for path in SCRIPTS)
    defined = set(re.findall(r"(--[\w-]+):", styles)) | set(re.findall(r'"(--[\w-]+)"', scripts))
    assert set(re.findall(r"var\((--[\w-]+)", styles)) <= defined


def test_text_that_turns_its_order_round_leaves_its_neighbours_alone() -> None:
    [elements] = re.findall(
        r"^([^{}\n]+) { unicode-bidi: isolate; }", (WEB / "css/base.css").read_text(), re.MULTILINE
    )
    assert {"span", "code", "a", "b"} <= set(elements.split(", "))
