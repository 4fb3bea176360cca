"""What a new version is beside the one before it under the same name."""

from collections.abc import Iterator

from pydantic import ValidationError

from contract.manifest import Manifest
from contract.store import LATEST, ModelStore
from contract.version import MANIFEST
from training.errors import ExportRefused

_WEIGHTS = "/variables/variables.data-"
"""In the path of the file of a SavedModel that holds its weights."""


def described(store: ModelStore, name: str) -> list[Manifest]:
    """The versions of a model whose manifest can be read, the newest first.

    Their files are not looked at: a damaged version is no hindrance to the next one.
    """
    found = []
    for number in reversed(store.versions(name)):
        try:
            text = (store.root / name / str(number) / MANIFEST).read_bytes()
            found.append(Manifest.model_validate_json(text))
        except (OSError, ValidationError):
            continue
    return found


def require_same_classes(
    store: ModelStore, name: str, classes: tuple[str, ...], tumor_classes: tuple[str, ...]
) -> None:
    """Asks whether whoever calls a model by its name may go on doing so.

    Raises:
        ExportRefused: the newest version tells other classes, or means a tumour by others.
    """
    for newest in described(store, name)[:1]:
        for what, ours, theirs in (
            ("classes", classes, newest.classes),
            ("tumour classes", tumor_classes, newest.tumor_classes),
        ):
            if set(ours) != set(theirs):
                raise ExportRefused(
                    f"{_label(newest)} has the {what} {', '.join(theirs)}, and this run "
                    f"{', '.join(ours)}: publish it under a name of its own (--name), or say "
                    "--other-classes if it is meant to take over"
                )


def succession(store: ModelStore, published: Manifest) -> Iterator[str]:
    """Lines on what a version that was just published changes for those who ask for its name."""
    others = [m for m in described(store, published.name) if m.version != published.version]
    same = [_label(other) for other in others if _weights(other) & _weights(published)]
    if same:
        yield f"it has the same weights as {', '.join(same)}"
    newest = store.resolve(published.name, LATEST)
    if newest == published.version:
        yield f"from now on {published.name}/{LATEST} is {_label(published)}"
    else:
        yield f"{published.name}/{LATEST} is {published.name}/{newest} as before"
    for before in others[:1]:
        lacking = [name for name, has in _abilities(before).items() if has]
        lacking = [name for name in lacking if not _abilities(published)[name]]
        if lacking:
            yield f"it lacks what {_label(before)} has: {', '.join(lacking)}"
        yield from _figures(published, before)


def _label(manifest: Manifest) -> str:
    return f"{manifest.name}/{manifest.version}"


def _weights(manifest: Manifest) -> set[str]:
    """sha256 of the files that hold them."""
    litert = manifest.artifacts.get("litert")
    return {f.sha256 for f in manifest.files if f.path == litert or _WEIGHTS in f.path}


def _abilities(manifest: Manifest) -> dict[str, bool]:
    """What a version may say beyond its probabilities."""
    answer = manifest.answer
    point = answer.operating_point if answer else None
    return {
        "regions by a mask": answer is not None and answer.region is not None,
        "calibrated probabilities": answer is not None,
        "prediction sets": answer is not None and answer.conformal is not None,
        "the decision refer": point is not None and point.refer_low < point.refer_high,
        "in_distribution": answer is not None and answer.ood is not None,
        "an int8 file": manifest.artifacts.get("litert", "").endswith(".int8.tflite"),
    }


def _figures(published: Manifest, before: Manifest) -> Iterator[str]:
    """Those that both have, of the int8 file where both have one."""
    ours, theirs = published.metrics, before.metrics
    shared = [name for name in ours if name in theirs]
    shared = [name for name in shared if ".int8." in name] or shared
    if not shared:
        return
    tests = published.provenance.counts.get("test"), before.provenance.counts.get("test")
    yield f"figures, each of its own test slices ({tests[0]}; {_label(before)}: {tests[1]}):"
    for name in shared:
        yield f"  {name} {ours[name]:.4f}; {_label(before)}: {theirs[name]:.4f}"
