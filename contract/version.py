"""One version of a model: a folder with a manifest that names every file in it by its hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contract.errors import CorruptVersion, IncompleteVersion, NewerSchema
from contract.manifest import SCHEMA_VERSION, FileEntry, Manifest
from contract.preprocessing import PreprocessSpec, reproduce
from contract.sealing import SealedFile

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version that has been verified.

    Attributes:
        path: its folder.
        manifest: its description.
        manifest_digest: sha256 of ``manifest.json``, which names the version beyond doubt.
        preprocess: its preprocessing, shown to be reproducible here.
        files: by their names, artifacts and training embeddings as they were verified; a SavedModel is
            a folder, and is not among them.
    """

    path: Path
    manifest: Manifest
    manifest_digest: str
    preprocess: PreprocessSpec
    files: Mapping[str, SealedFile]


def verify(path: Path, name: str, version: int) -> StoredVersion:
    """A folder as that version: its manifest, the hash of every file, its preprocessing.

    Raises:
        NewerSchema: a later release wrote it.
        IncompleteVersion: a file is missing or cannot be read.
        CorruptVersion: a file or the manifest is not what was published.
        PreprocessMismatch: its preprocessing cannot be reproduced here.
    """
    manifest, digest = _read_manifest(path, f"{name}/{version}")
    if (manifest.name, manifest.version) != (name, version):
        raise CorruptVersion(f"{name}/{version} holds the manifest of another version")
    files = _verify_files(path, manifest)
    recorded = manifest.preprocess
    spec = reproduce(recorded.parameters, recorded.digest, recorded.probe_digest)
    return StoredVersion(path, manifest, digest, spec, files)


def with_files(manifest: Manifest, folder: Path) -> Manifest:
    """A manifest that names every file of a folder but its own.

    Raises:
        IncompleteVersion: an artifact that it names is not there.
    """
    files = tuple(
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            sha256=file_digest(path),
            size_bytes=path.stat().st_size,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    )
    complete = manifest.model_copy(update={"files": files})
    _require_artifacts(complete)
    return complete


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path, label: str) -> tuple[Manifest, str]:
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise IncompleteVersion(f"{label} has no readable {MANIFEST}") from error
    try:
        content = json.loads(text)
        schema = content["schema_version"]
        if isinstance(schema, int) and schema > SCHEMA_VERSION:
            raise NewerSchema(
                f"{label} has schema {schema}; this release reads up to {SCHEMA_VERSION}"
            )
        return Manifest.model_validate(content), hashlib.sha256(text).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptVersion(f"the manifest of {label} is damaged") from error


def _verify_files(path: Path, manifest: Manifest) -> dict[str, SealedFile]:
    """Checks every file, and keeps those that are used: what is hashed is what is used later."""
    label = f"{manifest.name}/{manifest.version}"
    used = dict(_artifacts(manifest)).values()
    kept = {}
    for entry in manifest.files:
        file = path / entry.path
        try:
            if not file.is_file():
                raise IncompleteVersion(f"{label} lacks {entry.path}")
            same = file.stat().st_size == entry.size_bytes
            if same and entry.path in used:
                kept[entry.path] = SealedFile(file)
                file = kept[entry.path].path
            same = same and file_digest(file) == entry.sha256
        except OSError as error:
            raise IncompleteVersion(f"{entry.path} of {label} cannot be read") from error
        if not same:
            raise CorruptVersion(f"{entry.path} of {label} is not the file that was published")
    listed = {entry.path for entry in manifest.files} | {MANIFEST}
    for file in path.rglob("*"):
        is_folder = file.is_dir() and not file.is_symlink()
        name = file.relative_to(path).as_posix()
        if not is_folder and name not in listed:
            # Its name may be any bytes.
            raise CorruptVersion(f"{label} holds {name!r}, which was not published with it")
    _require_artifacts(manifest)
    return kept


def _artifacts(manifest: Manifest) -> list[tuple[str, str]]:
    """What is used of a version when it serves: runtime, or ``ood``, and path."""
    ood = manifest.answer.ood if manifest.answer else None
    return [*manifest.artifacts.items(), *([("ood", ood.file)] if ood else [])]


def _require_artifacts(manifest: Manifest) -> None:
    """Every artifact is a file of the version or, for TensorFlow, a folder with files in it."""
    names = [entry.path for entry in manifest.files]
    for runtime, artifact in _artifacts(manifest):
        is_folder = any(it.startswith(f"{artifact}/") for it in names)
        if not (is_folder if runtime == "tensorflow" else artifact in names):
            raise IncompleteVersion(
                f"{manifest.name}/{manifest.version} lacks its artifact {artifact}"
            )
