"""The audit log: a line for each image, rotated, durable, and never in anybody's way."""

import errno
import io
import json
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, cast

import pydicom
import pytest

from service.audit import MAX_WAITING, AuditFile, digest
from service.disks import DiskFails
from service.keys import Role, make_key
from service.metrics import Metrics
from service.settings import SettingsError
from tests.support.keys import write_keys
from tests.support.service import PATIENCE_SECONDS, FakeRuntimes, serving, settings_for, wait_until
from tests.support.spool import failing

VISIT = "f034d653-fe99-43c1-cf22-9188d3e5507c"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def fill(audit: AuditFile, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        audit.record("predict", who="pacs-1", request_id=f"{number:06}", result="glioma")


def test_predictions_are_recorded(
    model_store: Path, tmp_path: Path, dicom: bytes, jpeg: bytes
) -> None:
    path = tmp_path / "audit.log"
    presented, key = make_key("pacs-1", [Role.PREDICT])
    keys = write_keys(tmp_path / "keys", key)
    settings = settings_for(model_store, model_version="1", audit_log=path, api_keys_file=keys)
    headers = {"Authorization": f"Bearer {presented}", "X-Request-ID": VISIT}
    with serving(settings, FakeRuntimes()) as service:
        assert service.predict(dicom, jpeg, b"junk", headers=headers).status_code == 200
        digest = service.state.registry.engine().stored.manifest_digest
    uid = pydicom.dcmread(io.BytesIO(dicom)).SOPInstanceUID
    found = lines(path)
    assert [line["result"] for line in found] == ["glioma", "glioma", "unsupported_media_type"]
    assert [line["instance"] for line in found] == [sha256(uid.encode()).hexdigest(), None, None]
    files = [sha256(content).hexdigest() for content in (jpeg, b"junk")]
    assert [line["file"] for line in found] == [None, *files]
    for line in found:
        assert (line["who"], line["action"], line["request_id"]) == ("pacs-1", "predict", VISIT)
        assert (line["model"], line["manifest"]) == ("brain-tumor/1", digest)
        assert line["duration_ms"] >= 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert path.stat().st_mode & 0o077 == 0


def test_large_files_are_hashed_beside_the_event_loop(
    model_store: Path, tmp_path: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def noted(file: bytes) -> str | None:
        threads.append(threading.current_thread().name)
        return digest(file)

    monkeypatch.setattr("service.state.digest", noted)
    settings = settings_for(model_store, audit_log=tmp_path / "audit.log")
    with serving(settings, FakeRuntimes()) as service:
        assert service.predict(jpeg).status_code == 200
        assert service.predict(jpeg, b"junk" * 2**18).status_code == 200
        small, *large = threads
    assert len(large) == 2
    assert small not in large
    hashed = [line["file"] for line in lines(tmp_path / "audit.log")]
    assert hashed == [digest(jpeg), digest(jpeg), digest(b"junk" * 2**18)]


def test_a_torn_line_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    torn = '{"time":"2026-03-01T12:30:15.123+00:00","action":"sto'
    path.write_text(torn, encoding="utf-8")
    audit = AuditFile(path, 10**6, 3, True, Metrics())
    fill(audit, 1)
    audit.close()
    first, second = path.read_text("utf-8").splitlines()
    assert first == torn
    assert json.loads(second)["request_id"] == "000000"


def test_it_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for number in range(2):
        audit = AuditFile(path, 10**6, 3, True, Metrics())
        fill(audit, 2, 2 * number)
        audit.close()
    assert [line["request_id"] for line in lines(path)] == ["000000", "000001", "000002", "000003"]


@pytest.mark.parametrize("files", [0, 1, 3])
def test_rotation_keeps_the_newest(tmp_path: Path, files: int) -> None:
    path = tmp_path / "audit.log"
    audit = AuditFile(path, 2000, files, False, Metrics())
    fill(audit, 200)
    audit.close()
    names = ["audit.log", *(f"audit.log.{number}" for number in range(1, files + 1))]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    found = [line["request_id"] for name in reversed(names) for line in lines(tmp_path / name)]
    assert found == [f"{number:06}" for number in range(200 - len(found), 200)]
    assert all((tmp_path / name).stat().st_size <= 2000 for name in names)


def test_every_line_is_on_the_disk_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for durable in (False, True):
        audit = AuditFile(tmp_path / "audit.log", 10**6, 1, durable, Metrics())
        fill(audit, 3)
        audit.close()
        assert bool(synced) is durable


def test_a_disk_that_fails_holds_nobody_up_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "service.audit")
    monkeypatch.setattr("service.audit.RETRY_SECONDS", 0.05)
    metrics = Metrics()
    path = tmp_path / "audit.log"
    audit = AuditFile(path, 500, 9, True, metrics)

    def failures() -> float:
        return metrics.registry.get_sample_value("brain_audit_failures_total") or 0.0

    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda _number: (_ for _ in ()).throw(OSError("disk")))
    fill(audit, 4)
    wait_until(lambda: failures() >= 2)
    monkeypatch.setattr(os, "fsync", real)
    wait_until(lambda: len(sorted(tmp_path.iterdir())) == 2)
    audit.close()
    found = [
        line["request_id"]
        for name in ("audit.log.1", "audit.log")
        for line in lines(tmp_path / name)
    ]
    assert found == [f"{number:06}" for number in range(4)]
    assert not metrics.registry.get_sample_value("brain_audit_lost_lines_total")
    assert [record.message for record in caplog.records] == [
        "the audit log cannot be written to",
        "the audit log is written to again",
    ]


