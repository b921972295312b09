"""The passes a model may use, and the ones it may not, each with its reason.

A pass is in the vocabulary when it keeps the meaning of every exported function, keeps the metric
honest (no code leaves the counted module) and can make code smaller, alone or by what it opens up
for a later pass. `VOCABULARY` holds LLVM 23's spelling, which is also what a model's tokenizer holds;
an older LLVM lacks some entries, which `llvm.library` finds out by asking it.

Pure data: nothing here loads LLVM. Sources: LLVM's PassRegistry.def and the passes' own headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

VOCABULARY_VERSION = 2
BY_ADDRESS = frozenset(("gvn-sink",))
"""Names of passes whose result depends on where what they look at lies in memory (docs/miscompilations.md)."""


class Level(StrEnum):
    """The unit of code a pass sees at a time, as LLVM's pass managers are named."""

    MODULE = "module"
    CGSCC = "cgscc"
    FUNCTION = "function"
    LOOP = "loop"
    LOOP_MSSA = "loop-mssa"


@dataclass(frozen=True, slots=True)
class Entry:
    """One element a pass list may hold: a pass with its parameters, spelled as LLVM spells it."""

    text: str
    level: Level
    summary: str

    @property
    def name(self) -> str:
        """The pass without its parameters."""
        return self.text.partition("<")[0]


def _entries(level: Level, table: str) -> tuple[Entry, ...]:
    rows = (line.split(None, 1) for line in table.strip().splitlines())
    return tuple(Entry(text, level, summary) for text, summary in rows)


_MODULE = _entries(
    Level.MODULE,
    """
    default<O1>               the whole -O1 pipeline
    default<O2>               the whole -O2 pipeline; on minsize functions this is -Oz
    default<O3>               the whole -O3 pipeline
    always-inline             inline calls of functions marked alwaysinline
    called-value-propagation  note which functions an indirect call can reach
    constmerge                merge identical constants
    deadargelim               remove unused arguments and results of internal functions
    elim-avail-extern         drop bodies that another object file provides
    globaldce                 remove unreferenced internal functions and variables
    globalopt                 optimise variables whose address never escapes
    ipsccp                    propagate constants across calls
    mergefunc                 fold functions with the same body into one
    module-inline             inline calls in the order of their profit
    rpo-function-attrs        deduce norecurse top-down
    """,
)

_CGSCC = _entries(
    Level.CGSCC,
    """
    argpromotion              pass arguments of internal functions by value instead of by pointer
    function-attrs            deduce readonly, nocapture and their like bottom-up
    inline                    inline calls bottom-up where it pays
    """,
)

_FUNCTION = _entries(
    Level.FUNCTION,
    """
    adce                      remove dead code, assuming all is dead until proved live
    aggressive-instcombine    fold expensive patterns of several instructions
    bdce                      remove computations of bits that nobody reads
    constraint-elimination    fold comparisons that earlier branches decide
    correlated-propagation    use value ranges implied by control flow
    dce                       remove trivially dead instructions
    dfa-jump-threading        thread jumps through state machines
    div-rem-pairs             compute a remainder from its division
    drop-unnecessary-assumes  remove assumptions that nothing needs any more
    dse                       remove stores that are overwritten before a read
    early-cse                 remove common subexpressions in one walk of the dominator tree
    early-cse<memssa>         the same, with MemorySSA for loads
    flatten-cfg               merge branches into conditions
    float2int                 do in integers what does not need floating point
    gvn                       global value numbering: redundant values and loads
    gvn<no-load-pre>          global value numbering without load PRE
    gvn<no-scalar-pre;no-load-pre>  global value numbering without any PRE
    gvn-hoist                 hoist equal computations of sibling blocks
    gvn-sink                  sink equal computations into the common successor
    infer-alignment           raise alignments that are provable
    instcombine<no-verify-fixpoint>  fold instructions into simpler ones
    instcombine<max-iterations=4;no-verify-fixpoint>  the same, repeated until little moves
    instsimplify              replace instructions by values that exist already
    jump-threading            jump past branches whose outcome the predecessor decides
    loop-fusion               fuse neighbouring loops of equal trip count
    loop-load-elim            forward stores of one iteration to loads of the next
    loop-unroll<O2;no-partial;no-runtime>  unroll and peel small loops of known trip count
    loop-vectorize            vectorise inner loops
    lower-constant-intrinsics  answer is.constant and objectsize
    lower-expect              turn branch hints into weights
    mem2reg                   promote scalar stack slots to registers
    memcpyopt                 merge and shorten memcpy and memset
    mergeicmps                turn chains of comparisons into memcmp
    mldst-motion              merge loads and stores of the two sides of a diamond
    nary-reassociate          reassociate to reuse dominating expressions
    reassociate               order commutative expressions to expose constants
    reg2mem                   demote registers to stack slots, so that other passes start afresh
    sccp                      propagate constants along feasible edges
    separate-const-offset-from-gep  split constant offsets off address computations
    simplifycfg               merge, fold and remove blocks
    simplifycfg<bonus-inst-threshold=4;speculate-unpredictables>  the same, folding branches more eagerly
    simplifycfg<forward-switch-cond;switch-range-to-icmp;switch-to-arithmetic;no-keep-loops>  the same, with late folds
    simplifycfg<hoist-common-insts;sink-common-insts;no-keep-loops>  the same, hoisting and sinking common instructions
    simplifycfg<switch-to-lookup;switch-range-to-icmp>  the same, turning switches into tables
    sink                      sink instructions into the successor that needs them
    slp-vectorizer            combine parallel scalar operations into vector ones
    slsr                      strength-reduce in straight-line code
    speculative-execution     hoist cheap instructions above a branch
    sroa                      split aggregates on the stack and promote them
    sroa<modify-cfg>          the same, allowed to change control flow
    tailcallelim              turn tail recursion into loops and mark tail calls
    vector-combine            fold vector operations by their cost
    load-store-vectorizer     combine neighbouring loads and stores into vector ones
    """,
)

