"""``python -m service.keygen NAME ROLE [ROLE]``: makes an API key.

The key is shown once, on standard error; its line for the file goes to standard output::

    python -m service.keygen pacs-1 predict >> keys.txt

For a name that is in the file it makes one more key. Both are valid until a line is taken out.
"""

import argparse
import sys

from service.keys import NAME, Role, make_key


def main() -> int:
    """Makes a key."""
    parser = argparse.ArgumentParser(
        prog="python -m service.keygen",
        description="Makes an API key: shows it on standard error, its line for the file on "
        "standard output.",
    )
    parser.add_argument("name", help="who gets it: a-z, 0-9 and -")
    parser.add_argument("roles", nargs="+", choices=[role.value for role in Role])
    options = parser.parse_args()
    if not NAME.fullmatch(options.name):
        parser.error("a name is made of a-z, 0-9 and -, 32 characters at most")
    presented, key = make_key(options.name, map(Role, options.roles))
    sys.stderr.write(f"{presented}\nThis is the key; it is shown only now.\n")
    sys.stdout.write(f"{key.line()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
