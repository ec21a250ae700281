"""Emoji pictures from npm packages -> `build/pictures.zip`: 2,400 pictures with names, category, colour and split.

    python -m demo.making.pictures          # downloads the packages with `npm pack` where they are missing

Splits are decided by a hash of the code point. A *core* concept (one clear thing, drawn in both styles):
40 % have both styles in pretraining; 30 % have one style there and the other in `train`; 30 % likewise
in `test`. All other pictures are for pretraining. So no picture is in two splits, `train` and `test`
share no concept, and every concept of either was seen in pretraining, drawn in the other style.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from demo.making import BUILD
from demo.making.vocabulary import CORE_GROUPS, EXTRA_GROUPS, UNCLEAR_NAME, name_words, same_family

PACKAGES = {
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",  # MIT, Microsoft Fluent Emoji as SVG
    "3d": "@lobehub/fluent-emoji-3d@1.1.0",  # MIT, Microsoft Fluent Emoji as WebP
    "names": "emojibase-data@17.0.0",  # MIT
}
SIDE = 192  # pixels


@dataclass(frozen=True)
class Picture:
    """One drawing of one concept. `en` and `ko` are its names, `color` its main colour where it has one."""

    index: int
    code: str
    style: str
    split: str  # pretrain, train or test
    core: bool
    en: str
    ko: str
    category: str
    color: str | None

    @property
    def file(self) -> str:
        return f"{self.code}-{self.style}.webp"


def read_pictures(path: Path = BUILD / "pictures.zip") -> list[Picture]:
    """All pictures' descriptions; the drawings come from `read_drawing`."""
    with zipfile.ZipFile(path) as archive:
        return [Picture(**entry) for entry in json.loads(archive.read("pictures.json"))]


def read_drawing(picture: Picture, path: Path = BUILD / "pictures.zip") -> Image.Image:
    """The drawing, RGBA, SIDE x SIDE."""
    with zipfile.ZipFile(path) as archive:
        return Image.open(io.BytesIO(archive.read(picture.file))).convert("RGBA")


@cache
def _words(english: str, korean: str):
    return name_words(english, korean)


def confusable(first: Picture, second: Picture) -> bool:
    """Whether a person could take one name for the other: equal or contained names, shared words, look-alikes."""
    if first.code == second.code or first.en in second.en or second.en in first.en:
        return True
    (words1, korean1, joined1), (words2, korean2, joined2) = (_words(p.en, p.ko) for p in (first, second))
    return bool(
        words1 & words2 or korean1 & korean2 or joined1 in joined2 or joined2 in joined1 or same_family(words1, words2)
    )


def _share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) / 2**32


def main_color(drawing: Image.Image) -> str | None:
    """The colour of over 60 % of the opaque pixels, if no other has 25 %."""
    pixels = np.asarray(drawing.resize((64, 64))).reshape(-1, 4)
    pixels = np.ascontiguousarray(pixels[pixels[:, 3] > 200][:, :3])
    if len(pixels) < 300:
        return None
    hue, saturation, value = np.asarray(Image.fromarray(pixels[None]).convert("HSV"))[0].astype(int).T
    hue = hue * 360 // 255
    vivid = (saturation > 110) & (value > 100)
    names = np.full(len(hue), "none", dtype="<U6")
    for name, low, high in (
        ("orange", 18, 40),
        ("yellow", 44, 66),
        ("green", 75, 165),
        ("blue", 185, 250),
        ("purple", 262, 295),
        ("pink", 315, 343),
    ):
        names[vivid & (hue >= low) & (hue < high)] = name
    names[vivid & ((hue < 12) | (hue > 345))] = "red"
    names[(hue < 40) & (saturation > 70) & (value > 50) & (value <= 170)] = "brown"
    names[value < 60] = "black"
    shares = Counter(names.tolist()).most_common(2)
    (first, count), second = shares[0], shares[1][1] if len(shares) > 1 else 0
    clear = first != "none" and count > 0.6 * len(names) and second < 0.25 * len(names)
    return first if clear else None


