"""The audit as people read it: a table, ``audit.json`` and a contact sheet of sample pairs."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from training.datasets import read_folders
from training.duplicates import Audit, Pair, audit, exclude_each_other, orient
from training.images import ImageSet

TILE_PIXELS: Final = 160
CAPTION_PIXELS: Final = 26
PAIRS_PER_ROW: Final = 8
SAMPLE_SEED: Final = 0


def run_audit(roots: Sequence[Path], out: Path) -> Audit:
    """Audits data folders; prints the table, writes ``audit.json`` and ``duplicates.png``.

    Raises:
        DatasetError: the folders hold no readable, labelled images.
    """
    images = read_folders(roots)
    print(images.describe())
    found = audit(images)
    summary = found.summary(images)
    for name, value in summary.items():
        if name == "conflicting_labels" and value:
            print(
                f"{name:<44}{len(value):>7} images, near duplicates; a recipe that tells these classes "
                "apart does not train on them:"
            )
            for entry in value:
                print(f"  group {entry['group']}: {entry['file']}")
        else:
            print(f"{name:<44}{value or 0!s:>7}")
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "data": [source.model_dump() for source in images.sources()],
        **summary,
        "images_without_a_class": dict(sorted(images.unlabelled.items())),
        "other_files": dict(sorted(images.passed_over.items())),
        "unreadable_files": [{"file": path.name, "code": code} for path, code in images.unreadable],
        "groups_of_two_or_more": _groups(found, images),
    }
    (out / "audit.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    contact_sheet(images, found).save(out / "duplicates.png", optimize=True)
    print(f"wrote {out / 'audit.json'} and {out / 'duplicates.png'}")
    return found


def _groups(found: Audit, images: ImageSet) -> list[list[str]]:
    members: dict[int, list[str]] = {}
    for index, group in enumerate(found.groups):
        members.setdefault(int(group), []).append(images.files[index].name)
    return [names for names in members.values() if len(names) > 1]


def contact_sheet(images: ImageSet, found: Audit) -> Image.Image:
    """Sample pairs, one above the other, a row for each kind.

    Rows: byte-identical, those of Training and Testing if there are any; near duplicates from the least
    to the most alike; turned or flipped ones (the second shown as it was matched); pairs whose labels
    exclude each other.
    """
    rng = np.random.default_rng(SAMPLE_SEED)
    labels = images.labels
    exact = [pair for same in found.copies for pair in _pairs(images, same)]
    equal = [pair for same in found.equal for pair in _pairs(images, same)]
    near = [p for p in equal if images.sha256[p.first] != images.sha256[p.second]]
    near += [p for p in found.near_pairs if p.orientation == 0]
    straight = sorted(near, key=lambda p: p.fine)
    turned = sorted((p for p in found.near_pairs if p.orientation != 0), key=lambda p: p.fine)
    leaked = [
        p
        for p in exact
        if {images.parts[p.first], images.parts[p.second]} == {"training", "testing"}
    ]
    title = "byte-identical, Training and Testing" if leaked else "byte-identical"
    rows = {
        title: _sample(leaked or exact, rng),
        "near duplicates, from least to most alike": _spread(straight),
        "near duplicates turned or flipped, from least to most alike": _spread(turned),
        "one picture, two labels": _sample(
            [
                p
                for p in [*equal, *found.near_pairs]
                if exclude_each_other({labels[p.first], labels[p.second]})
            ],
            rng,
        ),
    }
    rows = {title: pairs for title, pairs in rows.items() if pairs}
    height = 2 * TILE_PIXELS + 2 * CAPTION_PIXELS
    sheet = Image.new("L", (PAIRS_PER_ROW * TILE_PIXELS, max(1, len(rows)) * height), 32)
    draw = ImageDraw.Draw(sheet)
    for row, (title, pairs) in enumerate(rows.items()):
        top = row * height
        draw.text((6, top + 6), title, fill=255, font_size=15)
        for column, pair in enumerate(pairs):
            left = column * TILE_PIXELS
            second = orient(images.slices[pair.second], pair.orientation)
            for offset, pixels in ((0, images.slices[pair.first]), (TILE_PIXELS, second)):
                tile = Image.fromarray(np.ascontiguousarray(pixels)).resize(
                    (TILE_PIXELS - 4, TILE_PIXELS - 4)
                )
                sheet.paste(tile, (left + 2, top + CAPTION_PIXELS + offset))
            caption = f"{pair.fine:.2f} {labels[pair.first]}/{labels[pair.second]}"
            draw.text((left + 4, top + height - CAPTION_PIXELS + 4), caption, fill=200)
    return sheet


def _pairs(images: ImageSet, same: Sequence[int]) -> Iterator[Pair]:
    """Pairs of equal images, of no more than two of each part and class."""
    kinds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in same:
        kinds[images.files[index].part, images.files[index].label].append(index)
    shown = sorted(index for kind in kinds.values() for index in kind[:2])
    return (Pair(a, b, 0, 1.0) for a, b in itertools.combinations(shown, 2))


def _sample(pairs: Sequence[Pair], rng: np.random.Generator) -> list[Pair]:
    chosen = rng.permutation(len(pairs))[:PAIRS_PER_ROW]
    return [pairs[i] for i in chosen]


def _spread(pairs: Sequence[Pair]) -> list[Pair]:
    if not pairs:
        return []
    places = np.unique(np.linspace(0, len(pairs) - 1, PAIRS_PER_ROW).astype(int))
    return [pairs[i] for i in places]