class Unclosable(io.FileIO):
    """Is closed, and says that it could not be, as over a quota."""

    def close(self) -> None:
        open_before = not self.closed
        super().close()
        if open_before:
            raise OSError(errno.EDQUOT, "over the quota")


def test_a_file_that_cannot_be_closed_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.audit.RETRY_SECONDS", 0.01)
    metrics = Metrics()
    path = tmp_path / "audit.log"

    def is_written() -> bool:
        # Between two files there is none.
        with suppress(FileNotFoundError):
            return b'"000009"' in path.read_bytes()
        return False

    audit = AuditFile(path, 500, 9, False, metrics)
    assert audit._file is not None
    audit._file.close()
    audit._file = cast("BinaryIO", Unclosable(path, "ab"))
    fill(audit, 10)
    wait_until(is_written)
    audit.close()
    older = sorted(tmp_path.glob("audit.log.*"), reverse=True)
    found = [line["request_id"] for name in (*older, path) for line in lines(name)]
    assert found == [f"{number:06}" for number in range(10)]
    assert metrics.registry.get_sample_value("brain_audit_failures_total") == 1


def test_lines_that_nothing_takes_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.audit.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("service.audit.MAX_WAITING", 10)
    assert MAX_WAITING > 10
    metrics = Metrics()
    audit = AuditFile(tmp_path / "audit.log", 10**6, 1, True, metrics)
    monkeypatch.setattr(os, "fsync", lambda _number: (_ for _ in ()).throw(OSError("disk")))
    fill(audit, 1000)
    audit.close()
    lost = metrics.registry.get_sample_value("brain_audit_lost_lines_total")
    assert lost is not None
    assert lost > 0


