"""Pictures for the demonstration, drawn on the spot: the project ships no photo of anybody."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

_SKIN = [(244, 208, 177), (198, 134, 92), (121, 78, 52), (230, 184, 150)]
_FORMATS = ["jpg", "png", "webp", "jpg"]


def draw_faces(folder: Path) -> list[Path]:
    """Write four cartoon faces (JPEG, PNG, WebP; 640×800 to 400×400), the same at every call."""
    paths = []
    for index, (skin, suffix) in enumerate(zip(_SKIN, _FORMATS, strict=True)):
        path = folder / f"drawing-{index + 1}.{suffix}"
        size = [(640, 800), (512, 512), (800, 600), (400, 400)][index]
        _face(random.Random(index), skin).resize(size).save(path)  # noqa: S311 - a drawing, not a secret
        paths.append(path)
    return paths


def _face(dice: random.Random, skin: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGB", (600, 600), tuple(dice.randrange(60, 200) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    hair = tuple(dice.randrange(20, 110) for _ in range(3))
    draw.ellipse((130, 60, 470, 470), fill=hair)
    draw.ellipse((160, 110, 440, 520), fill=skin)
    for x in (235, 365):
        draw.ellipse((x - 34, 250, x + 34, 290), fill="white")
        draw.ellipse((x - 14, 254, x + 14, 286), fill=tuple(dice.randrange(0, 130) for _ in range(3)))
    draw.line((300, 290, 285, 370, 315, 372), fill=tuple(channel * 3 // 4 for channel in skin), width=6)
    draw.arc((235, 360, 365, 450), 20, 160, fill=(150, 40, 50), width=10)
    return image.filter(ImageFilter.GaussianBlur(2))
