"""Who writes the answers.

`base` is what an engine offers. `grammar` and `sampling` serve every engine that decodes itself; `onnx`,
with `onnx_network` below it, is the engine in the box. Engines know prompts and token ids; they know
nothing of LLVM.
"""
