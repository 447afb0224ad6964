"""Printing for people and for pipes."""

import io

from rich.console import Console

from flows.cli.console import print_line


def test_print_line_neither_wraps_nor_styles() -> None:
    """Rich would drop `[b]`, colour the numbers and wrap at 20 columns."""
    stream = io.StringIO()
    text = "any2seg run '/my [b]data/a.toml' --set train.steps=100"
    print_line(text, Console(file=stream, width=20, force_terminal=True))
    assert stream.getvalue() == text + "\n"
