"""A GPU that is not there: what a training step on the CPU would make it wait for.

Parameters, buffers and batches are said to be on the GPU, and so is all that is moved there or computed from these; it
tells a device of CUDA. What else there is, such as what a generator of the host draws, is on the CPU. Counted is what
keeps the host until the GPU has done all it was given: values that are read, results of a size that values decide, and
copies to and fro without ``non_blocking``. An operation on tensors of both sides is an error, as on a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

GPU, HOST = torch.device("cuda", 0), torch.device("cpu")

# operations whose result, or its shape, the host asks for
_READ = {
    *("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "argwhere", "bincount", "allclose"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "histogram"),
}
_INDEX = ("index", "index_put", "index_put_", "_index_put_impl_")
_COPY = ("copy_", "_to_copy")


class Gpu:
    """What is on it, told by its memory, and how often it was waited for, by what."""

    def __init__(self) -> None:
        self._memory: dict[int, StorageWeakRef] = {}
        self.waits: Counter[str] = Counter()

    def put(self, values: Any) -> None:
        """Say that tensors, those in lists and dicts among them, are on the GPU."""
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                # as long as there is a weak reference to it, no other storage gets its number
                self._memory[storage._cdata] = StorageWeakRef(storage)

    def __contains__(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata in self._memory

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """A block in which waits are counted."""
        self.waits = Counter()
        with _Operations(self), _Calls(self):
            yield self.waits


class _Operations(TorchDispatchMode):
    """Follows what is on the GPU through all operations, those of the backward pass among them."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_there = any(tensor in self.gpu for tensor in tensors)
        if is_there:
            self._count(func, args, kwargs or {}, tensors)
        result = func(*args, **(kwargs or {}))
        if is_there:
            self.gpu.put(result)
        return result

    def _count(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
        gpu, name = self.gpu, func.overloadpacket.__name__
        if name in _READ or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            gpu.waits[name] += 1
        elif name in _INDEX:
            found = [index for index in args[1] if index is not None]
            masks = [index for index in found if index.dtype in (torch.bool, torch.uint8)]
            is_filled = name != "index" and len(found) == 1 and args[2].numel() == 1
            gpu.waits["index by truth values"] += bool(masks) and not is_filled
            gpu.waits["index on the host"] += any(index not in gpu for index in found)
        elif name not in _COPY and (elsewhere := [t for t in tensors if t not in gpu and t.dim()]):
            raise RuntimeError(f"{func}: a tensor of shape {tuple(elsewhere[0].shape)} is on the CPU, others on a GPU")


class _Calls(TorchFunctionMode):
    """What code asks of a tensor that no operation shows: where it is, and to be moved."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs, first = self.gpu, dict(kwargs or {}), args[0] if args else None
        asked = getattr(func, "__self__", None)
        if asked is Tensor.device:
            return GPU if first in gpu else HOST
        if asked is Tensor.is_cuda:
            return first in gpu
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(func, args, kwargs)
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__) and first in gpu:
            gpu.waits[func.__name__] += 1
        here, kwargs_here = tree_map(_here, (args, kwargs))
        if func is F.one_hot:  # which looks at class ids on the CPU alone, if it is told how many there are
            with _disable_current_modes():
                made = func(*here, **kwargs_here)
        else:
            made = func(*here, **kwargs_here)
        if func is F.one_hot and first in gpu:
            gpu.put(made)
        elif kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            gpu.waits["copy to the GPU"] += func in (torch.tensor, torch.as_tensor) and first not in gpu
            gpu.put(made)
        return made

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        tensor, others = args[0], tree_leaves((args[1:], kwargs))
        asked = [GPU if other in self.gpu else HOST for other in others if isinstance(other, Tensor)]
        asked += [torch.device(other) for other in others if isinstance(other, (torch.device, str))]
        fixed = {Tensor.cpu: HOST, Tensor.cuda: GPU}.get(func)
        was = GPU if tensor in self.gpu else HOST
        to = fixed or (asked[0] if asked else was)
        if to.type == was.type:
            return tensor if fixed else func(*tree_map(_here, args), **tree_map(_here, kwargs))
        is_waited_for = to == HOST or not kwargs.get("non_blocking", False)
        self.gpu.waits[f"copy to the {'CPU' if to == HOST else 'GPU'}"] += is_waited_for
        with _disable_current_modes():
            made = (tensor if fixed else func(*tree_map(_here, args), **tree_map(_here, kwargs))).clone()
        if to.type == "cuda":
            self.gpu.put(made)
        return made


def _here(value: Any) -> Any:
    """A device that is there."""
    is_gpu = isinstance(value, torch.device) and value.type == "cuda"
    return HOST if is_gpu or (isinstance(value, str) and value.startswith("cuda")) else value
