"""How well text can be told from what is behind it: as WCAG 2 counts it, by a browser's word."""

from dataclasses import dataclass

from playwright.async_api import Page

ENOUGH = 4.5
ENOUGH_WHERE_LARGE = 3.0

# Colours of any notation are made into numbers by drawing them; what is behind a text is all the
# backgrounds below it, one over the other. Disabled controls, as the rules have it, do not count.
_MEASURE = """() => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const known = new Map();
    const read = (colour) => {
        if (!known.has(colour)) {
            pen.clearRect(0, 0, 1, 1);
            pen.fillStyle = colour;
            pen.fillRect(0, 0, 1, 1);
            const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
            known.set(colour, [r, g, b, a / 255]);
        }
        return known.get(colour);
    };
    const over = ([r, g, b, a], below) =>
        [r, g, b].map((part, n) => part * a + below[n] * (1 - a));
    const light = (parts) => {
        const [r, g, b] = parts.map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim();
        const element = walker.currentNode.parentElement;
        const seen = { opacityProperty: true, visibilityProperty: true };
        if (!text || !element.checkVisibility(seen)) continue;
        if (element.closest("script, style, :disabled, [aria-disabled=true]")) continue;
        const box = element.getBoundingClientRect();
        if (box.width < 2 || box.height < 2) continue;
        const above = [];
        let opacity = 1;
        for (let each = element; each; each = each.parentElement) {
            const style = getComputedStyle(each);
            above.unshift(read(style.backgroundColor));
            opacity *= parseFloat(style.opacity);
        }
        const scheme = matchMedia("(prefers-color-scheme: dark)").matches ? 0 : 255;
        const page = [scheme, scheme, scheme];
        const behind = above.reduce((below, colour) => over(colour, below), page);
        const style = getComputedStyle(element);
        const [r, g, b, a] = read(element instanceof SVGElement ? style.fill : style.color);
        const lights = [light(over([r, g, b, a * opacity], behind)), light(behind)];
        lights.sort((x, y) => y - x);
        const size = parseFloat(style.fontSize);
        found.push({
            text: text.slice(0, 40),
            where: element.tagName.toLowerCase() + (element.className.baseVal ?? element.className)
                .split(" ").filter(Boolean).map((name) => "." + name).join(""),
            ratio: Math.round(100 * (lights[0] + 0.05) / (lights[1] + 0.05)) / 100,
            large: size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700),
        });
    }
    return found;
}"""


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a page, and its contrast."""

    text: str
    where: str
    ratio: float
    large: bool

    @property
    def readable(self) -> bool:
        return self.ratio >= (ENOUGH_WHERE_LARGE if self.large else ENOUGH)


async def texts(page: Page) -> list[Text]:
    return [Text(**each) for each in await page.evaluate(_MEASURE)]
