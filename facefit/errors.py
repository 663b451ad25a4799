"""The errors facefit raises on purpose. Each one carries the exit code the command line ends with."""


class FacefitError(Exception):
    """Something the user can act on; the message names the value, the rule and the way out."""

    exit_code = 1


class NoFaceFound(FacefitError):
    """No face was detected in a photograph that could be read."""

    exit_code = 3


class UnreadableInput(FacefitError):
    """A photograph, landmark file or mask that cannot be read, or an output folder that cannot be written."""

    exit_code = 4


class ModelFileError(FacefitError):
    """A face-model file that is missing, malformed or not what it claims to be."""

    exit_code = 5
