"""Strategies: which answers to ask a model for, given what the compiler said of the ones before."""
