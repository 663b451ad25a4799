"""Everything in a portrait that is not the face: background, clothes, long hair, glasses, hands, scarves.

Pictures are three planes of linear float32: what a mask does to each is fast when the planes lie apart.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

# Shapes are drawn this many times finer and averaged.
FINER = 2
OCCLUDERS = {
    "none": 0.5,
    "glasses": 0.16,
    "shades": 0.06,
    "hand": 0.08,
    "scarf": 0.07,
    "hair": 0.08,
    "patch": 0.05,
}

Points = Float[np.ndarray, "68 2"]
Color = Float[np.ndarray, "3"]
Colors = Float[np.ndarray, "3 size size"]


@cache
def grains(size: int) -> Float[np.ndarray, "grains size size"]:
    """Patterns of mean 0 and deviation 1: isotropic from coarse to fine, and streaks as hair and cloth have."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(11)
    found = []
    for spread in ((24, 24), (10, 10), (4, 4), (1.5, 1.5), (0.6, 0.6), (6, 0.7), (0.7, 6), (3, 0.6)):
        for _ in range(4):
            noise = gaussian_filter(rng.normal(size=(2 * size, 2 * size)), spread, mode="wrap")
            found.append(noise / noise.std())
    return np.stack(found).astype(np.float32)


def grain(size: int, kind: int, rng: np.random.Generator) -> Float[np.ndarray, "size size"]:
    """A random piece of a pattern of one of the eight kinds."""
    picture = grains(size)[4 * kind + int(rng.integers(4))]
    row, column = rng.integers(0, size, 2)
    return np.asarray(picture[row : row + size, column : column + size])


def textured(color: Color, contrast: float, grain: Float[np.ndarray, "size size"]) -> Colors:
    """A colour made brighter and darker by a pattern."""
    return np.asarray(np.multiply.outer(color.astype(np.float32), np.exp(contrast * grain)))


def background(size: int, rng: np.random.Generator) -> Colors:
    """A plain wall, a blurred room, foliage, or a clutter of patches."""
    base = rng.uniform(0.01, 0.8) * (1 + rng.normal(size=3) * 0.2).clip(0.3, 1.7)
    kind = rng.random()
    slope = (np.linspace(-1, 1, size) * rng.normal() * 0.2).astype(np.float32)
    shade = np.clip(1 + slope[:, None] + slope * np.float32(rng.normal()), 0.1, 2)
    picture: Colors = np.multiply.outer(base.astype(np.float32), shade)
    if kind > 0.2:
        coarse = int(rng.integers(0, 3))
        tint = 0.15 * base.mean() * (1 + rng.normal(size=3) * 0.5)
        picture *= np.exp(rng.uniform(0.1, 0.7) * grain(size, coarse, rng))
        picture += np.multiply.outer(tint.astype(np.float32), grain(size, int(rng.integers(0, 4)), rng))
    picture = np.clip(picture, 0, 1)
    if kind > 0.5:
        canvas = image_of(picture)
        pen = ImageDraw.Draw(canvas)
        for _ in range(int(rng.integers(3, 16))):
            x, y = rng.uniform(-0.2, 1.0, 2) * size
            w, h = rng.uniform(0.05, 0.5, 2) * size
            color = tuple(int(v) for v in rng.uniform(0, 220) * rng.uniform(0.6, 1.0, 3))
            box = [x, y, x + w, y + h]
            pen.rectangle(box, fill=color) if rng.random() < 0.6 else pen.ellipse(box, fill=color)
        if rng.random() < 0.6:
            canvas = canvas.filter(ImageFilter.BoxBlur(float(rng.uniform(1, 6))))
        picture = np.stack([np.asarray(plane) for plane in canvas.split()]) / np.float32(255)
    return picture


def image_of(picture: Colors) -> Image.Image:
    """A picture of values from 0 to 1 in bytes."""
    planes = (picture * 255).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


