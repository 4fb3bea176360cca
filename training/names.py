"""What the names of folders and files say: a class, a part of a data set, a mask, or nothing."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

NO_TUMOR: Final = "notumor"
ANY_TUMOR: Final = "tumor"
"""Label of images that show a tumour whose kind is not stated."""

_SPELLINGS: Final = {
    "glioma": "glioma gliomas hgg lgg highgradeglioma lowgradeglioma highgradegliomas "
    "lowgradegliomas glioblastoma glioblastomas gbm",
    "meningioma": "meningioma meningiomas",
    "pituitary": "pituitary pituitaryadenoma pituitaryadenomas",
    NO_TUMOR: "no normal normals healthy healthybrain healthybrains normalbrain normalbrains "
    "normalvolumes control controls healthycontrol healthycontrols normalcontrol normalcontrols "
    "tumornegative tumournegative",
    ANY_TUMOR: "yes yestumor yestumour tumor tumour tumors tumours tumorous tumourous tumoral "
    "tumorpositive tumourpositive braintumor braintumour braintumors braintumours",
}
_LABELS: Final = {word: label for label, words in _SPELLINGS.items() for word in words.split()}
_KIND_OF_TUMOR: Final = re.compile(r"(gliomas?|meningiomas?|pituitary)tumou?rs?")
_WITHOUT_TUMOR: Final = re.compile(
    r"(no|non|without)(an?|any)?(brain)?tumou?r(s|ous|al)?(detected|found|present|seen)?(controls?)?"
    r"|(brain)?tumou?rfree|freeoftumou?rs?"
)
_NEUTRAL: Final = re.compile(
    r"(.{4,}?)(images?|imgs?|slices?|scans?|mris?|cases?|patients?|subjects?|dataset|data)"
)
"""A class, and a word behind it that says nothing of it; ``no images`` is no class."""
_TITLE: Final = frozenset({"data", "dataset"})
"""What stands behind ``brain tumor`` where a data set is called so, healthy brains and all."""
_FLAG: Final = re.compile(r"(?<!\d)[01]$")
"""``tumor_0`` is most likely one without a tumour, and ``tumor_1`` its counterpart."""
_ABSENCE: Final = frozenset(
    {"no", "non", "not", "without", "free", "healthy", "normal", "none", "negative"}
)
"""Words of a folder's name that speak of what is not there."""
_ABSENT_TUMOR: Final = re.compile(r"(no|non)tumou?r[a-z]*")
_IMAGING: Final = r"(iv|gd|gad[a-z]*|contrast[a-z]*|enhanc[a-z]*|inject[a-z]*|fat[a-z]*|fs|motion)"
_WITHOUT_CONTRAST: Final = re.compile(
    rf"(no|non|not|without|normal|negative)[^a-z]*{_IMAGING}([^a-z]+(contrast|enhanc|inject)[a-z]*)?"
    rf"|{_IMAGING}[^a-z]*(none|free|no|negative)"
)
"""How a slice was taken, which says nothing of what it shows."""
_PART: Final = re.compile(
    r"(?:(?P<testing>test|testing)|train|training|val|valid|validation)(set|data|dataset|images)?"
)
_CONTAINER: Final = (
    r"images?|imgs?|pictures?|photos?|pngs?|jpe?gs?|dicoms?|dcms?|slices?|scans?|mris?|mr|raw"
    r"|originals?|files?|data|dataset|rawdata|derivatives|all|patients?|subjects?|cases?"
    r"|augmented|cropped|fold ?\d+"
    r"|anat|t1|t1w|t1c|t1ce|t1gd|t2|t2w|pd|flair|dwi|adc|axial|coronal|sagittal|ax|cor|sag"
)
_KEEPS_ALL: Final = re.compile(rf"({_CONTAINER})( ({_CONTAINER}))*")
_MASK_WORD: Final = r"(masks?|segs?|segmentations?|labels?|annotations?|ground[\W_]?truths?|gt)"
_LIKE_MASKS: Final = re.compile(rf"(.*[\W_])?({_MASK_WORD}|segment[a-z]*)([\W_]*\d+)?")
_MASK_OF: Final = (
    re.compile(rf"(.+?)[\W_]+{_MASK_WORD}([\W_]*\d+)?"),
    re.compile(rf"{_MASK_WORD}[\W_]+(.+)"),
)


