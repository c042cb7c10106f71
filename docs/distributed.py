"""Trains a network with an own dot product on several processes: see docs/guide.md.

    torchrun --nproc_per_node 2 docs/distributed.py                 each process has all parameters (DDP)
    torchrun --nproc_per_node 2 docs/distributed.py --shard         each has a share of them (FSDP2)
    python docs/distributed.py                                      one process

It prints the loss of each step. --save FILE: the parameters at the end.
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F

from im2col_compat import Conv2d, Op


def new_network():
    """A layer whose op has a parameter, one number a filter, and the last layer, an ordinary one."""
    torch.manual_seed(0)
    op = Op(lambda w, x, t: abs(w - t * x))
    first = Conv2d(1, 8, 3, op=op, params={"t": torch.ones(8, 1, 1, 1)})
    return torch.nn.Sequential(first, torch.nn.Flatten(), torch.nn.Linear(8 * 6 * 6, 10))


def new_batch(size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, 1, 8, 8, generator=generator), torch.randint(10, (size,), generator=generator)


def spread(network, shard):
    """The network, on all processes."""
    if not dist.is_initialized():
        return network
    if not shard:
        return torch.nn.parallel.DistributedDataParallel(network)
    from torch.distributed.fsdp import fully_shard

    fully_shard(network[0])
    fully_shard(network)
    return network


def train(network, steps, rank, processes):
    """The loss of each step, of the mean over all processes' parts of the batch."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    images, digits = (tensor[rank::processes] for tensor in new_batch())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), digits)
        loss.backward()  # the gradients are the means over all processes
        optimizer.step()
        loss = loss.detach()
        if processes > 1:
            dist.all_reduce(loss)
        yield loss.item() / processes


def whole(parameter):
    """All of a parameter, of which this process has a share."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--save")
    given = parser.parse_args()
    processes, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if processes > 1:
        dist.init_process_group("gloo")  # or "nccl", on GPUs
    network = new_network()
    for step, loss in enumerate(train(spread(network, given.shard), given.steps, rank, processes)):
        if rank == 0:
            print("step {}: loss {:.4f}".format(step + 1, loss))
    parameters = [whole(parameter).detach() for parameter in network.parameters()]
    if given.save and rank == 0:
        torch.save(parameters, given.save)
    if processes > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