class Brush:
    """Soft-edged shapes in the crop's pixels."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.canvas = Image.new("L", (FINER * size, FINER * size))
        self.pen = ImageDraw.Draw(self.canvas)

    def polygon(self, points: Float[np.ndarray, "n 2"]) -> None:
        self.pen.polygon((FINER * points).ravel().tolist(), fill=255)

    def line(self, points: Float[np.ndarray, "n 2"], width: float) -> None:
        self.pen.line(
            (FINER * points).ravel().tolist(), fill=255, width=max(1, round(FINER * width)), joint="curve"
        )

    def ellipse(self, centre: Float[np.ndarray, "2"], radii: Float[np.ndarray, "2"]) -> None:
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        self.polygon(centre + np.stack([np.cos(turn), np.sin(turn)], 1) * radii)

    @property
    def alpha(self) -> Float[np.ndarray, "size size"]:
        return np.asarray(self.canvas.reduce(FINER), np.float32) / 255


def over(picture: Colors, alpha: Float[np.ndarray, "size size"], color: Color | Colors) -> Colors:
    """A colour, or another picture, laid over the picture as far as `alpha` says."""
    top = np.asarray(color, np.float32)
    return np.asarray(picture + alpha * ((top if top.ndim == 3 else top[:, None, None]) - picture))


def behind_head(picture: Colors, marks: Points, hair: Color | None, rng: np.random.Generator) -> Colors:
    """Long hair behind the head and a garment below the chin."""
    size = picture.shape[-1]
    across, up = _frame(marks)
    width, middle = float(np.linalg.norm(across)), marks[27]
    if hair is not None and rng.random() < 0.45:
        brush = Brush(size)
        spread, length = rng.uniform(0.7, 1.1), rng.uniform(0.2, 2.2)
        brush.ellipse(middle + 0.15 * width * up, np.array([spread, rng.uniform(0.8, 1.0)]) * width * 0.95)
        side = spread * 0.9 * across
        low = -length * width * up
        flare = rng.uniform(0.9, 1.3)
        brush.polygon(
            np.stack([middle - side, middle + side, middle + flare * side + low, middle - flare * side + low])
        )
        picture = over(picture, brush.alpha, textured(hair, 0.35, grain(size, 5, rng)))
    if rng.random() < 0.8:
        brush = Brush(size)
        chin = marks[8] - rng.uniform(0.15, 0.7) * width * up
        slope = rng.uniform(0.1, 0.7)
        edge = [
            chin + x * across + (0.1 * abs(x) - slope * max(0.0, abs(x) - 0.5)) * width * up
            for x in np.linspace(-2.5, 2.5, 11)
        ]
        brush.polygon(np.array([*edge, edge[-1] - 3 * width * up, edge[0] - 3 * width * up]))
        cloth = rng.uniform(0.01, 0.7) * rng.uniform(0.3, 1.0, 3)
        contrast, kind = rng.uniform(0, 0.3), int(rng.integers(1, 8))
        picture = over(picture, brush.alpha, textured(cloth, contrast, grain(size, kind, rng)))
    return picture


def mouth(
    picture: Colors, marks: Points, hole: Float[np.ndarray, "size size"], rng: np.random.Generator
) -> Colors:
    """The inside of a parted mouth where the model has none: dark, often with a tongue, a row of teeth below the upper
    lip, and one above the lower.
    """
    size = picture.shape[-1]
    inner = marks[60:68]
    if np.linalg.norm(inner[2] - inner[6]) < 0.5:
        return picture
    brush = Brush(size)
    brush.polygon(inner + 0.15 * (inner - inner.mean(0)))
    alpha = brush.alpha * hole
    picture = over(picture, alpha, rng.uniform(0.02, 0.12) * np.array([1.0, 0.55, 0.5]))
    down = inner[6] - inner[2]
    if rng.random() < 0.5:
        tongue = Brush(size)
        reach = 0.5 * np.array([np.linalg.norm(inner[4] - inner[0]), np.linalg.norm(down)])
        tongue.ellipse(inner.mean(0) + rng.uniform(0.1, 0.4) * down, reach * rng.uniform(0.6, 1.1, 2))
        picture = over(picture, tongue.alpha * alpha, rng.uniform(0.1, 0.5) * np.array([1.0, 0.45, 0.42]))
    enamel = rng.uniform(0.25, 0.6) * np.array([1.0, 0.95, 0.85])
    for lip, length, share in ((inner[:5], rng.uniform(0.25, 0.5), 0.7), (inner[[0, 7, 6, 5, 4]], -0.2, 0.3)):
        if rng.random() < share:
            teeth = Brush(size)
            teeth.polygon(np.concatenate([lip, (lip + length * down)[::-1]]))
            picture = over(picture, teeth.alpha * alpha, enamel)
    return picture


def brows(picture: Colors, marks: Points, hair: Color, width: float, rng: np.random.Generator) -> Colors:
    """Hairs along the brows of a face `width` pixels between the outer corners of its eyes: bushy or a thin line, where
    no model's albedo has them.
    """
    _, up = _frame(marks)
    thick, dense = width * rng.uniform(0.02, 0.09), rng.uniform(0.15, 0.9)
    lift = rng.normal() * 0.015 * width
    size = picture.shape[-1]
    shade = textured(hair * rng.uniform(0.4, 1.1), 0.4, grain(size, 4, rng))
    for inner, outer in ((21, 17), (22, 26)):
        brush = Brush(size)
        step = 1 if outer > inner else -1
        line = marks[list(range(inner, outer + step, step))] + lift * up
        half = 0.5 * thick * np.array([0.8, 1.0, 1.0, 0.7, 0.25])[:, None] * up
        brush.polygon(np.concatenate([line + half, (line - half)[::-1]]))
        picture = over(picture, dense * brush.alpha, shade)
    return picture


def occlude(picture: Colors, marks: Points, kind: str, skin: Color, hair: Color,
            rng: np.random.Generator) -> Colors:  # fmt: skip
    """One of `OCCLUDERS` painted over the face."""
    size = picture.shape[-1]
    across, up = _frame(marks)
    width = float(np.linalg.norm(across))
    brush = Brush(size)
    if kind in ("glasses", "shades"):
        return _glasses(picture, marks, across, up, kind == "shades", rng)
    if kind == "hand":
        at = marks[int(rng.choice([2, 5, 8, 11, 14, 48, 54, 31]))]
        towards = np.array([rng.normal() * 0.5, 0]) @ np.stack([across, up]) / width - up
        along = towards / np.linalg.norm(towards)
        beside = np.array([-along[1], along[0]])
        brush.ellipse(at + 0.5 * width * along, np.array([0.35, 0.45]) * width * rng.uniform(0.7, 1.2))
        for finger in range(4):
            root = at + (0.35 + 0.1 * rng.random()) * width * along + (finger - 1.5) * 0.16 * width * beside
            tip = root - rng.uniform(0.2, 0.75) * width * along + rng.normal() * 0.05 * width * beside
            brush.line(np.stack([root, tip]), 0.15 * width)
        tone = textured(skin * rng.uniform(0.6, 1.3), 0.15, grain(size, 2, rng))
        return over(picture, brush.alpha, tone)
    if kind == "scarf":
        top = marks[[2, 3, 31, 33, 35, 13, 14]] if rng.random() < 0.5 else marks[[4, 5, 48, 57, 54, 11, 12]]
        top = top - rng.uniform(-0.05, 0.1) * width * up
        low = 2 * width * up
        outer = [
            top[-1] + 0.2 * across,
            top[-1] + 0.5 * across - low,
            top[0] - 0.5 * across - low,
            top[0] - 0.2 * across,
        ]
        brush.polygon(np.array([*top, *outer]))
        cloth = rng.uniform(0.02, 0.8) * rng.uniform(0.3, 1.0, 3)
        return over(picture, brush.alpha, textured(cloth, 0.25, grain(size, int(rng.integers(1, 8)), rng)))
    if kind == "hair":
        start = marks[27] + rng.normal() * 0.25 * across + rng.uniform(0.7, 1.0) * width * up
        for _ in range(int(rng.integers(15, 60))):
            end = start + rng.normal() * 0.45 * across - rng.uniform(0.2, 1.6) * width * up
            bend = 0.5 * (start + end) + rng.normal() * 0.25 * across
            t = np.linspace(0, 1, 8)[:, None]
            brush.line((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end, 0.02 * width)
        return over(picture, brush.alpha, textured(hair, 0.3, grain(size, 5, rng)))
    if kind == "patch":
        at = marks[int(rng.integers(68))] + rng.normal(size=2) * 0.2 * width
        brush.ellipse(at, rng.uniform(0.1, 0.45, 2) * width)
        return over(picture, brush.alpha, background(size, rng))
    return picture


def _glasses(picture: Colors, marks: Points, across: Float[np.ndarray, "2"], up: Float[np.ndarray, "2"], dark: bool,
             rng: np.random.Generator) -> Colors:  # fmt: skip
    size, width = picture.shape[-1], float(np.linalg.norm(across))
    lenses, frame = Brush(size), Brush(size)
    thick = width * rng.uniform(0.015, 0.05)
    roundness = rng.uniform(2.0, 6.0)
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    superellipse = np.sign(circle) * np.abs(circle) ** (2 / roundness)
    radii = width * np.array([rng.uniform(0.2, 0.27), rng.uniform(0.13, 0.24)])
    drop = rng.uniform(-0.02, 0.08) * width * up
    for corners, ear in (((36, 39), 0), ((42, 45), 16)):
        shape = superellipse * radii
        # Foreshortened as the eye is.
        squeeze = float(
            np.clip(np.linalg.norm(marks[corners[0]] - marks[corners[1]]) / (0.32 * width + 1e-6), 0.4, 1.1)
        )
        centre = marks[list(corners)].mean(0) - drop
        outline = centre + shape[:, :1] * squeeze * across / width + shape[:, 1:] * up
        lenses.polygon(outline)
        frame.line(np.concatenate([outline, outline[:1]]), thick)
        outer = marks[corners[0] if ear == 0 else corners[1]]
        frame.line(np.stack([outer - drop, 0.85 * marks[ear] + 0.15 * outer - drop]), thick)
    frame.line(np.stack([marks[39] - drop, marks[42] - drop]), thick)
    if dark:
        glare = rng.uniform(0, 0.25) * grain(size, 1, rng).clip(0)
        tint, opacity = rng.uniform(0.005, 0.08, (3, 1, 1)) + glare, rng.uniform(0.85, 1.0)
    else:
        tint, opacity = rng.uniform(0.3, 1.0, 3), rng.uniform(0, 0.15)
    picture = over(picture, opacity * lenses.alpha, tint)
    return over(picture, frame.alpha, rng.uniform(0.005, 0.3) * rng.uniform(0.5, 1.0, 3))


def _frame(marks: Points) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """A face width to the right in the picture, as long as a frontal face is wide, and the unit vector up."""
    up = marks[27] - marks[8]
    height = float(np.linalg.norm(up)) + 1e-6
    up = up / height
    right = np.array([-up[1], up[0]])
    return right * height * 1.15, up
