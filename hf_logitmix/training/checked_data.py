"""Looks at the datasets of a Trainer before they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer

from hf_logitmix.training.check_data import check_dataset, check_range, keeps_labels

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of."""

        model: nn.Module
else:
    _Base = object


class CheckedDataMixin(_Base):
    """Refuses datasets that cannot be trained or evaluated on when they are passed, not at their first batch."""

    def _check_data(self) -> None:
        """The datasets that the Trainer was made with."""
        drops_columns = self.args.remove_unused_columns
        self._check("train_dataset", self.train_dataset, is_trained_on=True, drops_columns=drops_columns)
        if isinstance(self.eval_dataset, dict):
            for name, data in self.eval_dataset.items():
                self._check(f"eval_dataset {name}", data)
        else:
            self._check("eval_dataset", self.eval_dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        if eval_dataset is not None and not (isinstance(eval_dataset, str) and isinstance(self.eval_dataset, dict)):
            self._check("eval_dataset", eval_dataset)
            check_range("eval_dataset", eval_dataset, self.model, self.data_collator)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        self._check("test_dataset", test_dataset)
        check_range("test_dataset", test_dataset, self.model, self.data_collator)
        return super().get_test_dataloader(test_dataset)

    def _keeps_labels(self) -> bool:
        """Whether the labels of a batch are those of its examples, which no collator of the user's has changed."""
        return keeps_labels(self.data_collator)

    def _check(self, name: str, data: Any, **options: bool) -> None:
        check_dataset(name, data, self.model, self.data_collator, **options)
