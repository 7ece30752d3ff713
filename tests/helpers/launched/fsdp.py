"""What test_launch.py starts under torchrun: LogitMix on a model that torch's FSDP2 has sharded over two processes.

torchrun --nproc_per_node 2 -m helpers.launched.fsdp OUTPUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from helpers.data import batch_of, examples
from helpers.models import tiny_bert
from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.losses import logitmix_loss
from hf_logitmix.training.command_line import leave_together


def plain_step(model, rank: int) -> None:
    """Forward and backward of an ordinary loss."""
    model(**batch_of(examples(8)[4 * rank : 4 * rank + 4])).logits.square().sum().backward()


def step(model, rank: int) -> torch.Tensor:
    """Forward and backward of LogitMix on this process's four examples; the loss."""
    rows = examples(8)[4 * rank : 4 * rank + 4]
    plan = MixPlan(torch.tensor([1, 0, 3, 2]), torch.tensor([0.2, 0.7, 0.5, 0.9]))
    output = mixed_forward(model, batch_of(rows), plan)
    labels = torch.tensor([row["labels"] for row in rows])
    loss = logitmix_loss(output.logits, output.mixed_logits, labels, plan).total
    loss.backward()
    return loss.detach()


def gradients_over_sums(sharded, whole) -> float:
    """By what the gradients of a sharded model differ from the sums of a whole one's over processes."""
    own = torch.cat([parameter.grad.full_tensor().flatten() for parameter in sharded.parameters()])
    plain = torch.cat([parameter.grad.flatten() for parameter in whole.parameters()])
    dist.all_reduce(plain)
    share = float((own @ plain) / (plain @ plain))
    assert min(abs(share - 0.5), abs(share - 1)) < 1e-4
    torch.testing.assert_close(own, share * plain, atol=1e-5, rtol=1e-4)
    return share


def main() -> None:
    dist.init_process_group("gloo")
    rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))
    sharded, whole = tiny_bert(), tiny_bert()
    for layer in sharded.bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    plain_step(sharded, rank), plain_step(whole, rank)
    share = gradients_over_sums(sharded, whole)  # 1/2; 1 where this release of torch does not average over gloo
    sharded.zero_grad(), whole.zero_grad()
    losses = [float(step(sharded, rank)), float(step(whole, rank))]
    difference, is_sharded = 0.0, True
    for own, plain in zip(sharded.parameters(), whole.parameters(), strict=True):
        dist.all_reduce(plain.grad)
        difference = max(difference, float((own.grad.full_tensor() - share * plain.grad).abs().max()))
        is_sharded &= own.to_local().numel() < plain.numel()
    if rank == 0:
        results = {"losses": losses, "gradient difference": difference, "sharded": is_sharded}
        Path(sys.argv[1]).write_text(json.dumps(results))
    leave_together()


if __name__ == "__main__":
    main()
