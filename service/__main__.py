"""``python -m service``: one process, one event loop, graceful drain on SIGTERM and SIGINT."""

import gc
import sys
from typing import Final

from service.app import create_app
from service.crowd import most
from service.descriptors import fill_standard_streams, raise_limit
from service.logs import configuration
from service.server import DrainingServer, check_address, check_drain, configure
from service.settings import PassingFault, Settings, SettingsError
from service.usage import refuse_arguments

INVALID_SETTINGS: Final = 2
"""Exit status when the environment is wrong, as of a command that is used wrongly."""

PASSING_FAULT: Final = 1
"""Exit status when a disk, a name server or another process is at fault: systemd starts the service
again until that is mended."""


def main() -> int:
    """Runs the service; returns the process' exit status."""
    fill_standard_streams()
    refuse_arguments(sys.argv[1:])
    try:
        settings = Settings.from_environment()
        check_address(settings)
        app = create_app(settings)
    except SettingsError as error:
        sys.stderr.write(f"brain-mri service: {error}\n")
        return PASSING_FAULT if isinstance(error, PassingFault) else INVALID_SETTINGS
    config = configure(app, settings, configuration(settings.log_level))
    # After the log has been set up.
    raise_limit(most(settings.max_connections))
    check_drain(settings)
    # What exists now stays; the collector need not walk through it again and again.
    gc.freeze()
    DrainingServer(config, app, settings.drain_notice_ms / 1000).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
