"""Whether the system says that what a setting names is wrong, or only that it cannot be used now."""

import errno
from typing import Final

_OF_THE_SETTING: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM),
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO),
        *(errno.ENOSYS, errno.EOPNOTSUPP),
    }
)
"""They stay until somebody changes something. Disks, above all those of a network, have many others."""


def passes(error: OSError) -> bool:
    """Whether the same settings may do at another start."""
    return error.errno not in _OF_THE_SETTING
