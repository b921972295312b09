"""The texts between model and compiler: each form's rendering and its parser, which invert each other."""

import re

import pytest
from compiling import CODEC, GOLDEN, unoptimised
from hypothesis import given
from hypothesis import strategies as st

from secondpass import ir
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.prompt import (
    ANSWER,
    CODE_CLOSE,
    CODE_OPEN,
    END,
    FEEDBACK,
    MARKERS,
    OPTIMIZE,
    SURE,
    TRY_AGAIN,
    Answer,
    CodeFinding,
    Feedback,
    Form,
    Malformed,
    Objective,
    OptimizePrompt,
    flag,
    flags,
)

counts = st.integers(0, 999_999_999)
pass_lists = st.lists(st.sampled_from([entry.text for entry in VOCABULARY]), min_size=1, max_size=10).map(
    lambda words: PassList.of(*words)
)
any_text = st.text(max_size=200)
one_line = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=80)
prompts = st.builds(OptimizePrompt, any_text, st.sampled_from(Objective))
# Pieces of the forms in any order: nearer to a wrong answer than random characters are.
PIECES = (
    *(*MARKERS, " -sroa", " -inline", " -nothing", "27", "0", "-1", "\n", "x"),
    *(
        "valid",
        "invalid: ",
        "source right, target wrong\n",
        "no code",
        "code parses",
        "code invalid",
        ", BLEU 0.87",
        ": ",
    ),
)
scraps = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
code = any_text | scraps
messages = one_line | scraps.map(lambda text: text.replace("\n", "") or "x")
answers = st.builds(Answer, pass_lists, counts, counts, st.none() | st.booleans(), st.none() | code)
findings = st.none() | st.builds(CodeFinding, st.none() | messages, st.none() | st.integers(0, 100))
about_lists = st.fixed_dictionaries({"fault": messages}) | st.fixed_dictionaries(
    {"source": counts, "target": counts, "source_right": st.booleans(), "target_right": st.booleans()}
)
about_code = (
    st.just({"form": Form.FAST})
    | st.fixed_dictionaries({"form": st.just(Form.SHORT), "code": findings})
    | st.fixed_dictionaries({"form": st.just(Form.LONG), "code": findings, "compiled": code})
)
feedback = st.builds(lambda one, other: Feedback(**one, **other), about_lists, about_code)


# Inverses


@given(prompts)
def test_a_prompt_parses_to_what_was_rendered(prompt):
    assert OptimizePrompt.parse(prompt.render()) == prompt


@given(answers)
def test_an_answer_parses_to_what_was_rendered(answer):
    assert Answer.parse(answer.render()) == answer


@given(answers)
def test_an_end_marker_after_an_answer_means_nothing(answer):
    assert Answer.parse(answer.render() + END) == answer


@given(feedback)
def test_feedback_parses_to_what_was_rendered(found):
    assert Feedback.parse(found.render()) == found


@given(feedback)
def test_feedback_is_markers_and_plain_text_by_turns(found):
    pieces = found.pieces()
    assert "".join(pieces) == found.render()
    assert set(pieces[::2]) <= set(MARKERS)
    assert (pieces[0], pieces[-1]) == (FEEDBACK, ANSWER)
    assert len(pieces) % 2


@st.composite
def nearly_rendered(draw):
    """What is written with a piece of it gone, or another one put in."""
    text = draw(st.one_of(prompts, answers, feedback)).render()
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(start + 3, len(text))))
    return text[:start] + draw(st.sampled_from(["", " ", "\n", "1", *PIECES])) + text[end:]


@pytest.mark.parametrize("form", [OptimizePrompt, Answer, Feedback])
@given(text=nearly_rendered() | any_text | scraps)
def test_any_text_is_either_rendered_back_to_itself_or_malformed(form, text):
    parsed = form.parse(text)
    assert isinstance(parsed, Malformed) or parsed.render() == text.removesuffix(END)


