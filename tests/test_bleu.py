"""BLEU of code: tokens of IR, and scores that tell right operands from wrong ones."""

import random
import re
import time

import pytest
from compiling import CODEC, unoptimised
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sacrebleu", reason="BLEU needs sacrebleu (extra: evaluate)")

from sacrebleu.metrics.bleu import BLEU

from secondpass import ir
from secondpass.bleu import corpus_bleu, tokens
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList

GOOD = PassList.parse("default<O2>")
NEAR = PassList.parse("sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg")
any_code = st.text(max_size=100) | st.lists(
    st.sampled_from(["%5", "@f", '"', 'c"', "i32", ",", " ", "\n", "\x1c", "\x85", "(", "}"])
).map("".join)


@pytest.fixture(scope="module")
def functions():
    """The functions of an example, as two good lists and no list leave them."""
    found = {}
    with Module.parse(unoptimised(CODEC)) as module:
        for name, part in module.split():
            with part:
                found[name] = [after(part, passes) for passes in (GOOD, NEAR, PassList())]
    return found


def after(module, passes):
    with module.clone() as copy:
        if passes:
            copy.run(passes)
        return ir.normalise(copy.to_text())


def scrambled(code):
    """The code with every operand replaced by another value of it."""
    generator = random.Random(1)
    numbers = re.findall(r"(?<=%)\d+", code)
    return re.sub(r"(?<=[ (]%)\d+", lambda _: generator.choice(numbers), code)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%5 = add nsw i32 %3, -1", ["%5", "=", "add", "nsw", "i32", "%3", "-1"]),
        ("call void @f(ptr %.x)", ["call", "void", "@f", "(", "ptr", "%.x", ")"]),
        ("12:\n  br label %12", ["12:", "br", "label", "%12"]),
        ("double 1.500000e+00, x86_fp80 0xK3FFF", ["double", "1.500000e+00", "x86_fp80", "0xK3FFF"]),
        ('%"struct.a b" = type { [4 x i8], ... }', '%"struct.a␣b" = type { [ 4 x i8 ] ... }'.split()),
        ('c"a, b\\00"', ['c"a,␣b\\00"']),
        ('asm "bswap $0", "=r,0"', ["asm", '"bswap␣$0"', '"=r,0"']),
        ('store i8 0, ptr "half', ["store", "i8", "0", "ptr", '"', "half"]),
        ("", []),
    ],
)
def test_a_token_is_what_llvm_takes_for_one_less_the_commas(code, expected):
    assert tokens(code) == expected


@given(any_code)
def test_no_token_is_lost_or_holds_white_space(code):
    found = tokens(code)
    assert all(token.split() == [token] for token in found)
    assert re.sub(r"[\s,]", "", code) == re.sub("[␣,]", "", "".join(found)) or "␣" in code


def test_equal_code_has_a_score_of_one(functions):
    for code in functions.values():
        assert corpus_bleu([(code[0], code[0])]) == 1


def test_white_space_means_nothing(functions):
    code = functions["skip"][0]
    assert corpus_bleu([(code.replace("\n", " \n\n").replace(", ", ","), code)]) == 1


def test_other_code_has_a_lower_score(functions):
    for code, near, unoptimised_code in functions.values():
        assert corpus_bleu([(unoptimised_code, code)]) < 1
        assert near == code or corpus_bleu([(near, code)]) < 1


def test_wrong_operands_cost_more_than_by_the_tokens_of_prose(functions):
    pairs = [(scrambled(code), code) for code, _, _ in functions.values()]
    prose = BLEU(tokenize="13a").corpus_score([one for one, _ in pairs], [[other for _, other in pairs]]).score / 100
    assert corpus_bleu(pairs) < prose - 0.1


def test_a_corpus_is_scored_as_one_text(functions):
    pairs = [(near, code) for code, near, _ in functions.values()]
    scores = [corpus_bleu([pair]) for pair in pairs]
    assert min(scores) < corpus_bleu(pairs) < max(scores)


@pytest.mark.parametrize(("one", "other"), [("", "define"), ("define", ""), ("", ""), ("ret", "ret void")])
def test_too_little_code_to_compare_has_no_score(one, other):
    assert corpus_bleu([(one, other)]) == 0


@given(any_code, any_code)
def test_any_two_texts_have_a_score(one, other):
    assert 0 <= corpus_bleu([(one, other)]) <= 1


@pytest.mark.parametrize("piece", ['"', 'c"', "%", "-", "c", "a ", '%"', "1e+"])
def test_the_time_grows_with_the_length_alone(piece):
    started = time.perf_counter()
    tokens(piece * 20_000)
    short = time.perf_counter() - started
    started = time.perf_counter()
    tokens(piece * 400_001)
    assert time.perf_counter() - started < 200 * short + 1
