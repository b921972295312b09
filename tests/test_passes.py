"""PassList: what it reads, what it prints, and that LLVM's own opt agrees with both."""

import functools
import random
import subprocess

import pytest
from compiling import CODEC, find_tool, opt, unoptimised
from hypothesis import given, settings
from hypothesis import strategies as st

from secondpass.errors import LLVMError, PassListError
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import Nest, Pass, PassList
from secondpass.llvm.vocabulary import EXCLUDED, VOCABULARY, Level, levels

WORDS = {level: [entry.text for entry in VOCABULARY if entry.level is level] for level in Level}
PIPELINES = ("default<O1>", "default<O2>", "default<O3>")
# What LLVM's grammar allows directly inside each manager, besides passes of its own level.
MANAGERS = {
    Level.MODULE: ("module", "cgscc", "function", "function<eager-inv>"),
    Level.CGSCC: ("cgscc", "devirt<1>", "devirt<3>", "function", "function<no-rerun>", "function<eager-inv;no-rerun>"),
    Level.FUNCTION: ("function", "loop", "loop-mssa"),
    Level.LOOP: ("loop",),
    Level.LOOP_MSSA: ("loop",),
}
# And which passes of a lower level it wraps by itself. (Loop passes with MemorySSA abort it.)
IMPLICIT = {Level.MODULE: (Level.CGSCC, Level.FUNCTION, Level.LOOP), Level.CGSCC: (Level.FUNCTION, Level.LOOP)}
IMPLICIT |= {Level.FUNCTION: (Level.LOOP,), Level.LOOP: (), Level.LOOP_MSSA: (Level.LOOP,)}

flat_lists = st.lists(st.sampled_from([entry.text for entry in VOCABULARY]), max_size=12)