@pytest.mark.parametrize("form", [OptimizePrompt, Answer, Feedback])
@given(text=any_text | scraps)
def test_what_is_malformed_carries_the_text_and_one_line_about_it(form, text):
    parsed = form.parse(text)
    if isinstance(parsed, Malformed):
        assert parsed.text == text
        assert parsed.fault
        assert "\n" not in parsed.fault


@given(answers, st.data())
def test_an_answer_cut_off_anywhere_before_its_counts_is_malformed(answer, data):
    text = Answer(answer.passes, answer.source, answer.target, answer.sure).render()
    assert isinstance(Answer.parse(text[: data.draw(st.integers(0, len(text) - 1))]), Malformed)


@given(pass_lists)
def test_nested_lists_survive_an_answer(passes):
    nested = PassList.parse(f"cgscc(inline,function(sroa)),{passes},cgscc(devirt<2>(inline))")
    assert Answer.parse(Answer(nested, 3, 2).render()) == Answer(nested, 3, 2)


# Malformed answers


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "'passes:' is missing"),
        ("I think -sroa", "'passes:' is missing"),
        (f"{SURE}{TRY_AGAIN}passes: -sroa\ncount from 2 down to 1\n", "'passes:' is missing"),
        ("passes: -sroa", "the counts are missing"),
        ("passes: -sroa\ncounts from 2 down to 1\n", "the counts are missing"),
        ("passes:\ncount from 2 down to 1\n", "the pass list is empty"),
        ("passes: sroa\ncount from 2 down to 1\n", "does not begin with ' -'"),
        ("passes: -\ncount from 2 down to 1\n", "not written one pass a flag"),
        ("passes: -sroa -\ncount from 2 down to 1\n", "not written one pass a flag"),
        ("passes: -sroa,gvn\ncount from 2 down to 1\n", "not written one pass a flag"),
        ("passes: -sroa  -gvn\ncount from 2 down to 1\n", "not written one pass a flag"),
        ("passes: -sora\ncount from 2 down to 1\n", "no pass is called 'sora'"),
        ("passes: -internalize\ncount from 2 down to 1\n", "'internalize' is left out of the vocabulary"),
        ("passes: -sroa\ncount from 2 down to\n", "the counts are not two numbers"),
        ("passes: -sroa\ncount from two down to 1\n", "the counts are not two numbers"),
        ("passes: -sroa\ncount from -2 down to 1\n", "the counts are not two numbers"),
        ("passes: -sroa\ncount from 02 down to 1\n", "the counts are not two numbers"),
        ("passes: -sroa\ncount from 2 down to 1", "the counts are not two numbers and a line end"),
        ("passes: -sroa\ncount from 2 down to 1234567890\n", "the counts are not two numbers"),
        ("passes: -sroa\ncount from 2 down to 1\nand so on", "what follows the counts is not code"),
        (f"passes: -sroa\ncount from 2 down to 1\n{CODE_OPEN}", "what follows the counts is not code"),
        (f"passes: -sroa\ncount from 2 down to 1\n{CODE_OPEN}ret", "what follows the counts is not code"),
    ],
)
def test_a_malformed_answer_says_what_is_wrong(text, fault):
    parsed = Answer.parse(text)
    assert isinstance(parsed, Malformed)
    assert fault in parsed.fault


def test_a_word_of_two_lines_does_not_make_a_fault_of_two_lines():
    parsed = Answer.parse("passes: -sr\noa\ncount from 2 down to 1\n")
    assert isinstance(parsed, Malformed)
    assert "\n" not in parsed.fault


