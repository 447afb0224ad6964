"""`python -m flows.cli`: the `any2seg` command where its script is not on the path, e.g. under torchrun."""

from flows.cli.main import main

if __name__ == "__main__":
    main()
