"""Look at a dataset folder before anything is written: `init` and `doctor`."""