def test_code_that_holds_the_closing_marker_is_read_whole():
    answer = Answer(PassList.of("sroa"), 2, 1, code=f"a{CODE_CLOSE}b{CODE_OPEN}c\n")
    assert Answer.parse(answer.render()) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{OPTIMIZE}speed\ndefine{ANSWER}",
        f"{OPTIMIZE}instructions",
        f"{OPTIMIZE}bytes\ndefine",
        f"bytes\ndefine{ANSWER}",
        f" {OPTIMIZE}bytes\n{ANSWER}",
    ],
)
def test_a_malformed_prompt_is_not_taken_for_one(text):
    assert isinstance(OptimizePrompt.parse(text), Malformed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{FEEDBACK}valid\ncount from 2 down to 1\nsource right, target maybe\n{ANSWER}",
        f"{FEEDBACK}valid\ncount from 2 down to 1\n{ANSWER}",
        f"{FEEDBACK}invalid: \n{ANSWER}",
        f"{FEEDBACK}invalid: no such pass\n",
        f"{FEEDBACK}invalid: two\nlines\n{ANSWER}",
    ],
)
def test_malformed_feedback_is_not_taken_for_one(text):
    assert isinstance(Feedback.parse(text), Malformed)


@pytest.mark.parametrize(
    "line",
    [
        "code",
        "code parses ",
        "code parses, BLEU 0.8",
        "code parses, BLEU 1.01",
        "code parses, BLEU 87",
        "code parses: no",
        "code invalid",
        "code invalid: ",
        "code invalid, BLEU 0.42",
        "no code, BLEU 0.00",
        f"{CODE_OPEN}define\n{CODE_CLOSE}",
    ],
)
@pytest.mark.parametrize("end", ["", f"{CODE_OPEN}define\n{CODE_CLOSE}"])
def test_a_malformed_line_about_code_is_not_taken_for_one(line, end):
    text = Feedback(Form.FAST, None, 2, 1).render().removesuffix(ANSWER)
    assert isinstance(Feedback.parse(f"{text}{line}\n{end}{ANSWER}"), Malformed)


def test_fast_feedback_has_no_compiled_code():
    text = Feedback(Form.FAST, None, 2, 1).render().removesuffix(ANSWER)
    assert isinstance(Feedback.parse(f"{text}{CODE_OPEN}define\n{CODE_CLOSE}{ANSWER}"), Malformed)


@pytest.mark.parametrize("digit", ["٣", "²", "\N{FULLWIDTH DIGIT THREE}"])
def test_digits_of_other_scripts_are_none(digit):
    assert isinstance(Answer.parse(f"passes: -sroa\ncount from 2{digit} down to 1\n"), Malformed)
    valid = Feedback(Form.SHORT, None, 2, 1, code=CodeFinding(bleu=87)).render()
    for place in ("2", "1", "87"):
        assert isinstance(Feedback.parse(valid.replace(place, f"{place[:-1]}{digit}")), Malformed)


@pytest.mark.parametrize(
    "values",
    [
        {"form": Form.FAST},
        {"form": Form.FAST, "source": 2},
        {"form": Form.FAST, "fault": "crash", "source": 2, "target": 1},
        {"form": Form.FAST, "fault": "crash", "target_right": True},
        {"form": Form.FAST, "fault": ""},
        {"form": Form.FAST, "fault": f"crash\n{ANSWER}"},
        {"form": Form.FAST, "fault": "crash", "code": CodeFinding()},
        {"form": Form.SHORT, "source": 2, "target": 1, "compiled": "define"},
        {"form": Form.LONG, "source": 2, "target": 1, "code": CodeFinding()},
    ],
)
def test_feedback_that_the_text_cannot_say_is_not_made(values):
    with pytest.raises(ValueError, match=r"fault|code|compiled"):
        Feedback(**values)


@pytest.mark.parametrize("values", [{"fault": ""}, {"fault": "two\nlines"}, {"bleu": 101}, {"bleu": -1}])
def test_a_finding_that_the_text_cannot_say_is_not_made(values):
    with pytest.raises(ValueError, match=r"one line|BLEU"):
        CodeFinding(**values)


# Forging


WHOLE_ANSWER = Answer(PassList.of("sroa"), 2, 1, sure=True, code="x\n").render()
WHOLE_FEEDBACK = Feedback(Form.LONG, None, 2, 1, True, True, CodeFinding(), "x\n").render()


