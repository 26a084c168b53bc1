"""The design's promises that nobody sees broken: contrast, colour rules, no inline code."""

import re
from pathlib import Path

import pytest

from console.settings import BASE_DIR
from console.templatetags.clearance import code_words

TOKENS = (BASE_DIR / "static/css/tokens.css").read_text()
THEMES = ("light", "dark")
TEXT_MIN = 4.5  # WCAG 2.2, 1.4.3
GRAPHIC_MIN = 3.0  # WCAG 2.2, 1.4.11
SURFACES = ("page", "surface", "surface-raised", "surface-sunken", "hover", "active-wash")
TEXTS = ("ink", "ink-quiet", "accent", "good", "warning", "danger")
PAIRS = [
    *((text, surface) for text in TEXTS for surface in SURFACES),
    *((tone, f"{tone}-wash") for tone in ("good", "warning", "danger")),
    *(("ink", f"{tone}-wash") for tone in ("good", "warning", "danger")),
    ("on-accent", "accent-fill"),
    ("on-accent", "danger-fill"),
]
GRAPHICS = [
    (graphic, surface)
    for graphic in ("line-strong", "accent-fill", "warning-fill", "danger-fill")
    for surface in ("page", "surface", "surface-raised", "surface-sunken")
]


def tokens(theme: str) -> dict[str, str]:
    found = {}
    for name, value in re.findall(r"--([a-z-]+):\s*([^;]+);", TOKENS):
        colours = re.findall(r"#[0-9a-f]{6}", value)
        if colours:
            found[name] = colours[-1 if theme == "dark" else 0]
    return found


def luminance(colour: str) -> float:
    """Relative luminance: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read_on_every_surface(theme: str) -> None:
    colours = tokens(theme)
    weak = {
        f"{text} on {surface}": round(contrast(colours[text], colours[surface]), 2)
        for text, surface in PAIRS
        if contrast(colours[text], colours[surface]) < TEXT_MIN
    }
    assert weak == {}


@pytest.mark.parametrize("theme", THEMES)
def test_borders_and_bars_can_be_seen(theme: str) -> None:
    colours = tokens(theme)
    weak = {
        f"{one} on {other}": round(contrast(colours[one], colours[other]), 2)
        for one, other in GRAPHICS
        if contrast(colours[one], colours[other]) < GRAPHIC_MIN
    }
    assert weak == {}


def hue(colour: str) -> float:
    import colorsys

    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return colorsys.rgb_to_hsv(red, green, blue)[0] * 360


@pytest.mark.parametrize("theme", THEMES)
def test_red_is_danger_and_amber_a_warning_and_nothing_else_is(theme: str) -> None:
    for name, colour in tokens(theme).items():
        is_grey = max(colour[at : at + 2] for at in (1, 3, 5)) == min(
            colour[at : at + 2] for at in (1, 3, 5)
        )
        if is_grey:
            continue
        is_red = hue(colour) < 20 or hue(colour) > 340
        is_amber = 20 <= hue(colour) < 70
        assert is_red == name.startswith("danger"), (name, hue(colour))
        assert is_amber == name.startswith("warning"), (name, hue(colour))


def styles() -> list[Path]:
    return sorted((BASE_DIR / "static/css").glob("*.css"))


@pytest.mark.parametrize("path", styles(), ids=lambda path: path.name)
def test_what_moves_stands_still_for_who_asks(path: Path) -> None:
    text = path.read_text()
    for match in re.finditer(r"(?<![\w-])(animation|transition)(-[a-z]+)?:", text):
        before = text[: match.start()]
        block = before.rfind("@media (prefers-reduced-motion: no-preference)")
        opened = before[block:].count("{") - before[block:].count("}") if block >= 0 else 0
        line = before.count("\n") + 1
        assert opened > 0, f"{path.name}:{line}: {match.group(0)} outside prefers-reduced-motion"


@pytest.mark.parametrize("path", styles(), ids=lambda path: path.name)
def test_a_colour_of_its_own_has_both_themes(path: Path) -> None:
    text = re.sub(r"light-dark\([^()]*\)", "", path.read_text())
    found = re.findall(r"(?<![\w&])#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})(?![\w-])", text)
    assert set(found) - {"#000", "#ffffff"} == set()  # a mask's "all of it"; text on a fill


def templates() -> list[Path]:
    return sorted((BASE_DIR / "templates").rglob("*.html"))


@pytest.mark.parametrize(
    "path", templates(), ids=lambda p: str(p.relative_to(BASE_DIR / "templates"))
)
def test_no_template_holds_code_or_style(path: Path) -> None:
    text = re.sub(
        r"\{#.*?#\}|\{% comment %\}.*?\{% endcomment %\}", "", path.read_text(), flags=re.S
    )
    assert not re.search(r"<style\b", text)
    assert not re.search(r"\sstyle\s*=", text)
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", text)
    assert "hx-on" not in text
    assert "javascript:" not in text
    for tag in re.findall(r"<script\b[^>]*>", text):
        is_data = 'type="application/json"' in tag
        assert "nonce=" in tag, tag
        assert "src=" in tag or is_data, tag


def test_no_script_writes_markup() -> None:
    for path in sorted((BASE_DIR / "static/js").rglob("*.js")):
        text = path.read_text()
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in text, f"{path.name}: {sink}"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("runs as `default`, <b>", "runs as <code>default</code>, &lt;b&gt;"),
        ("`<script>`", "<code>&lt;script&gt;</code>"),
        ("one ` tick", "one ` tick"),
        ("plain", "plain"),
    ],
)
def test_words_in_ticks_are_code_and_escaped(text: str, html: str) -> None:
    assert code_words(text) == html
