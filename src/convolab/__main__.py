"""The command line's start: `python -m convolab`, and what the command `convolab` calls.

A Ctrl-C while Python still imports the command line ends it as one later does: with exit code 130, without a traceback.
"""

import sys


def start() -> None:
    """Import the command line, and run it."""
    try:
        from convolab.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
