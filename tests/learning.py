"""What the tests of training learn: small data that can be told from its text, and settings for a model of seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secondpass.llvm.passes import PassList
from secondpass.model.dataset import TOKENIZER, Example, Manifest, digest, write_split
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import END, Answer, Form, OptimizePrompt
from secondpass.prompt import Feedback as Told

SMALL = (
    *("context=128", "width=32", "layers=2", "heads=2", "key_value_heads=1", "feed_forward=48"),
    *("steps=12", "step_tokens=1024", "device_tokens=512", "warmup_steps=2", "peak_rate=0.01", "bf16=false"),
    *("log_steps=1", "checkpoint_steps=3", "validate_steps=4"),
)
"""The preset of the tests: `tiny` with these fields."""
LISTS = (("sroa", "simplifycfg"), ("mem2reg", "gvn"), ("sroa", "gvn"))


def ir(number: int) -> str:
    """A function whose best list can be told from its name."""
    lines = "".join(f"  store i32 {number}, ptr %{line}\n" for line in range(2 + number % 4))
    return f"define void @{'odd' if number % 2 else 'even'}{number}() {{\n{lines}  ret void\n}}\n"


def tokenizer(size: int = 600) -> Tokenizer:
    return Tokenizer.train([ir(number) for number in range(40)], size)


def example(tokens: Tokenizer, number: int, *, feedback: bool = False) -> Example:
    """The prompt of a function, with one to three answers; or the prompt, an answer and feedback, with one."""
    prompt = tokens.encode_prompt(OptimizePrompt(ir(number)))
    lists = LISTS[::-1] if number % 2 else LISTS
    texts = [Answer(PassList.of(*words), 8, 3).render() for words in lists[: 1 if feedback else 1 + number % 3]]
    context = prompt
    if feedback:
        said = Told(Form.FAST, None, 8, 3, source_right=True, target_right=False)
        context = [*prompt, *tokens.encode(texts[0]), *tokens.encode_feedback(said)]
    weights = np.arange(len(texts), 0, -1)
    return Example(
        f"{number:024x}",
        np.array(context, dtype=np.int32),
        len(prompt),
        tuple(np.array(tokens.encode(text + END), dtype=np.int32) for text in texts),
        tuple(map(float, weights / weights.sum())),
        number % 4,
    )


def write_data(out: Path, count: int = 40, *, task: str = "optimize", form: str = "fast", size: int = 600) -> Path:
    """A directory of training data."""
    out.mkdir(parents=True)
    tokens = tokenizer(size)
    tokens.save(out / TOKENIZER)
    counts = {"train": count, "validation": 6}
    for split, functions in counts.items():
        write_split(out, split, [example(tokens, it, feedback=task == "feedback") for it in range(functions)])
    Manifest(
        task=task,
        form=form if task == "feedback" else None,
        code=False,
        context=128,
        tokenizer=digest(out / TOKENIZER),
        counts=counts,
        left_out={},
        made_from={},
    ).write(out)
    return out


if __name__ == "__main__":
    import sys

    from secondpass.model.train import TrainRequest, train

    data, out, *words = sys.argv[1:]
    train(TrainRequest(data=(Path(data),), out=Path(out), overrides=(*SMALL, *words), threads=1))
