"""Hyperparameter search over methods and their options."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from hf_logitmix.method import Method
from hf_logitmix.methods import as_method
from hf_logitmix.training.arguments import METHOD_OPTIONS, MixTrainingArguments

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object

logger = logging.getLogger(__name__)


class SearchMixin(_Base):
    """Lets `Trainer.hyperparameter_search` draw ``method`` and any of its options.

    Every trial starts from the options that were set before the search, and an option that the drawn method does not
    have is left out, with a line in the log. So a space may draw everything in every trial, or ask first which method
    it is. Afterwards the options are as they were before.
    """

    _method_given: str | Method | None
    _before_search: dict[str, Any] | None = None

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.args, MixTrainingArguments):
            self._before_search = {name: getattr(self.args, name) for name in ("method", *METHOD_OPTIONS)}
        try:
            return super().hyperparameter_search(*args, **kwargs)
        finally:
            self._set(self._before_search or {})
            self._before_search = None

    def _hp_search_setup(self, trial: Any) -> None:
        before = self._before_search
        if before is None or trial is None:
            super()._hp_search_setup(trial)
            return
        self._set(before)
        super()._hp_search_setup(trial)
        drawn = self.args.method  # type: ignore[attr-defined]
        if self._method_given is not None and drawn != before["method"]:
            raise ValueError(
                f"hyperparameter_search draws method={drawn!r}, and the Trainer was given method={self._method_given}: "
                "leave that out, and set it in the arguments."
            )
        given = self._method_given or drawn or "logitmix"
        method = as_method(given)
        for name in METHOD_OPTIONS:
            if getattr(self.args, name) is not None and name not in method.options:
                logger.info("%s has no %s: this trial goes without.", given, name)
                setattr(self.args, name, None)

    def _set(self, options: dict[str, Any]) -> None:
        for name, value in options.items():
            setattr(self.args, name, value)