def _fetch(package: str, folder: Path) -> Path:
    """The unpacked npm package."""
    if not folder.exists():
        folder.mkdir(parents=True)
        archive = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        with tarfile.open(folder / archive) as tar:
            tar.extractall(folder, filter="data")
    return folder / "package"


def _normal(code: str) -> str:
    return code.lower().replace("-fe0f", "")


class _Drawings:
    """Both styles of every emoji, by code point."""

    def __init__(self, flat: Path, three_d: Path):
        self.icons = json.loads((flat / "icons.json").read_text())
        self.names = json.loads((flat / "chars.json").read_text())
        self.files = {_normal(path.stem): path for path in (three_d / "assets").glob("*.webp")}

    def styles(self, code: str) -> dict:
        """style -> function that draws it"""
        styles = {}
        name = self.names.get(code)
        name = self.icons.get("aliases", {}).get(name, {}).get("parent", name)
        if name in self.icons["icons"]:
            styles["flat"] = lambda: self._render(self.icons["icons"][name])
        if code in self.files:
            styles["3d"] = lambda: Image.open(self.files[code])
        return styles

    def _render(self, icon: dict) -> Image.Image:
        import resvg_py

        width, height = (icon.get(key, self.icons.get(key, 32)) for key in ("width", "height"))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="256" height="256">{icon["body"]}</svg>'
        )
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg))))


def _concepts(names: Path):
    """(code, English, Korean, category, core) of every emoji that is clear enough to be shown."""
    english = json.loads((names / "en" / "data.json").read_text())
    korean = {entry["hexcode"]: entry["label"] for entry in json.loads((names / "ko" / "data.json").read_text())}
    groups = {
        group["order"]: group["key"] for group in json.loads((names / "en" / "messages.json").read_text())["subgroups"]
    }
    for entry in english:
        group, code, name = groups.get(entry.get("subgroup")), _normal(entry["hexcode"]), entry["label"]
        translated = korean.get(entry["hexcode"], "")
        core = group in CORE_GROUPS and not UNCLEAR_NAME.search(name)
        if not translated or not (core or group in EXTRA_GROUPS):
            continue
        category = CORE_GROUPS[group] if core else EXTRA_GROUPS[group]
        if category == "flag":  # "flag: Ghana" -> "Ghana"
            name, translated = name.split(": ")[-1], translated.split(": ")[-1]
        yield code, name, translated, category, core


def _split(code: str, style: str, core: bool) -> str:
    held_out = "3d" if _share("style" + code) < 0.5 else "flat"
    share = _share("split" + code)
    if not core or share < 0.4 or style != held_out:
        return "pretrain"
    return "train" if share < 0.7 else "test"


def make() -> Path:
    """Fetch the packages, draw every picture, and write `build/pictures.zip`."""
    folders = {name: _fetch(package, BUILD / "packages" / name) for name, package in PACKAGES.items()}
    drawings, pictures, target = _Drawings(folders["flat"], folders["3d"]), [], BUILD / "pictures.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for code, english, korean, category, core in _concepts(folders["names"]):
            styles = drawings.styles(code)
            core = core and len(styles) == 2
            for style, draw in styles.items():
                drawing = draw().convert("RGBA").resize((SIDE, SIDE), Image.LANCZOS)
                picture = Picture(
                    len(pictures),
                    code,
                    style,
                    _split(code, style, core),
                    core,
                    english,
                    korean,
                    category,
                    main_color(drawing),
                )
                buffer = io.BytesIO()
                drawing.save(buffer, "WEBP", quality=92, alpha_quality=95, method=4)
                archive.writestr(picture.file, buffer.getvalue())
                pictures.append(picture)
        archive.writestr("pictures.json", json.dumps([asdict(p) for p in pictures], ensure_ascii=False))
    print(
        f"{len(pictures)} pictures of {len({p.code for p in pictures})} concepts, {target.stat().st_size / 1e6:.1f} MB"
    )
    print(Counter((p.split, p.style) for p in pictures))
    return target


if __name__ == "__main__":
    make()