@st.composite
def pipelines(draw, inside=Level.MODULE, depth=3):
    """A pipeline in full LLVM syntax: any nesting that opt accepts."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        if depth and draw(st.booleans()):
            manager = draw(st.sampled_from(MANAGERS[inside]))
            level = Level.CGSCC if manager.startswith("devirt") else Level(manager.partition("<")[0])
            parts.append(f"{manager}({draw(pipelines(level, depth - 1))})")
        else:
            level = draw(st.sampled_from((inside, inside, *IMPLICIT[inside])))
            parts.append(draw(st.sampled_from(WORDS[level])))
    return ",".join(parts)


# Without a manager around it all, LLVM reads the whole text at the level of its first pass.
whole_pipelines = pipelines().map("module({})".format)


@functools.cache
def small_module():
    """Four functions that call one another and have loops, as text."""
    with (
        Module.parse(unoptimised(CODEC)) as whole,
        whole.extract("compress", "put_literals", "put", "window_slot") as it,
    ):
        return it.to_text()


# Text and values


@given(flat_lists)
def test_a_printed_list_of_vocabulary_words_parses_to_itself(words):
    passes = PassList.of(*words)
    assert PassList.parse(str(passes)) == passes


@given(flat_lists)
def test_a_list_keeps_its_words(words):
    assert PassList.of(*words).words == tuple(words)


@given(flat_lists)
def test_a_flat_text_parses_to_the_same_list_as_its_words(words):
    assert PassList.parse(",".join(words)) == PassList.of(*words)


@given(pipelines())
def test_a_printed_pipeline_parses_to_itself(text):
    passes = PassList.parse(text)
    assert PassList.parse(str(passes)) == passes


@given(pipelines())
def test_printing_settles_after_one_round(text):
    printed = str(PassList.parse(text))
    assert str(PassList.parse(printed)) == printed


@given(pipelines())
def test_a_pipeline_is_restored_from_its_words(text):
    passes = PassList.parse(text)
    assert PassList.of(*passes.words) == passes


@given(pipelines(), st.data())
def test_a_list_less_one_element_still_parses_to_itself(text, data):
    passes = PassList.parse(text)
    shorter = passes.without(data.draw(st.integers(0, len(passes) - 1)))
    assert PassList.parse(str(shorter)) == shorter


@given(st.text(alphabet="sroagvn,()<>; -licmlop2\n", max_size=40) | st.text(max_size=20))
def test_any_text_either_parses_or_raises_a_pass_list_error(text):
    try:
        passes = PassList.parse(text)
    except PassListError:
        return
    assert PassList.parse(str(passes)) == passes


def test_blanks_mean_nothing():
    text = " function ( sroa , simplifycfg< no-keep-loops ; sink-common-insts > )\n"
    assert PassList.parse(text) == PassList.of("sroa", "simplifycfg<no-keep-loops;sink-common-insts>")


def test_the_empty_text_is_the_empty_list():
    assert PassList.parse("") == PassList()


def test_lists_join_in_order():
    assert PassList.of("sroa") + PassList.of("gvn", "dce") == PassList.of("sroa", "gvn", "dce")


def test_a_list_cannot_be_changed():
    with pytest.raises(AttributeError):
        PassList.of("sroa").items = ()


# Grouping


@pytest.mark.parametrize(
    ("flat", "nested"),
    [
        ("sroa,gvn", "function(sroa,gvn)"),
        ("sroa,licm,loop-rotate", "function(sroa,loop-mssa(licm),loop(loop-rotate))"),
        ("licm,lnicm", "function(loop-mssa(licm,lnicm))"),
        ("inline,function-attrs,sroa", "cgscc(inline,function-attrs),function(sroa)"),
        ("globalopt,sroa,globalopt", "globalopt,function(sroa),globalopt"),
        ("sroa,inline,licm,globaldce", "function(sroa),cgscc(inline),function(loop-mssa(licm)),globaldce"),
    ],
)
def test_neighbours_of_one_level_share_a_manager(flat, nested):
    assert str(PassList.parse(flat)) == nested


@pytest.mark.parametrize(
    "text",
    [
        "cgscc(inline,function(sroa))",
        "cgscc(devirt<4>(inline,function<eager-inv;no-rerun>(sroa)))",
        "cgscc(inline),cgscc(function-attrs)",
        "function(loop(indvars),loop(loop-deletion))",
        "function(correlated-propagation),function(correlated-propagation)",
        "function(loop-mssa(loop-rotate,licm))",
        "function<eager-inv>(sroa)",
    ],
)
def test_nesting_that_decides_what_runs_when_is_kept(text):
    assert str(PassList.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["function(sroa,gvn)", "module(module(function(sroa,gvn)))", "function(function(sroa),gvn)"],
)
def test_nesting_that_decides_nothing_is_taken_out(text):
    assert PassList.parse(text) == PassList.of("sroa", "gvn")


def test_loop_passes_written_straight_into_a_function_manager_walk_the_loops_one_after_the_other():
    # As LLVM reads it: each gets a loop manager of its own.
    assert str(PassList.parse("function(indvars,loop-deletion)")) == "function(loop(indvars),loop(loop-deletion))"


def test_a_pass_knows_its_level():
    assert [Pass(text).level for text in ("globalopt", "inline", "gvn<no-load-pre>", "indvars", "licm")] == list(Level)


def test_a_nest_has_the_level_of_what_stands_in_it():
    assert [Nest(it, ()).level for it in ("devirt<2>", "loop-mssa")] == [Level.CGSCC, Level.LOOP_MSSA]


# Errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simplifycgf", "no pass is called 'simplifycgf'; did you mean simplifycfg"),
        ("qqqqqq", "no pass is called 'qqqqqq'; `secondpass passes` lists the vocabulary"),
        ("sroa,internalize", "'internalize' is left out of the vocabulary: it changes what the program means"),
        ("function(sroa", "'function(' is not closed"),
        ("function(sroa))", "unexpected ')'"),
        ("sroa(gvn)", "'sroa' is not a pass manager and takes no parentheses"),
        ("cgscc<x>(inline)", "'cgscc<x>' is not a pass manager"),
        ("function(inline)", "'inline' is a cgscc pass and cannot stand inside 'function(...)'"),
        ("loop(sroa)", "'sroa' is a function pass and cannot stand inside 'loop(...)'"),
        ("loop(licm)", "'licm' is a loop-mssa pass and cannot stand inside 'loop(...)'"),
        ("function(module(globalopt))", "'module(...)' cannot stand inside 'function(...)'"),
        ("function(devirt<2>(sroa))", "'devirt<2>(...)' cannot stand inside 'function(...)'"),
        ("function<no-rerun>(sroa)", "'function<no-rerun>(...)' must stand inside 'cgscc(...)'"),
        ("sroa,,gvn", "a pass name is missing before ','"),
        ("sroa,", "a pass name is missing at the end"),
        ("function()", "a pass name is missing before ')'"),
        ("gvn<no-load-pre", "'gvn<no-load-pre': the parameters are not closed by '>'"),
    ],
)
def test_a_wrong_list_is_refused_with_what_is_wrong(text, message):
    with pytest.raises(PassListError) as raised:
        PassList.parse(text)
    assert message in str(raised.value)


def test_an_error_quotes_the_whole_list():
    with pytest.raises(PassListError, match=r"^pass list 'sroa,nothing': "):
        PassList.parse("sroa,nothing")


# LLVM's own opt


def check_that_opt_agrees(text):
    """Compare what opt makes of a pipeline with what it makes of our spelling of it."""
    theirs, ours = opt(text, small_module()), opt(str(PassList.parse(text)), small_module())
    assert (theirs.returncode, ours.returncode) == (0, 0), theirs.stderr + ours.stderr
    assert ours.stdout == theirs.stdout


@settings(max_examples=25)
@given(whole_pipelines)
def test_a_pipeline_does_in_opt_what_our_spelling_of_it_does(text):
    check_that_opt_agrees(text)


@pytest.mark.slow
@settings(max_examples=2000)
@given(whole_pipelines)
def test_many_pipelines_do_in_opt_what_our_spelling_of_them_does(text):
    check_that_opt_agrees(text)


@settings(max_examples=25)
@given(flat_lists)
def test_opt_accepts_what_a_list_of_words_prints(words):
    if words:
        finished = opt(str(PassList.of(*words)), "", "--disable-output")
        assert finished.returncode == 0, finished.stderr


def test_the_list_runs_in_this_process_as_in_opt():
    generator = random.Random(7)
    plain = [entry.text for entry in VOCABULARY if entry.text not in PIPELINES]
    passes = PassList.of(*generator.sample(plain, 20))
    with Module.parse(small_module()) as module:
        module.run(passes)
        assert body(module.to_text()) == body(opt(str(passes), small_module()).stdout)


def body(text):
    """IR text without the line that names the file it came from."""
    return [line for line in text.splitlines() if not line.startswith(("; ModuleID", "source_filename"))]


# The vocabulary


def printed_passes():
    """The transformation passes `opt --print-passes` lists, without parameters."""
    lines = subprocess.run([find_tool("opt"), "--print-passes"], capture_output=True, text=True, check=True).stdout
    section, names = "", set()
    for line in lines.splitlines():
        if not line.startswith(" "):
            section = line
        elif "analyses" not in section and not section.startswith("Machine"):
            names.add(line.strip().partition("<")[0])
    return names


def test_vocabulary_and_exclusions_cover_what_opt_lists():
    assert printed_passes() - set(levels()) - set(EXCLUDED) == set()


def test_vocabulary_and_exclusions_name_nothing_that_opt_lacks():
    assert (set(levels()) | set(EXCLUDED)) - printed_passes() == set()


def test_no_pass_is_both_in_the_vocabulary_and_excluded():
    assert set(levels()) & set(EXCLUDED) == set()


def test_no_element_is_twice_in_the_vocabulary():
    assert len({entry.text for entry in VOCABULARY}) == len(VOCABULARY)


def test_the_vocabulary_has_60_to_100_elements():
    assert 60 <= len(VOCABULARY) <= 100


def test_every_element_says_what_it_does():
    assert [entry.text for entry in VOCABULARY if not entry.summary] == []


def test_the_bundled_llvm_knows_every_element():
    assert [entry.text for entry in VOCABULARY if not load().has_pass(entry.text)] == []


def test_llvm_does_not_know_an_invented_element():
    assert not load().has_pass("sroa<invented>")


@pytest.mark.parametrize("level", list(Level))
def test_opt_runs_every_element_in_a_manager_of_its_level(level):
    loops = level in (Level.LOOP, Level.LOOP_MSSA)
    pipeline = f"{level}({','.join(WORDS[level])})"
    finished = opt(f"function({pipeline})" if loops else pipeline, "", "--disable-output")
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("level", "lower"), [(Level.MODULE, "cgscc"), (Level.CGSCC, "function"), (Level.FUNCTION, "loop-mssa")]
)
def test_no_element_runs_in_a_manager_of_a_lower_level(level, lower):
    assert [word for word in WORDS[level] if llvm_accepts(f"{lower}({word})")] == []


def llvm_accepts(pipeline):
    with Module.parse("") as nothing:
        try:
            nothing.run(pipeline)
        except LLVMError:
            return False
    return True
