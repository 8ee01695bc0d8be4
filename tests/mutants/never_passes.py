"""What `test_run` names as a mutation's test; no run of the tests takes it up by itself."""


def test_what_never_passes() -> None:
    raise AssertionError
