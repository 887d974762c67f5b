"""The command line's start: `python -m convolab`, and what the command `convolab` calls.

A Ctrl-C while Python still imports the command line ends it as one later does: with exit code 130, without a traceback.
"""

import os
import sys


def start() -> None:
    """Import the command line, and run it."""
    try:
        if limits := os.environ.get("CONVOLAB_LIMITS"):  # before other modules take them over
            from convolab.core.errors import LabError
            from convolab.core.limits import lift_limits

            try:
                lift_limits(limits)
            except LabError as error:
                print(f"convolab: {error}", file=sys.stderr)
                sys.exit(2)
        from convolab.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
