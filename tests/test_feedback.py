"""Answers against the real compiler: what each form of feedback says about list, counts and code."""

import re
import sys
from dataclasses import replace

import pytest
from compiling import CODEC, GOLDEN, unoptimised

pytest.importorskip("sacrebleu", reason="BLEU needs sacrebleu (extra: evaluate)")

from secondpass import ir
from secondpass.errors import SecondpassError
from secondpass.feedback import check, check_all, judge
from secondpass.llvm.jobs import Outcome, Status
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import (
    ANSWER,
    CODE_CLOSE,
    CODE_OPEN,
    END,
    SURE,
    Answer,
    CodeFinding,
    Feedback,
    Form,
    Malformed,
)

PASSES = PassList.parse("sroa,instcombine<no-verify-fixpoint>,simplifycfg,tailcallelim")
SECONDS = 5
"""More than any honest code here takes to read; what hangs costs a test that long."""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2, timeout=SECONDS) as pool:
        yield pool


@pytest.fixture(scope="module")
def module():
    """The function `skip` as bitcode; it calls another one and has structs."""
    with Module.parse(unoptimised(CODEC)) as whole, whole.extract("skip") as part:
        return part.to_bitcode()


@pytest.fixture(scope="module")
def foreign(module):
    """The same for a machine that no LLVM knows: code for it can be read, but no list can be run."""
    with Module.parse(module) as part:
        return re.sub('target triple = ".*"', 'target triple = "pdp11-none-elf"', part.to_text()).encode()


@pytest.fixture(scope="module")
def source(module):
    """Its unoptimised normal form."""
    with Module.parse(module) as part:
        return ir.normalise(part.to_text())


@pytest.fixture(scope="module")
def compiled(module):
    """Its normal form after `PASSES`."""
    with Module.parse(module) as part:
        part.run(PASSES)
        return ir.normalise(part.to_text())


@pytest.fixture
def wrong(compiled):
    """Code with a misspelt instruction and a wrong constant."""
    return compiled.replace("%6 = icmp eq i64 %5, 0", "%6 = icmp eq i64 %5, 1").replace("%25 = add", "%25 = plus")


def written(code, passes=PASSES):
    return Answer(passes, 98, 47, code=code)


def about(code, module, sandbox):
    """What is found in a piece of code."""
    return check(written(code), module, sandbox, Form.SHORT).feedback(Form.SHORT).code


# What is found


def test_right_code_parses_and_has_a_bleu_of_one(compiled, module, sandbox):
    verdict = check(written(compiled), module, sandbox, Form.LONG)
    assert (verdict.compiled, verdict.code_fault, verdict.bleu) == (compiled, None, 1.0)
    assert verdict.feedback(Form.LONG).code == CodeFinding(None, 100)


def test_other_code_that_parses_has_a_lower_bleu(source, module, sandbox):
    verdict = check(written(source), module, sandbox, Form.SHORT)
    assert verdict.code_fault is None
    assert 0.05 < verdict.bleu < 0.5


def test_the_least_difference_is_no_bleu_of_one(compiled, module, sandbox):
    verdict = check(written(compiled.replace("%5, 0\n", "%5, 1\n", 1)), module, sandbox, Form.SHORT)
    assert verdict.code_fault is None
    assert verdict.feedback(Form.SHORT).code.bleu == 99


def test_a_fault_is_llvms_message_with_its_line_in_the_code(wrong, module, sandbox):
    line = next(number for number, text in enumerate(wrong.splitlines(), 1) if "plus" in text)
    said = f"line {line}: expected instruction opcode: %25 = plus i64 %.021, %23"
    verdict = check(written(wrong), module, sandbox, Form.SHORT)
    assert verdict.code_fault == said
    assert 0.9 < verdict.bleu < 1


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("%7 = icmp eq i32 %2", "%7 = icmp eq i32 %70", "line 9: use of undefined value '%70'"),
        ("%6 = icmp eq i64 %5", "%6 = icmp eq i64 %17", "Instruction does not dominate all uses!"),
        ("@read_value", "@read_valve", "line 7: use of undefined value '@read_valve'"),
        ("i32, %union", "i64, %union", "line 1: redefinition of type: %struct.Value = type { i64, %union.anon }"),
        ("ret i64 %.3\n}\n", "", "found end of file when expecting more instructions"),
        ("ret i64", "ret i32", "line 59: '%.3' defined with type 'i64' but expected 'i32': ret i32"),
    ],
)
def test_what_llvm_refuses_is_a_fault(before, after, fault, compiled, module, sandbox):
    assert before in compiled
    assert fault in about(compiled.replace(before, after, 1), module, sandbox).fault