_LOOP = _entries(
    Level.LOOP,
    """
    canon-freeze              move freeze out of induction variables
    indvars                   simplify induction variables and exit values
    loop-deletion             remove loops that compute nothing
    loop-flatten              turn two nested loops into one
    loop-idiom                recognise memset, memcpy, popcount and their like
    loop-instsimplify         replace instructions in loops by existing values
    loop-interchange          swap nested loops
    loop-reduce               rewrite address computations by strength reduction
    loop-rotate               turn while loops into guarded do-while loops
    loop-rotate<no-header-duplication>  rotate only where no instruction is duplicated
    loop-simplifycfg          fold branches inside loops
    loop-term-fold            fold a loop's exit condition into another induction variable
    loop-unroll-full          unroll loops of small known trip count away
    """,
)

_LOOP_MSSA = _entries(
    Level.LOOP_MSSA,
    """
    licm                      move loop-invariant code out
    licm<no-allowspeculation>  the same, without speculating
    lnicm                     move code out of whole loop nests
    simple-loop-unswitch      hoist trivially invariant conditions out of loops
    simple-loop-unswitch<nontrivial>  hoist invariant conditions, duplicating the loop
    """,
)

VOCABULARY: tuple[Entry, ...] = _MODULE + _CGSCC + _FUNCTION + _LOOP + _LOOP_MSSA
"""Every element a model's list may hold, outer levels first."""


@cache
def levels() -> dict[str, Level]:
    """The level of every pass of the vocabulary, by its name without parameters."""
    return {entry.name: entry.level for entry in VOCABULARY}