def canonical_label(folder: str) -> str | None:
    """The class that a folder name spells, or None: ``No_Tumor``, ``glioma tumor``, ``yes`` …

    All of the name has to spell it: ``notumor vs glioma`` has none, nor has ``negative``, which does
    not say of what, nor ``No. 12``, which is a number, nor ``brain tumor data set``, a title.
    """
    if re.fullmatch(r"no[\W_]*\d+", folder.lower()):
        return None
    label = _of_letters(folder)
    return None if label is None or _is_flagged(folder, label) else label


def _of_letters(folder: str) -> str | None:
    word = re.sub(r"[^a-z]", "", folder.lower())
    if label := _spelt(word):
        return label
    neutral = _NEUTRAL.fullmatch(word)
    label = _spelt(neutral[1]) if neutral else None
    return None if label == ANY_TUMOR and neutral and neutral[2] in _TITLE else label


def _is_flagged(folder: str, label: str) -> bool:
    flag = _FLAG.search(folder)
    return flag is not None and (flag[0] == "0" or label == ANY_TUMOR)


def _spelt(word: str) -> str | None:
    if _WITHOUT_TUMOR.fullmatch(word):
        return NO_TUMOR
    if kind := _KIND_OF_TUMOR.fullmatch(word):
        return _LABELS[kind[1]]
    return _LABELS.get(word)


def nearest_label(folders: Sequence[str]) -> str | None:
    """The class that the folders above an image give it, the outermost first.

    ``tumor/free of it`` is no tumour, though no spelling of a class that is known: what lies below a
    name that speaks of absence has no class rather than that of a tumour. That contrast medium is
    absent says nothing of a tumour.
    """
    absent = False
    for folder in reversed(folders):
        label = canonical_label(folder)
        if label is not None:
            return None if absent and label != NO_TUMOR else label
        # The letters of ``tumor_0`` spell a class that it is not, whatever lies above it.
        absent |= _of_letters(folder) is not None or _speaks_of_absence(folder.lower())
    return None


def classes_among(folders: Sequence[str]) -> list[tuple[int, str]]:
    """Where among folders those are that spell a class, and which, the outermost first."""
    found = ((place, canonical_label(folder)) for place, folder in enumerate(folders))
    return [(place, label) for place, label in found if label]


def _speaks_of_absence(folder: str) -> bool:
    words = re.findall("[a-z]+", _WITHOUT_CONTRAST.sub(" ", folder))
    return not _ABSENCE.isdisjoint(words) or any(_ABSENT_TUMOR.fullmatch(w) for w in words)


def part_of(folder: str) -> str | None:
    """``training`` or ``testing``, where a folder's name says so.

    A folder for validation counts as ``training``: what validates is drawn in whole groups.
    """
    found = _PART.fullmatch(re.sub(r"[\W_]", "", folder.lower()))
    if found is None:
        return None
    return "testing" if found["testing"] else "training"


def keeps_all(folder: str) -> bool:
    """Whether a name says how images are kept or were taken, not whose they are: ``png``, ``T1``."""
    words = re.findall(r"[^\W_]+", folder.lower())
    return any(_KEEPS_ALL.fullmatch(gap.join(words)) for gap in ("", " "))


def is_own(folder: str) -> bool:
    """Whether a name is none of a class, a part or a container, but of a person or a data set."""
    return not (canonical_label(folder) or part_of(folder) or keeps_all(folder))


def person_name(name: str) -> str:
    """A person's name as it is compared, whoever typed it: two spellings are rather one person's.

    The sessions of BIDS, ``sub-01_ses-02``, are of one.
    """
    plain = unicodedata.normalize("NFC", name).strip().casefold()
    return re.sub(r"(?<=.)_ses-.*", "", plain)


def masked_by(stem: str) -> set[str]:
    """Names of the images that a file is the mask of, if it is one: ``7`` for ``7_seg`` or ``gt_7``."""
    behind, before = (pattern.fullmatch(stem.casefold()) for pattern in _MASK_OF)
    return ({behind[1]} if behind else set()) | ({before[2]} if before else set())


def is_mask_folder(folder: str) -> bool:
    """Whether a name is a word for masks, and nothing else."""
    return re.fullmatch(_MASK_WORD, folder.lower()) is not None


def like_masks(folders: Sequence[str], stem: str) -> bool:
    """Whether a file may be a mask by its name or that of a folder above it."""
    return bool(masked_by(stem)) or any(_LIKE_MASKS.fullmatch(n.lower()) for n in (*folders, stem))


def printable(name: str) -> str:
    """A name of any bytes as text that every output takes."""
    return name.encode("utf-8", "backslashreplace").decode()
