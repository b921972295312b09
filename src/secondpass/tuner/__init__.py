"""The autotuner: for every function the best pass list that a bounded search finds.

    explorer   a module's states under passes, each computed once
    search     which lists to try on one function, within a number of compiles
    knowledge  what earlier functions taught: coreset, and which pass follows which
    labels     what was found, on disk
    tune       all functions of a corpus: rounds, broadcast, resuming

The search runs inside the sandbox's workers; `tune` is the side that survives them.
"""
