"""Why the spool or the audit log cannot be opened at the start: a wrong setting, or the disk."""

import errno
import os
from pathlib import Path

from service.errors import SpoolFull
from service.passing import passes
from service.settings import PassingFault, SettingsError


class DiskFails(PassingFault):
    """The disk is full, read-only or broken: once somebody has mended it, the same settings do."""


def disk_fails(setting: str, reason: object) -> DiskFails:
    """What to raise where the disk does not take what lies there, or does not give it."""
    return DiskFails(f"{setting}: its disk is full or fails ({reason})")


def unusable(setting: str, error: OSError) -> SettingsError:
    """What to raise where a file or folder that a setting names cannot be opened or made."""
    if error.errno == errno.EROFS:
        # The kernel makes a disk read-only after errors as well, so another start may find it mended.
        return DiskFails(
            f"{setting}: the file system is read-only for this service: allow the folder"
            " (ReadWritePaths= of systemd, a volume of a container), or mount it read-write"
        )
    if passes(error):
        return disk_fails(setting, error.strerror)
    if isinstance(error, PermissionError):
        # Path's own raises where this user may not look. Not every call names what it was about.
        seen = error.filename is None or os.path.exists(error.filename)  # noqa: PTH110
        make = "" if seen else "make it if it is not there, and "
        return SettingsError(
            f"{setting}: this user may not read and write {error.filename};"
            f" {make}change its owner with chown"
        )
    return SettingsError(f"{setting}: it cannot be written to ({error.strerror})")


def kind(error: BaseException) -> str:
    """The type and the code of an error of the disk; its text might name a file."""
    code = getattr(error, "sqlite_errorname", None)
    if isinstance(error, OSError):
        code = errno.errorcode.get(error.errno or 0)
    return " ".join(filter(None, (type(error).__name__, code)))


def cause(failure: BaseException) -> str | None:
    """The kind of the error of the disk behind another one, if there is one."""
    return None if failure.__cause__ is None else kind(failure.__cause__)


def check_folder(folder: Path) -> None:
    """Sees whether this user may put files into a folder.

    Raises:
        PermissionError: they may not.
        OSError: its file system is read-only.
    """
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def is_in_place(path: Path, identity: os.stat_result) -> bool:
    """Whether a path still leads to what it did, and not to a disk that was mounted over it since.

    Raises:
        SpoolFull: nobody can say.
    """
    try:
        return os.path.samestat(path.stat(), identity)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SpoolFull("the spool cannot be read; try again") from error