def test_a_disk_that_fails_for_long_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.audit.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("service.audit.MAX_WAITING", 20)
    monkeypatch.setattr("service.audit.MAX_BLOCK_LINES", 5)
    metrics = Metrics()
    path = tmp_path / "audit.log"
    audit = AuditFile(path, 10**6, 1, True, metrics)

    def count(name: str) -> float:
        return metrics.registry.get_sample_value(name) or 0.0

    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda _number: (_ for _ in ()).throw(OSError("disk")))
    for start in range(0, 100, 10):
        fill(audit, 10, start)
        failures = count("brain_audit_failures_total")
        wait_until(lambda failures=failures: count("brain_audit_failures_total") > failures)  # type: ignore[misc]
    lost = count("brain_audit_lost_lines_total")
    monkeypatch.setattr(os, "fsync", real)
    wait_until(lambda: b'"000099"' in path.read_bytes())
    audit.close()
    found = [line["request_id"] for line in lines(path)]
    assert len(found) + lost == 100
    assert 20 <= len(found) <= 22
    assert found[-15:] == [f"{number:06}" for number in range(85, 100)]


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "too" / "audit.log"
    audit = AuditFile(path, 10**6, 1, True, Metrics())
    fill(audit, 1)
    audit.close()
    assert len(lines(path)) == 1
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="BRAIN_AUDIT_LOG"):
        AuditFile(tmp_path / "file" / "audit.log", 10**6, 1, True, Metrics())


def test_a_disk_that_is_read_only_at_the_start_is_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", failing(errno.EROFS))
    with pytest.raises(DiskFails, match=r"^BRAIN_AUDIT_LOG: the file system is read-only"):
        AuditFile(tmp_path / "audit.log", 10**6, 1, True, Metrics())


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def restore(path: Path) -> None:
    """Puts an older copy in its place, as of a backup."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize("disturb", [move, Path.unlink, restore])
def test_after_its_file_was_taken_away_it_goes_on_in_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, disturb: Callable[[Path], None]
) -> None:
    metrics = Metrics()
    path = tmp_path / "audit.log"
    audit = AuditFile(path, 10**6, 3, True, metrics)
    fill(audit, 1)
    wait_until(lambda: b'"000000"' in path.read_bytes())
    disturb(path)
    fill(audit, 2, 1)
    audit.close()
    if disturb is not restore:
        assert path.stat().st_mode & 0o077 == 0
    kept = ["000000"] if disturb is restore else []
    assert [line["request_id"] for line in lines(path)] == [*kept, "000001", "000002"]
    if disturb is move:
        assert [line["request_id"] for line in lines(tmp_path / "moved")] == ["000000"]
    assert metrics.registry.get_sample_value("brain_audit_reopened_total") == 1
    assert metrics.registry.get_sample_value("brain_audit_failures_total") == 0
    assert "was moved or deleted" in caplog.text


def test_a_file_that_is_stale_on_a_network_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for NFS, where another machine may have deleted it."""
    metrics = Metrics()
    path = tmp_path / "audit.log"
    audit = AuditFile(path, 10**6, 3, True, metrics)
    fill(audit, 1)
    wait_until(lambda: b'"000000"' in path.read_bytes())
    fstat, stale = os.fstat, [path.stat().st_ino]

    def failing(number: int) -> os.stat_result:
        found = fstat(number)
        if found.st_ino in stale:
            stale.clear()
            raise OSError(errno.ESTALE, "stale file handle")
        return found

    monkeypatch.setattr("service.audit.os.fstat", failing)
    fill(audit, 1, 1)
    audit.close()
    assert [line["request_id"] for line in lines(path)] == ["000000", "000001"]
    assert metrics.registry.get_sample_value("brain_audit_reopened_total") == 1
    assert metrics.registry.get_sample_value("brain_audit_failures_total") == 0


