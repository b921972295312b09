"""The model: its tokenizer, presets, training data, training and export.

`tokenizer`, `presets`, `dataset` and `batches` are plain values and arrays; `llama`, `trainer`, `train`, `dry_run` and
`export` need torch, the extra `train`. `measure` is the one that loads LLVM.
"""
