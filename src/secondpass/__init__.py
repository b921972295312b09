"""secondpass: compiled code smaller than -Oz, by a language model that the compiler checks."""

__version__ = "0.1.0"
