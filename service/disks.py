"""Why the spool or the audit log cannot be opened at the start: a wrong setting, or the disk."""

import errno
from typing import Final

from service.settings import SettingsError

_OF_THE_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class DiskFails(SettingsError):
    """The disk is full, read-only or broken: once somebody has mended it, the same settings do."""


def disk_fails(setting: str, reason: object) -> DiskFails:
    """What to raise where the disk does not take what lies there, or does not give it."""
    return DiskFails(f"{setting}: its disk is full, is read-only or fails ({reason})")


def unusable(setting: str, error: OSError) -> SettingsError:
    """What to raise where a file or folder that a setting names cannot be opened or made."""
    if error.errno in _OF_THE_DISK:
        return disk_fails(setting, error.strerror)
    if isinstance(error, PermissionError):
        return SettingsError(
            f"{setting}: {error.filename} may not be read and written to by this user; "
            "give it to them with chown"
        )
    return SettingsError(f"{setting}: it cannot be written to ({error.strerror})")
