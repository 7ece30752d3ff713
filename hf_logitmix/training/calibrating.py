"""A Trainer that calibrates its model on examples that it was not trained on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel, Trainer

from hf_logitmix.calibration.served import FITS, FOLDED, NAME, Scaling, calibrate, check_can_be_calibrated, config_of
from hf_logitmix.models import is_adapter, unwrap
from hf_logitmix.training.naming import facts_of

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of."""

        model: nn.Module
else:
    _Base = object

logger = logging.getLogger(__name__)


class CalibrationMixin(_Base):
    """Adds `calibrate`; training takes an older calibration out of the model, since it would not fit any more."""

    _calibrated_on: Any = None

    def calibrate(self, dataset: Any, method: str = "temperature", name: str | None = None) -> Scaling:
        """Fit a scaling on held-out examples and keep it in ``model.config.calibration``; save or push the model after.

        The examples are predicted as they are, un-mixed. `hf_logitmix.calibrated_pipeline` applies what is found,
        `hf_logitmix.fold_temperature` puts it into the weights, and so does one line of plain transformers:
        ``logits / model.config.calibration["temperature"]``.

        Args:
            dataset: with labels, class ids or soft labels; neither trained on nor reported on.
            method: "temperature", "ts_mix" or "vector": see `hf_logitmix.calibration.served.calibrate`.
            name: what the dataset is called in the config; None tells its name and split where it has them.

        Returns:
            the scaling: a temperature is a number.

        Raises:
            ValueError: for the training set itself, for data without labels, and as
                `hf_logitmix.calibration.served.calibrate`.
        """
        check_can_be_calibrated(self.model)
        if method not in FITS:
            raise ValueError(f"method={method!r} is unknown: pass one of {', '.join(FITS)}.")
        if any(is_same_data(dataset, known) for known in (self.train_dataset, getattr(self, "_train_given", None))):
            raise ValueError(
                "dataset is the training set, on which a model is surer than on anything else: pass examples that were "
                "held out of it."
            )
        logits, labels = self._predicted(dataset)
        found = calibrate(self.model, logits, labels, method, fitted_on=name or str(facts_of(dataset, len(labels))))
        self._calibrated_on = dataset
        model = unwrap(self.model)
        if is_adapter(model):
            logger.warning(
                "%s is saved as an adapter, without the config that its calibration is in: merge_and_unload() the "
                "model before it is saved, or keep the temperature beside it.",
                type(model).__name__,
            )
        elif not isinstance(model, PreTrainedModel):
            logger.warning(
                "%s is saved without the config that its calibration is in: fold_temperature(trainer.model) puts it "
                "into the weights.",
                type(model).__name__,
            )
        return found

    def _predicted(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        """The logits and labels of a dataset, whatever is made of logits for metrics."""
        own = self.compute_metrics, self.preprocess_logits_for_metrics
        self.compute_metrics = self.preprocess_logits_for_metrics = None
        try:
            predictions, labels, _ = self.predict(dataset, metric_key_prefix=NAME)
        finally:
            self.compute_metrics, self.preprocess_logits_for_metrics = own
        if predictions is None:
            raise ValueError(
                "prediction_loss_only or batch_eval_metrics keeps the logits back: leave them out of the arguments."
            )
        if labels is None:
            raise ValueError("dataset has no labels, which a calibration is fitted on: pass examples with labels.")
        return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions), np.asarray(labels)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        config = config_of(self.model) if getattr(unwrap(self.model), "config", None) is not None else None
        for name in (NAME, FOLDED):
            if getattr(config, name, None) is not None:
                delattr(config, name)
                logger.warning(
                    "config.%s was fitted to the model as it came, and is taken out: call calibrate after training.",
                    name,
                )
        return super()._inner_training_loop(*args, **kwargs)


def is_same_data(dataset: Any, other: Any) -> bool:
    """Whether two datasets are the same object, the same table of `datasets`, or the same images."""
    if dataset is None or other is None:
        return False
    same = [getattr(data, "_fingerprint", None) or id(getattr(data, "images", data)) for data in (dataset, other)]
    return dataset is other or same[0] == same[1]