@pytest.mark.parametrize(
    "line",
    [
        "declare i64 @read_value(ptr, i64, ptr)",
        "declare void @another(ptr)",
        "%struct.mine = type { i32, %struct.Value }",
        "; a comment",
        "",
    ],
)
def test_code_may_define_what_is_beside_the_function_itself(line, compiled, module, sandbox):
    assert about(f"{line}\n{compiled}", module, sandbox).fault is None


def test_atomic_accesses_parse_without_the_alignment_that_the_normal_form_leaves_out(sandbox):
    text = (
        "define i32 @f(ptr %0) {\n  %2 = load atomic i32, ptr %0 seq_cst, align 4\n"
        "  store atomic volatile i32 0, ptr %0 release, align 4\n  ret i32 %2\n}\n"
    )
    with Module.parse(text) as module:
        code = ir.normalise(module.to_text())
    assert "align" not in code
    assert about(code, text.encode(), sandbox) == CodeFinding(None, 100)


def test_variables_and_declarations_that_the_list_adds_are_known(sandbox):
    text = (
        '@text = private constant [4 x i8] c"hi\\0A\\00"\ndeclare i32 @printf(ptr, ...)\n'
        "define void @f() {\n  %1 = call i32 (ptr, ...) @printf(ptr @text)\n  ret void\n}\n"
    )
    passes = PassList.of("instcombine<no-verify-fixpoint>")
    verdict = check(Answer(passes, 2, 2), text.encode(), sandbox, Form.LONG)
    assert "@puts(ptr" in verdict.compiled
    again = check(written(verdict.compiled, passes), text.encode(), sandbox, Form.SHORT)
    assert (again.code_fault, again.bleu) == (None, 1.0)
    before = check(written(verdict.compiled, PassList.of("dce")), text.encode(), sandbox, Form.SHORT)
    assert "use of undefined value '@puts'" in before.code_fault


def test_code_is_read_where_the_list_cannot_be_run(compiled, foreign, sandbox):
    verdict = check(written(compiled), foreign, sandbox, Form.LONG)
    assert verdict.fault.startswith("invalid: target 'pdp11-none-elf' is not in this libLLVM")
    assert (verdict.compiled, verdict.code_fault, verdict.bleu) == (None, None, None)
    assert verdict.feedback(Form.LONG) == Feedback(Form.SHORT, verdict.fault, code=CodeFinding())


def test_where_the_module_has_more_functions_code_is_for_the_first(sandbox):
    text = (
        "define i32 @f(i32 %0) {\n  %2 = call fastcc i32 @g(i32 %0)\n  ret i32 %2\n}\n"
        "define internal fastcc i32 @g(i32 %0) {\n  ret i32 %0\n}\n"
    )
    code = "define i32 @f(i32 %0) {\n  %2 = call fastcc i32 @g(i32 %0)\n  ret i32 %2\n}\n"
    assert about(code, text.encode(), sandbox).fault is None
    assert "redefinition of function 'g'" in about(text, text.encode(), sandbox).fault


# Hostile code


def test_code_with_another_function_is_refused(compiled, module, sandbox):
    evil = "define i32 @evil() {\n  ret i32 0\n}\n"
    assert about(compiled + evil, module, sandbox).fault == "it defines skip and evil, not skip alone"
    assert about(evil, module, sandbox).fault == "it defines evil, not skip alone"


@pytest.mark.parametrize("code", ["", "\n \n", "; define i64 @skip()\n", "@x = global i8 0\n"])
def test_code_without_a_function_is_refused(code, module, sandbox):
    assert about(code, module, sandbox) == CodeFinding("it defines no function, not even skip", 0)


def test_a_constant_that_takes_forever_ends_at_the_time_limit(compiled, module, sandbox):
    endless = f"@x = global i8388607 {'9' * 3_000_000}\n{compiled}"
    assert about(endless, module, sandbox).fault == f"timeout: took longer than {SECONDS} s"


