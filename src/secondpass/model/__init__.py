"""The model: its tokenizer, shapes, training data, training and export.

`tokenizer` and `presets` are part of the core; `architecture`, `train` and `export` need torch, the
extra `train`. Nothing here loads LLVM.
"""
