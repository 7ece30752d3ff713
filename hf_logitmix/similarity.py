"""Class similarity, under the name that scripts import it by; see `hf_logitmix.targets.similarity`."""

from hf_logitmix.targets.similarity import (
    FILE_NAME,
    MAX_EXAMPLES,
    as_array,
    check_classes,
    check_similarity,
    class_similarity,
    exponential,
    lda_similarity,
    linear,
    logistic,
)

__all__ = [
    "FILE_NAME",
    "MAX_EXAMPLES",
    "as_array",
    "check_classes",
    "check_similarity",
    "class_similarity",
    "exponential",
    "lda_similarity",
    "linear",
    "logistic",
]