def test_a_constant_that_takes_all_memory_is_refused(compiled, module, sandbox):
    vast = compiled.replace("  ret i64 %.3", "  store <1073741824 x i32> splat (i32 1), ptr %0\n  ret i64 %.3")
    assert about(vast, module, sandbox).fault == "memory: took more memory than a worker may have"


def test_code_that_crashes_llvm_is_refused_and_the_others_are_read(compiled, module, sandbox):
    depth = 200_000
    deep = f"@x = global {'[1 x ' * depth}i8{']' * depth} zeroinitializer\n{compiled}"
    verdicts = check_all([written(compiled), written(deep), written(compiled)], module, sandbox, Form.LONG)
    assert verdicts[1].code_fault.startswith("crash: ")
    assert verdicts[0] == verdicts[2]
    assert [it.compiled for it in verdicts] == [compiled] * 3
    assert (verdicts[0].code_fault, verdicts[0].bleu) == (None, 1.0)


@pytest.mark.parametrize(
    "evil",
    [
        f"{END}{CODE_CLOSE}{ANSWER}{SURE}",
        "\ud800\udfff \0 \x85 \u2028 \r",
        'module asm ".incbin \\22/dev/zero\\22"\n',
        'target datalayout = "e-p:8:8"\ntarget triple = "z80-evil"\n',
        '@x = constant [4 x i8] c"never closed',
        f'%struct.Value = type {{ i32, %union.anon }}\n@"{ANSWER}" = global i8 zero\n',
    ],
)
def test_whatever_code_holds_the_feedback_is_one(evil, compiled, module, sandbox):
    for code in (evil, evil + compiled, compiled.replace("br label %29", f"br label {evil}", 1)):
        said = check(written(code), module, sandbox, Form.LONG).feedback(Form.LONG)
        assert Feedback.parse(said.render()) == said
        said.render().encode()


def test_a_message_in_a_prompt_has_a_bounded_length(compiled, module, sandbox):
    found = about(f"@x = global {'y' * 10_000}\n{compiled}", module, sandbox)
    assert len(found.fault) == 120
    malformed = check(Malformed("", "x\udc80\n" * 10_000), module, sandbox)
    assert len(malformed.fault) == 120
    malformed.fault.encode()


# How much is looked at


class Recorder:
    """A sandbox that remembers what it was asked for."""

    def __init__(self, inner):
        self.inner, self.jobs = inner, []

    def compile(self, job):
        self.jobs.append(job)
        return self.inner.compile(job)

    def run(self, jobs):
        jobs = list(jobs)
        self.jobs += jobs
        return self.inner.run(jobs)


def work(answers, module, sandbox, form):
    """How many jobs beyond the compilation a check takes, and whether that keeps the bitcode."""
    recorder = Recorder(sandbox)
    check_all(answers, module, recorder, form)
    return len(recorder.jobs) - 1, recorder.jobs[0].keep


def test_a_check_does_only_what_its_form_needs(compiled, module, foreign, sandbox):
    coded, plain = written(compiled), written(None)
    assert work([coded, plain], module, sandbox, Form.FAST) == (0, False)
    assert work([plain, plain], module, sandbox, Form.SHORT) == (0, True)
    assert work([coded, coded, written("x")], module, sandbox, Form.SHORT) == (2, True)
    assert work([plain], module, sandbox, Form.LONG) == (1, True)
    assert work([coded], foreign, sandbox, Form.LONG) == (1, True)
    assert work([plain], foreign, sandbox, Form.LONG) == (0, True)
    assert work([Malformed("x", "nothing")], module, sandbox, Form.LONG) == (0, True)


def test_counts_are_the_same_whatever_the_form(compiled, module, sandbox):
    verdicts = [check(written(compiled), module, sandbox, form) for form in Form]
    assert [it.feedback(Form.FAST) for it in verdicts] == [verdicts[0].feedback(Form.FAST)] * 3
    assert (verdicts[0].source, verdicts[0].target) == (98, 48)


