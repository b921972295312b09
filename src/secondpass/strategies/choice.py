"""Strategies by name, as a command line has them."""

from __future__ import annotations

from secondpass.errors import InputError
from secondpass.prompt import Form
from secondpass.strategies import NAMES
from secondpass.strategies.base import Strategy
from secondpass.strategies.finishing import Finished
from secondpass.strategies.iterating import Iterate
from secondpass.strategies.portfolio import Portfolio
from secondpass.strategies.sampling import Sample, Then
from secondpass.strategies.searching import Search
from secondpass.strategies.single import Feedback, Single
from secondpass.strategies.tree import Beam, Priority, PriorityAfterFeedback

_ONE_ANSWER = ("single", "feedback")
_COLD = (*_ONE_ANSWER, "feedback-then-priority", "priority", "beam", "portfolio", "search")
_FEEDBACK = ("feedback", "sample-then-feedback", "feedback-then-sample", "feedback-then-priority", "iterate")
_SEARCH_ANSWERS = 10


def choose(
    name: str,
    answers: int,
    temperature: float | None = None,
    seed: int = 0,
    form: Form | None = None,
    *,
    usual_temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Strategy:
    """The strategy of that name, its lists finished at last.

    Args:
        name: one of `NAMES`.
        answers: how many; feedback steps for `iterate`, and of no meaning for `single` and `feedback`.
        temperature: of samples; None for the usual one, or for greedy answers where these make sense.
        seed: of the sampling.
        form: of the feedback; None for the usual one, Fast.
        usual_temperature: the model's, `Manifest.temperature`.
        top_k: samples take one of so many most probable tokens at each step; None for any.
        top_p: and of these one of the fewest that hold this share of the probability; None for any.

    Raises:
        InputError: there is no such strategy, or a setting makes no sense.
    """
    settings = {"the temperature": temperature, "top_k": top_k, "top_p": top_p}
    given = [it for it, value in settings.items() if value is not None]
    if name in _COLD and given:
        raise InputError(f"the strategy '{name}' does not sample: leave {given[0]} out, or take 'sample'")
    if name in _ONE_ANSWER and answers != 1:
        raise InputError(f"the strategy '{name}' asks for no more than one answer, not {answers}: take another one")
    if form is not None and name in NAMES and name not in _FEEDBACK:
        raise InputError(f"the strategy '{name}' gives no feedback: leave the form out, or take 'feedback'")
    form = form or Form.FAST
    warm = usual_temperature if temperature is None else temperature
    found: Strategy
    match name:
        case "single":
            found = Single()
        case "feedback":
            found = Feedback(form)
        case "sample":
            found = Sample(answers, warm, seed, top_k=top_k, top_p=top_p)
        case "sample-then-feedback":
            found = Sample(answers, warm, seed, Then.GREEDY, form, top_k, top_p)
        case "feedback-then-sample":
            found = Sample(answers, warm, seed, Then.SAMPLED, form, top_k, top_p)
        case "feedback-then-priority":
            found = PriorityAfterFeedback(answers, form)
        case "iterate":
            found = Iterate(answers, temperature or 0.0, seed, form, top_k=top_k, top_p=top_p)
        case "priority":
            found = Priority(answers)
        case "beam":
            found = Beam(answers)
        case "portfolio":
            found = Portfolio(answers)
        case "search":
            found = Search(answers, min(answers, _SEARCH_ANSWERS), seed)
        case _:
            raise InputError(f"no strategy is called '{name}'; there are {', '.join(NAMES)}")
    return found if isinstance(found, Search) else Finished(found)
