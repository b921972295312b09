"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# The tests share their cores with whatever else runs: time says nothing about an example.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")
