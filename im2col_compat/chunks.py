"""How much memory tensor operations take."""

#: Bytes of extra memory, columns included, that one call may use beside its result and its gradients. What can't be cut
#: may take more: the terms of a single result, where they are more than half a million; the padded image under a single
#: block, where dilation makes that large; a gradient of a gradient; before PyTorch 1.11, functions that
#: capture tensors requiring grad.
memory_limit = 64 * 2**20
#: The same on a GPU, which small blocks don't keep busy; at most a sixteenth of its memory.
device_memory_limit = 4 * 2**30
