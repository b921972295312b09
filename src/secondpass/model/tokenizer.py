r"""The tokenizer: byte-level BPE over whole lines of IR, and the answer's words as single tokens.

IR is verbose but repetitive, so merges may span a whole line up to its value numbers:

    "\n  %" "5" " = load i32, ptr %" "2" "\n  store i32 %" "5" ", ptr %" "3"

A value number is never glued to its neighbours (the `%5` of a definition and of its uses are the same
token) and is cut into pairs of digits, so that every number is made of about a hundred well-trained
tokens. `docs/experiments.md` has the figures behind both.

Two ways in: `encode` reads the forms of `prompt`, where markers and passes are single tokens;
`encode_ir` reads somebody's code, where the same characters are only characters. `encode_prompt`,
`encode_answer` and `encode_feedback` read each part of a form the way it needs. No code and no message
of the compiler can therefore end an answer or forge a feedback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from secondpass.errors import ModelError
from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.prompt import ANSWER, CODE_CLOSE, CODE_OPEN, MARKERS, Answer, Feedback, OptimizePrompt, flags

VOCABULARY_SIZE = 4096
LONGEST_TOKEN = 40
"""Characters; enough for ` = getelementptr inbounds nuw %struct.`, too few for most whole lines of one project."""

_VALUE_NUMBER = r"(?<=%)\d+|(?<=\n)\d+(?=:)"
_DIGIT_PAIR = r"\G\d{1,2}"  # \G: where the last match ended, so only the digits a piece begins with


def reserved_tokens() -> tuple[str, ...]:
    """The texts of `prompt`'s forms that are one token each: its markers, and a flag a pass."""
    return (*MARKERS, *flags(entry.text for entry in VOCABULARY))


class Tokenizer:
    """Text to token ids and back, exactly: `decode(encode_ir(ir)) == ir` for any text."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        """Wrap a tokenizer of the `tokenizers` library that has the reserved tokens.

        Raises:
            ModelError: it lacks one, so it was made for another version of the forms.
        """
        found = {text: inner.token_to_id(text) for text in reserved_tokens()}
        self._ids = {text: token for text, token in found.items() if token is not None}
        missing = [text for text in found if text not in self._ids]
        if missing:
            raise ModelError(
                f"the tokenizer has no token for {missing[0]!r} (and {len(missing) - 1} others): "
                "it belongs to another version of secondpass; train it again or take the matching model"
            )
        self._forms = inner
        self._code = tokenizers.Tokenizer.from_str(inner.to_str())
        self._code.encode_special_tokens = True  # markers in somebody's code are plain text

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a `tokenizer.json`.

        Raises:
            ModelError: it cannot be read, or is not a tokenizer of this package.
        """
        try:
            return cls(tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        except Exception as error:  # the library raises plain Exception for text it cannot read
            raise ModelError(f"{path} is not a tokenizer: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], size: int = VOCABULARY_SIZE) -> Tokenizer:
        """Learn the merges from functions' IR.

        Args:
            texts: normalised IR, a function each; only of projects that are trained on.
            size: tokens in all, the reserved ones and 256 bytes included. Little text gives fewer.

        Raises:
            ModelError: the size leaves no room for merges, or a merge spells a reserved token.
        """
        reserved, alphabet = reserved_tokens(), pre_tokenizers.ByteLevel.alphabet()
        if size <= len(reserved) + len(alphabet):
            raise ModelError(f"a vocabulary of {size} has no room beside {len(reserved)} reserved tokens and 256 bytes")
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_VALUE_NUMBER), "isolated"),
                pre_tokenizers.Split(Regex(_DIGIT_PAIR), "isolated"),
                pre_tokenizers.Split("\n", "merged_with_next"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size - len(reserved),
            initial_alphabet=alphabet,
            max_token_length=LONGEST_TOKEN,
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        for text in reserved:
            if inner.token_to_id(text) is not None:
                raise ModelError(f"the merges learnt {text!r}, which is reserved; leave out the function that has it")
        inner.add_special_tokens(list(reserved))  # pyright: ignore[reportUnknownMemberType]
        return cls(inner)

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json`, the format of the `tokenizers` and `transformers` libraries."""
        path.write_text(self._forms.to_str(), encoding="utf-8")

    @property
    def size(self) -> int:
        """How many ids there are; they run from 0."""
        return self._forms.get_vocab_size()

    def id_of(self, reserved: str) -> int:
        """The id of a reserved token, such as `prompt.END` or `prompt.flag("sroa")`.

        Raises:
            KeyError: the text is not one of `reserved_tokens`.
        """
        return self._ids[reserved]

    def code_ids(self) -> tuple[int, ...]:
        """The ids that code is made of, ascending: all but the reserved ones."""
        return tuple(sorted(set(range(self.size)).difference(self._ids.values())))

    def encode(self, text: str) -> list[int]:
        """The ids of a text this package rendered itself: reserved texts become their tokens."""
        return self._forms.encode(text, add_special_tokens=False).ids

    def encode_ir(self, text: str) -> list[int]:
        """The ids of somebody's code: no reserved token comes out, whatever the code contains."""
        return self._code.encode(text, add_special_tokens=False).ids

    def encode_prompt(self, prompt: OptimizePrompt) -> list[int]:
        """The ids of a whole prompt, its frame by `encode` and its IR by `encode_ir`."""
        head = prompt.render().removesuffix(prompt.ir + ANSWER)
        return [*self.encode(head), *self.encode_ir(prompt.ir), self.id_of(ANSWER)]

    def encode_answer(self, answer: Answer) -> list[int]:
        """The ids of a whole answer, without the end marker; its code by `encode_ir`, the rest by `encode`."""
        head = self.encode(replace(answer, code=None).render())
        if answer.code is None:
            return head
        return [*head, self.id_of(CODE_OPEN), *self.encode_ir(answer.code), self.id_of(CODE_CLOSE)]

    def encode_feedback(self, feedback: Feedback) -> list[int]:
        """The ids of a whole feedback: its markers, and by `encode_ir` what is between them."""
        ids: list[int] = []
        for place, piece in enumerate(feedback.pieces()):
            ids += self.encode_ir(piece) if place % 2 else [self.id_of(piece)]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, reserved ones included."""
        return self._forms.decode(list(ids), skip_special_tokens=False)
