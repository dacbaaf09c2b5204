"""Pictures for web pages are small, and as they were."""

import io

from PIL import Image, ImageChops

from training.figures.webp import webp_bytes

NOISE = Image.merge("RGB", [Image.effect_noise((64, 64), 80) for _ in "RGB"])  # of many colours
SMOOTH = Image.merge("RGB", [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256))])


def difference(content: bytes, picture: Image.Image) -> int:
    """The largest difference of a channel between a file and a picture."""
    with Image.open(io.BytesIO(content)) as found:
        assert found.format == "WEBP" and found.size == picture.size
        return max(high for _, high in ImageChops.difference(found.convert("RGB"), picture).getextrema())


def test_every_pixel_stays_as_it_is() -> None:
    for picture in (NOISE, SMOOTH):
        content, png = webp_bytes(picture), io.BytesIO()
        picture.save(png, "PNG", optimize=True)
        assert difference(content, picture) == 0 and len(content) < len(png.getvalue())


def test_colours_are_rounded_so_little_that_nobody_sees_it() -> None:
    rounded = webp_bytes(NOISE, step=15)
    assert difference(rounded, NOISE) == 7 and len(rounded) < len(webp_bytes(NOISE))
    extremes = Image.new("RGB", (2, 2), "white")
    extremes.putpixel((0, 0), (0, 0, 0))
    assert difference(webp_bytes(extremes, step=15), extremes) == 0
