"""`python -m teacher.tiny`: see `teacher.tiny.cli`."""

from teacher.tiny.cli import main

main()
