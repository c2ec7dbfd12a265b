"""`python -m latentzip` is the `latentzip` command."""

from latentzip.cli.app import main

if __name__ == "__main__":
    main()