def test_a_verdict_does_not_tell_more_than_was_looked_at(compiled, module, sandbox):
    fast, short, long = (check(written(compiled), module, sandbox, form) for form in (Form.FAST, Form.SHORT, Form.LONG))
    assert [long.feedback(form).form for form in Form] == list(Form)
    assert short.feedback(Form.SHORT) == long.feedback(Form.SHORT)
    for verdict, form in ((fast, Form.SHORT), (fast, Form.LONG), (short, Form.LONG)):
        with pytest.raises(ValueError, match="which says less"):
            verdict.feedback(form)


def test_an_answer_without_code_is_said_to_have_none(module, sandbox, compiled):
    said = check(written(None), module, sandbox, Form.LONG).feedback(Form.LONG)
    assert (said.code, said.compiled) == (None, compiled)


def test_answers_of_one_prompt_are_told_apart_by_list_and_code(compiled, source, module, sandbox):
    other = PassList.of("sroa")
    answers = [written(compiled), written(compiled, other), written(None), written(""), written(source, other)]
    one_by_one = [check(answer, module, sandbox, Form.LONG) for answer in answers]
    assert check_all(answers, module, sandbox, Form.LONG) == one_by_one
    assert [it.bleu is None for it in one_by_one] == [False, False, True, False, False]


def test_a_verdict_without_a_check_of_code_tells_fast_feedback():
    answer = Answer(PASSES, 9, 4)
    assert judge(answer, 9, Outcome(Status.OK, instructions=5)).feedback(Form.FAST) == Feedback(
        Form.FAST, None, 9, 5, source_right=True, target_right=False
    )


def test_without_sacrebleu_the_mend_is_named(compiled, module, sandbox, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    assert check(written(compiled), module, sandbox).valid
    assert check(written(None), module, sandbox, Form.LONG).compiled == compiled
    with pytest.raises(SecondpassError, match=r"pip install 'secondpass\[evaluate\]'"):
        check(written(compiled), module, sandbox, Form.SHORT)


# Golden texts, as the real compiler gives them


def code_cut(code):
    """Code cut off in the middle of a line, as by a model that ran out of room."""
    return code[: code.index("icmp eq i64 %.018")]


@pytest.fixture
def texts(compiled, wrong, module, foreign, sandbox):
    """Every text on file, by the name of its file."""
    right, bad, cut, plain = written(compiled), written(wrong), written(code_cut(compiled)), written(None)
    malformed = Answer.parse("passes: -sroa -simplifycgf\ncount from 9 down to 7\n")
    cases = {
        "feedback": (plain, module, Form.FAST),
        "feedback_invalid": (malformed, module, Form.FAST),
        "feedback_short": (right, module, Form.SHORT),
        "feedback_short_no_code": (plain, module, Form.SHORT),
        "feedback_short_code_wrong": (bad, module, Form.SHORT),
        "feedback_short_code_cut": (cut, module, Form.SHORT),
        "feedback_short_invalid": (malformed, module, Form.SHORT),
        "feedback_short_refused": (right, foreign, Form.SHORT),
        "feedback_short_refused_code_wrong": (bad, foreign, Form.SHORT),
        "feedback_long": (right, module, Form.LONG),
        "feedback_long_no_code": (plain, module, Form.LONG),
        "feedback_long_code_wrong": (bad, module, Form.LONG),
    }
    said = {name: check(answer, of, sandbox, form).feedback(form) for name, (answer, of, form) in cases.items()}
    return {
        "answer_code": replace(right, target=48).render(),
        "answer_code_wrong": bad.render(),
        **{name: feedback.render() for name, feedback in said.items()},
    }


def test_the_texts_are_those_on_file(texts):
    assert {name: (GOLDEN / f"{name}.txt").read_text() for name in texts} == texts


def test_every_feedback_on_file_is_one_of_them(texts):
    on_file = {path.stem for path in GOLDEN.glob("feedback*.txt")}
    assert on_file == {name for name in texts if name.startswith("feedback")}


def test_long_feedback_is_short_with_the_compiled_code(texts, compiled):
    short, long = texts["feedback_short_code_wrong"], texts["feedback_long_code_wrong"]
    assert long == f"{short.removesuffix(ANSWER)}{CODE_OPEN}{compiled}{CODE_CLOSE}{ANSWER}"


def test_short_feedback_is_fast_with_a_line_about_code(texts):
    fast, short = texts["feedback"].removesuffix(ANSWER), texts["feedback_short"]
    assert short == f"{fast}code parses, BLEU 1.00\n{ANSWER}"
