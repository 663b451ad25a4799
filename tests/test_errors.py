from __future__ import annotations

import pytest

from facefit.errors import FacefitError, ModelFileError, NoFaceFound, UnreadableInput


@pytest.mark.parametrize(("error", "code"), [(NoFaceFound, 3), (UnreadableInput, 4), (ModelFileError, 5)])
def test_each_error_ends_with_its_documented_exit_code(error: type[FacefitError], code: int) -> None:
    assert error.exit_code == code


def test_one_except_clause_catches_all_errors_on_purpose() -> None:
    for error in (NoFaceFound, UnreadableInput, ModelFileError):
        with pytest.raises(FacefitError, match="what to do"):
            raise error("what to do")


def test_an_error_is_never_taken_for_a_success() -> None:
    errors: list[type[FacefitError]] = [FacefitError, *FacefitError.__subclasses__()]
    assert all(error.exit_code not in (0, 2) for error in errors)
