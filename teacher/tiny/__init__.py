"""`languagebind-tiny`: the embedded default teacher, trained by this package on our own scenes.

`python -m teacher.tiny train --out DIR` renders scenes, trains a text tower and then an image and
a depth tower against it, and writes DIR in LanguageBind's released file layout.
`python -m teacher.tiny score DIR` measures such a directory on held-out scenes.
The result of the first command is shipped as `teacher/assets/languagebind-tiny`.
"""