def test_a_file_that_cannot_be_moved_grows_and_no_older_one_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that is mounted by itself, or may be appended to only (`chattr +a`)."""
    monkeypatch.setattr("service.audit.ROTATE_SECONDS", 0.02)
    path = tmp_path / "audit.log"
    older = {tmp_path / f"audit.log.{number}": f"older {number}\n" for number in range(1, 6)}
    for file, text in older.items():
        file.write_text(text, encoding="utf-8")
    replace = Path.replace
    fixed = True

    def replaced(self: Path, target: Path) -> Path:
        if fixed and self == path:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    metrics = Metrics()
    audit = AuditFile(path, 1000, 10, False, metrics)
    for number in range(20):
        fill(audit, 1, number)
        wait_until(lambda: len(lines(path)) > number)  # noqa: B023 - called before the next one
    assert [line["request_id"] for line in lines(path)] == [f"{number:06}" for number in range(20)]
    kept = {file.read_text("utf-8") for file in tmp_path.glob("audit.log.*")}
    assert kept == {*older.values()}
    assert metrics.registry.get_sample_value("brain_audit_failures_total") > 1  # type: ignore[operator]
    assert metrics.registry.get_sample_value("brain_audit_lost_lines_total") == 0
    assert [record.message for record in caplog.records] == [
        "the audit log cannot be rotated, and grows"
    ]
    fixed = False
    wait_until(lambda: monotonic() >= audit._rotate_at)
    fill(audit, 1, 20)
    audit.close()
    assert [line["request_id"] for line in lines(path)] == ["000020"]
    assert len(lines(tmp_path / "audit.log.1")) == 20
    assert len([*tmp_path.glob("audit.log.*")]) == 6


def cannot_rotate(_: Path, target: Path) -> Path:
    raise OSError(errno.EBUSY, "Device or resource busy", str(target))


def test_after_a_file_that_could_not_be_rotated_was_moved_the_next_one_has_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.log"
    audit = AuditFile(path, 1000, 20, False, Metrics())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cannot_rotate)
        fill(audit, 20)
        wait_until(lambda: len(lines(path)) == 20)
    move(path)
    fill(audit, 60, 20)
    audit.close()
    found = [*tmp_path.glob("audit.log*")]
    assert len(found) > 5
    assert all(file.stat().st_size <= 1000 for file in found)
    assert sum(len(lines(file)) for file in found) == 60


def test_of_a_file_that_cannot_be_rotated_lines_are_written_together_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write waits for the disk."""
    path = tmp_path / "audit.log"
    monkeypatch.setattr(Path, "replace", cannot_rotate)
    audit = AuditFile(path, 1000, 10, True, Metrics())
    fill(audit, 20)
    wait_until(lambda: len(lines(path)) == 20)
    go_on, synced = threading.Event(), []

    def stall(number: int) -> None:
        synced.append(number)
        assert go_on.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(os, "fsync", stall)
    fill(audit, 1, 20)
    wait_until(lambda: synced)
    fill(audit, 100, 21)
    go_on.set()
    audit.close()
    assert len(lines(path)) == 121
    assert len(synced) == 2


def test_its_own_rotation_is_not_taken_for_another_s(tmp_path: Path) -> None:
    metrics = Metrics()
    audit = AuditFile(tmp_path / "audit.log", 500, 3, False, metrics)
    fill(audit, 20)
    audit.close()
    assert (tmp_path / "audit.log.2").exists()
    assert metrics.registry.get_sample_value("brain_audit_reopened_total") == 0


def test_a_folder_that_is_taken_away_is_a_failure_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not made anew: with a disk that is not mounted, lines would lie under its place."""
    monkeypatch.setattr("service.audit.RETRY_SECONDS", 0.01)
    metrics = Metrics()
    path = tmp_path / "log" / "audit.log"
    audit = AuditFile(path, 10**6, 3, True, metrics)
    path.parent.rename(tmp_path / "away")
    fill(audit, 2)
    wait_until(lambda: metrics.registry.get_sample_value("brain_audit_failures_total") >= 2)  # type: ignore[operator]
    assert not path.parent.exists()
    path.parent.mkdir()
    wait_until(lambda: path.exists() and b'"000001"' in path.read_bytes())
    audit.close()
    assert [line["request_id"] for line in lines(path)] == ["000000", "000001"]
    assert metrics.registry.get_sample_value("brain_audit_reopened_total") == 1