_REASONS: tuple[tuple[str, str], ...] = (
    (
        "miscompiles: see docs/miscompilations.md",
        "attributor attributor-light attributor-cgscc attributor-light-cgscc newgvn",
    ),
    (
        "changes what the program means or exports",
        "internalize lower-atomic lower-invoke lower-global-dtors lower-ifunc lower-emutls"
        " lower-widenable-condition lower-guard-intrinsic make-guards-explicit rewrite-symbols metarenamer"
        " forceattrs wholeprogramdevirt function-import noinline-nonprevailing pgo-force-function-attrs"
        " memprof-remove-attributes strip-convergence-intrinsics drop-type-tests lowertypetests"
        " simplify-type-tests cross-dso-cfi",
    ),
    (
        "makes the metric lie: code or facts leave the module, or the counted function",
        "extract-blocks loop-extract hotcoldsplit iroutliner partial-inliner embed-bitcode",
    ),
    (
        "strips what the user asked for (names, debug information, declarations)",
        "strip strip-dead-debug-info strip-dead-prototypes strip-debug-declare strip-nondebug"
        " strip-nonlinetable-debuginfo strip-dead-cg-profile strip-gc-relocates redundant-dbg-inst-elim",
    ),
    (
        "instruments or sanitizes",
        "asan hwasan msan tsan tsan-module dfsan nsan rtsan tysan bounds-checking sancov-module sanmd-module"
        " memprof memprof-module memprof-use memprof-context-disambiguation ctx-instr-gen ctx-instr-lower"
        " ctx-prof-flatten ctx-prof-flatten-prethinlink insert-gcov-profiling instrprof instrumentor"
        " jmc-instrumenter pgo-instr-gen pgo-instr-use pgo-icall-prom pgo-memop-opt pseudo-probe"
        " pseudo-probe-update sample-profile ee-instrument stack-protector safe-stack cfguard kcfi alloc-token"
        " lower-allow-check prof-inject static-data-annotator assign-guid",
    ),
    (
        "belongs to code generation, or is run where it is needed",
        "consthoist loop-sink lcssa loop-simplify move-auto-init atomic-expand codegenprepare"
        " complex-deinterleaving dwarf-eh-prepare expand-ir-insts expand-memcmp expand-reductions"
        " expand-variadics gc-lowering global-merge global-merge-func hardware-loops indirectbr-expand"
        " inline-asm-prepare interleaved-access interleaved-load-combine loop-data-prefetch"
        " lower-matrix-intrinsics lower-switch pre-isel-intrinsic-lowering rel-lookup-table-converter"
        " replace-with-veclib rewrite-statepoints-for-gc place-safepoints scalarize-masked-mem-intrin"
        " select-optimize shadow-stack-gc-lowering sjlj-eh-prepare typepromotion unreachableblockelim"
        " wasm-eh-prepare win-eh-prepare cg-profile free-machine-function coro-early coro-split coro-elide"
        " coro-cleanup coro-annotation-elide",
    ),
    (
        "only ever adds instructions, or undoes what the others do",
        "break-crit-edges fix-irreducible unify-loop-exits loop-versioning loop-versioning-licm"
        " loop-unroll-and-jam scalarizer libcalls-shrinkwrap partially-inline-libcalls assume-builder"
        " jump-table-to-switch globalsplit guard-widening loop-predication irce callsite-splitting"
        " loop-bound-split loop-distribute",
    ),
    (
        "serves another target or language",
        "structurizecfg infer-address-spaces hipstdpar-interpose-alloc hipstdpar-math-fixup"
        " hipstdpar-select-accelerator-code dxil-upgrade openmp-opt openmp-opt-cgscc openmp-opt-postlink"
        " objc-arc objc-arc-contract objc-arc-expand loop-idiom-vectorize inject-tli-mappings chr"
        " sandbox-vectorizer",
    ),
    (
        "changes no instruction: an analysis, a name, a mark, a test of LLVM itself",
        "annotation2metadata annotation-remarks add-discriminators canonicalize-aliases name-anon-globals"
        " instnamer alignment-from-assumptions inferattrs verify lint print instcount count-visits aa-eval"
        " pa-eval assume-simplify debugify check-debugify declare-to-assign declare-runtime-libcalls"
        " recompute-globalsaa transform-warning normalize helloworld no-op-module no-op-cgscc no-op-function"
        " no-op-loop no-op-loopnest invalidate trigger-crash-module trigger-crash-function"
        " trigger-verifier-error lower-comment-string kernel-info dot-cfg view-cfg dot-callgraph dot-cfg-only"
        " dot-ddg dot-dom dot-dom-only dot-post-dom dot-post-dom-only func-properties-stats mir-check-debugify"
        " mir-debugify mir-strip-debug print-callgraph print-callgraph-sccs print-ir-similarity print-lcg"
        " print-lcg-dot print-must-be-executed-contexts print-profile-summary print-stack-safety prof-verify"
        " view-callgraph view-cfg-only view-dom view-dom-only view-post-dom view-post-dom-only",
    ),
    (
        "is a pipeline for another stage of a build, or one of LLVM's experiments with inlining",
        "thinlto thinlto-pre-link lto lto-pre-link fatlto-pre-link fatlto-cleanup function-simplification"
        " inliner-wrapper inliner-wrapper-no-mandatory-first inliner-ml-advisor-release scc-oz-module-inliner"
        " norecurse-lto-inference extra-vector-passes extra-simple-loop-unswitch-passes",
    ),
)

EXCLUDED: dict[str, str] = {name: reason for reason, names in _REASONS for name in names.split()}
"""Passes LLVM has and a list may not use, with the reason."""