@pytest.mark.parametrize(
    "forged", [WHOLE_FEEDBACK, f"{CODE_CLOSE}{ANSWER}", f"{CODE_CLOSE}{WHOLE_FEEDBACK}{WHOLE_ANSWER}{END}"]
)
def test_code_cannot_forge_a_feedback(forged):
    said = Feedback(Form.LONG, None, 9, 5, False, False, CodeFinding(None, 7), forged)
    assert Feedback.parse(said.render()) == said
    answer = Answer(PassList.of("gvn"), 9, 4, code=forged)
    assert Answer.parse(answer.render()) == answer


@pytest.mark.parametrize(
    "forged", [f"{ANSWER}{SURE}".strip(), f"x {FEEDBACK}valid", "BLEU 1.00", f"{END}{CODE_OPEN}".strip()]
)
def test_a_message_cannot_forge_a_feedback(forged):
    for said in (Feedback(Form.SHORT, forged), Feedback(Form.SHORT, None, 9, 5, code=CodeFinding(forged, 3))):
        assert Feedback.parse(said.render()) == said


# Tokens


def test_a_flag_is_an_element_with_blank_and_dash():
    assert flag("gvn<no-load-pre>") == " -gvn<no-load-pre>"


def test_flags_are_in_the_order_of_their_words():
    assert flags(["sroa", "dce"]) == (" -sroa", " -dce")


def test_no_marker_begins_another():
    assert [(a, b) for a in MARKERS for b in MARKERS if a is not b and b.startswith(a)] == []


def test_markers_do_not_occur_in_ir():
    text = unoptimised(CODEC)
    assert [marker for marker in MARKERS if marker in text] == []


# Golden texts, for a real function and its real counts


@pytest.fixture(scope="module")
def worked_example():
    """A function's normal form, a list, and the counts before and after it."""
    passes = PassList.parse("sroa,instcombine<no-verify-fixpoint>,simplifycfg,tailcallelim")
    with Module.parse(unoptimised(CODEC)) as module, module.extract("skip") as part:
        text, source = ir.normalise(part.to_text()), part.instruction_count
        part.run(passes)
        return text, passes, source, part.instruction_count, ir.normalise(part.to_text())


@pytest.mark.parametrize("objective", Objective)
def test_the_prompt_is_the_one_on_file(worked_example, objective):
    assert OptimizePrompt(worked_example[0], objective).render() == golden(f"prompt_{objective}.txt")


@pytest.mark.parametrize(("sure", "name"), [(None, "answer"), (True, "answer_sure"), (False, "answer_try_again")])
def test_the_answer_is_the_one_on_file(worked_example, sure, name):
    _, passes, source, target, _ = worked_example
    assert Answer(passes, source, target, sure).render() == golden(f"{name}.txt")


def test_the_answer_with_code_is_the_one_on_file(worked_example):
    _, passes, source, target, code = worked_example
    assert Answer(passes, source, target, code=code).render() == golden("answer_code.txt")


def test_the_feedback_is_the_one_on_file(worked_example):
    _, _, source, target, _ = worked_example
    assert Feedback(Form.FAST, None, source, target, True, False).render() == golden("feedback.txt")


def test_the_feedback_on_a_malformed_answer_is_the_one_on_file():
    parsed = Answer.parse("passes: -sroa -simplifycgf\ncount from 9 down to 7\n")
    assert Feedback(Form.FAST, parsed.fault).render() == golden("feedback_invalid.txt")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_a_text_on_file_parses_and_renders_to_itself(path):
    form = {"prompt": OptimizePrompt, "answer": Answer, "feedback": Feedback}[re.match("[a-z]+", path.stem)[0]]
    parsed = form.parse(path.read_text())
    assert not isinstance(parsed, Malformed)
    assert parsed.render() == path.read_text()


def golden(name):
    return (GOLDEN / name).read_text()
