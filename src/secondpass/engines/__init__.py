"""Who writes the answers.

`base` is what an engine offers; `grammar` and `sampling` are what engines that own their decoding
share; `onnx` is the engine in the box. Engines know prompts and token ids; they know nothing of LLVM.
"""
