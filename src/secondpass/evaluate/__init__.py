"""What models, lists and strategies are worth on functions that were held out: the paper's tables and figures.

`methods` makes lists for functions, `cache` keeps what came of them, `tables` and `figures` say what it means.
"""
