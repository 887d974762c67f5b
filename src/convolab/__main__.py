"""`python -m convolab` is the command line."""

from convolab.cli.main import main

if __name__ == "__main__":
    main()
