"""Which answers to ask for: where model and compiler meet.

`base` is what a strategy works with. `single` asks once, `sampling` many times, `iterating` again and again after
feedback, `tree` expands what the model holds most probable, `portfolio` lets it choose from the coreset, `searching`
lets the tuner go on from there; `finishing` gives any of them what nearly every list can still be given.
"""

NAMES = {
    "single": "one greedy answer",
    "feedback": "one greedy answer, and another one after the compiler's feedback",
    "sample": "sampled answers",
    "sample-then-feedback": "sampled answers, each followed by a greedy one after feedback",
    "feedback-then-sample": "one greedy answer, then sampled ones after the feedback on it",
    "feedback-then-priority": "one greedy answer, then the most probable ones after the feedback on it",
    "iterate": "feedback again and again, until the model is sure or foresaw the count",
    "priority": "the model's most probable answers: Priority Sampling",
    "beam": "the model's most probable answers: beam search",
    "portfolio": "lists of the coreset, chosen by how probable the model holds each of them",
    "search": "the model's most probable answers, then the tuner around them; a sample is a compile",
}
"""The names, and what each means."""
