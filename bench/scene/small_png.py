"""Makes a PNG of a page small: few colours, one byte each. The browser reads it, we write it."""

import base64
import struct
import zlib
from typing import Final

from playwright.async_api import Browser

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_INDEXED: Final = 3
_COLOURS: Final = 256
# The colours that occur most are kept, then those that would change most, such as a rare red; each
# other one becomes the nearest of them.
_REDUCE: Final = """async ([png, most]) => {
    const blob = await (await fetch("data:image/png;base64," + png)).blob();
    const image = await createImageBitmap(blob);
    const canvas = new OffscreenCanvas(image.width, image.height);
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    const bytes = pen.getImageData(0, 0, image.width, image.height).data;
    const pixels = new Uint32Array(bytes.buffer);
    const counts = new Map();
    for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    const colours = [...counts].sort((a, b) => b[1] - a[1]).map(([pixel]) => pixel);
    const parts = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
    const palette = [], nearest = new Int32Array(colours.length);
    const far = new Float64Array(colours.length).fill(Infinity);
    const keep = ([x, y, z]) => {
        palette.push([x, y, z]);
        colours.forEach((pixel, n) => {
            const [r, g, b] = parts(pixel);
            const distance = (r - x) ** 2 + (g - y) ** 2 + (b - z) ** 2;
            if (distance < far[n]) { far[n] = distance; nearest[n] = palette.length - 1; }
        });
    };
    for (const pixel of colours.slice(0, most / 4)) keep(parts(pixel));
    while (palette.length < Math.min(most, colours.length)) {
        let worst = 0, loss = -1;
        colours.forEach((pixel, n) => {
            const lost = far[n] * Math.sqrt(counts.get(pixel));
            if (lost > loss) { worst = n; loss = lost; }
        });
        keep(parts(colours[worst]));
    }
    const places = new Map(colours.map((pixel, n) => [pixel, nearest[n]]));
    const rows = Uint8Array.from(pixels, (pixel) => places.get(pixel));
    let text = "";
    for (let at = 0; at < rows.length; at += 30000) {
        text += String.fromCharCode(...rows.subarray(at, at + 30000));
    }
    return [image.width, image.height, palette.flat(), btoa(text)];
}"""


async def smaller(browser: Browser, png: bytes) -> bytes:
    page = await browser.new_page()
    try:
        text = base64.b64encode(png).decode()
        width, height, palette, encoded = await page.evaluate(_REDUCE, [text, _COLOURS])
    finally:
        await page.close()
    pixels = base64.b64decode(encoded)
    # Each row begins with its filter; without one, plain areas of a page become smallest.
    rows = b"".join(b"\0" + pixels[at : at + width] for at in range(0, len(pixels), width))
    header = struct.pack(">IIBBBBB", width, height, 8, _INDEXED, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", bytes(palette)), (b"IDAT", zlib.compress(rows, 9)))
    return _SIGNATURE + b"".join(_chunk(*each) for each in (*chunks, (b"IEND", b"")))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
