"""What im2col_compat does, in three parts.

(a) The forum's example: unfold, a matrix product and a view compute what F.conv2d computes, with every engine.
(b) Photographs go through conv2d with max and plus, with min and plus, and with a multiply and an add of our own.
(c) A small network learns handwritten digits with four different dot products, in its convolutions and in its
    fully connected layers.

    python docs/demo.py [FOLDER]     all three parts; pictures go to FOLDER, by default docs/demo
    python docs/demo.py --core       (a) and a shorter (c), without pictures, on every PyTorch and Python that
                                     im2col_compat supports; needs scikit-learn for the digits

Needs scikit-learn, which brings the photographs and the digits, and matplotlib, pillow and tqdm.
"""

from __future__ import division, print_function

import argparse
import os
import sys
import time
from collections import namedtuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# PyTorch 0.3 computes with Variables only. Since 0.4 Variable(tensor) is the tensor itself.
from torch.autograd import Variable

from im2col_compat import Conv2d, Linear, Op, available_backends, backend, conv2d, unfold, use_backend

# ---------------------------------------------------------------- (a) the forum's example


def forum_example():
    print("(a) unfold, kernels @ columns, view: the largest difference from F.conv2d, with each engine")
    torch.manual_seed(0)
    x = Variable(torch.randn(2, 3, 20, 30))
    kernels = Variable(torch.randn(8, 3, 3, 3))
    bias = Variable(torch.randn(8))
    expected = F.conv2d(x, kernels, bias, padding=1)
    for name in available_backends():
        with use_backend(name):
            columns = unfold(x, 3, padding=1)
        # torch.matmul: Python 2 has no @.
        product = torch.matmul(kernels.view(8, -1), columns)
        result = product.view(2, 8, 20, 30) + bias.view(8, 1, 1)
        print("    {:30}{:.1e}".format("unfold by " + name, difference(result, expected)))
    result = conv2d(x, kernels, bias, padding=1, op=lambda num1, num2: num1 * num2)
    print("    {:30}{:.1e}".format("conv2d with our own multiply", difference(result, expected)))


def difference(a, b):
    return float((a - b).data.abs().max())


# ---------------------------------------------------------------- (b) photographs


def mymult(num1, num2):
    return num2**num1


def myadd(num1, num2):
    return num1 * num2


def photographs(path):
    print("(b) photographs through conv2d with other multiplies and adds")
    names = ("china.jpg", "flower.jpg")
    rows = []
    for name in names:
        photo = load_photo(name)
        element = torch.zeros(1, 1, 7, 7)
        dilated = conv2d(photo, element, padding=3, op="max_plus")
        eroded = conv2d(photo, element, padding=3, op="min_plus")
        equal = is_scipys(photo, dilated, eroded)
        print("    {}: dilation and erosion equal those of scipy.ndimage: {}".format(name, equal))
        rows.append((photo, dilated, eroded, sketch(photo)))
    plot_photographs(rows, path)


def load_photo(name):
    from sklearn.datasets import load_sample_image

    rows_columns_colours = load_sample_image(name)
    # Each colour becomes an image, so that one filter serves all three.
    colours = np.ascontiguousarray(rows_columns_colours.transpose(2, 0, 1))
    return torch.from_numpy(colours).float().unsqueeze(1) / 255


def is_scipys(photo, dilated, eroded):
    from scipy import ndimage

    pixels = photo[:, 0].numpy()
    # 1, because colours aren't neighbours. Infinity, because conv2d takes no pixel from beyond the border.
    size = (1, 7, 7)
    dilation = ndimage.grey_dilation(pixels, size, mode="constant", cval=-np.inf)
    erosion = ndimage.grey_erosion(pixels, size, mode="constant", cval=np.inf)
    return np.array_equal(dilated[:, 0].numpy(), dilation) and np.array_equal(eroded[:, 0].numpy(), erosion)


def sketch(photo):
    """A drawing of the edges, made by a convolution that multiplies powers.

    It multiplies x ** w over the block, where an ordinary convolution sums w * x. With the weights of an edge
    filter the result is the brightness on one side over the brightness on the other. This ratio is the same in
    the sun and in the shade. A difference would be smaller in the shade.
    """
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    edges = torch.stack([across, across.t()]).unsqueeze(1)
    # Not from 0 on: ratios of dark pixels show only noise.
    ratios = conv2d(0.1 + 0.9 * photo, edges, op=Op(mymult, myadd))
    strength = ratios.log().pow(2).sum(1, keepdim=True).sqrt()
    return torch.exp(-2 * strength)


def plot_photographs(rows, path):
    from matplotlib import pyplot

    titles = (
        "the photograph",
        "max of w + x (dilation)",
        "min of w + x (erosion)",
        "mymult: x ** w, myadd: acc * term\n(edges as ratios of brightness)",
    )
    figure, axes = pyplot.subplots(len(rows), len(titles), figsize=(18, 6.7), layout="constrained")
    for axes_of_row, pictures in zip(axes, rows):
        for axis, picture in zip(axes_of_row, pictures):
            axis.imshow(picture[:, 0].permute(1, 2, 0).numpy())
            axis.axis("off")
    for axis, title in zip(axes[0], titles):
        axis.set_title(title)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


# ---------------------------------------------------------------- (c) a network

# Minus a distance, made smooth at zero: the closer w and x are, the larger it is.
soft_distance = lambda w, x: -torch.sqrt((w - x) ** 2 + 0.01)  # noqa: E731

#: op: of all layers but the first. first_op: of the first layer. rate: the learning rate. relu: whether ReLUs follow
#: the layers. spread: whether the weights start as far apart as the normalised inputs are.
Run = namedtuple("Run", "name op first_op rate relu spread")

# Only the ordinary dot product needs ReLUs. The others aren't linear.
RUNS = (
    Run("dot", "dot", "dot", rate=0.01, relu=True, spread=False),
    # A distance tells inputs apart only if there are weights between them.
    Run("adder", "adder", "adder", rate=0.03, relu=False, spread=True),
    # As in XNOR-Net, the first layer computes with the pixels and not with their signs.
    Run("xnor", "xnor", "dot", rate=0.01, relu=False, spread=False),
    Run("own lambda", soft_distance, soft_distance, rate=0.03, relu=False, spread=True),
)


class Net(nn.Module):
    """Two convolutions and two fully connected layers with one op.

    A normalisation stands before and after every layer. Distances need one after them, because they are far from
    zero. Signs need one before them, because the signs of inputs that are all positive tell nothing.
    """

    def __init__(self, run):
        super(Net, self).__init__()
        self.run = run
        self.layers = nn.ModuleList([
            Conv2d(1, 8, 3, padding=1, op=run.first_op),
            Conv2d(8, 24, 3, stride=2, padding=1, op=run.op),
            Linear(24 * 4 * 4, 64, op=run.op),
            Linear(64, 10, op=run.op),
        ])  # fmt: skip
        self.norm_in = nn.BatchNorm2d(1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(24), nn.BatchNorm1d(64), nn.BatchNorm1d(10)])
        if run.spread:
            for layer in self.layers:
                layer.weight.data.normal_()

    def forward(self, x):
        x = self.norm_in(x)
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms)):
            if i == 2:
                x = x.view(x.shape[0], -1)
            x = norm(layer(x))
            if self.run.relu and i < 3:
                x = F.relu(x)
        return x


Digits = namedtuple("Digits", "images labels test_images test_labels")


def load_digits(tests=450):
    from sklearn import datasets

    digits = datasets.load_digits()
    order = np.random.RandomState(0).permutation(len(digits.target))
    images = torch.from_numpy(digits.images[order]).float().unsqueeze(1)
    labels = torch.from_numpy(digits.target[order]).long()
    return Digits(images[tests:], labels[tests:], images[:tests], labels[:tests])


def epochs(run, digits, count):
    """Train a network. Yields (training loss, test accuracy) after each epoch."""
    torch.manual_seed(0)
    net = Net(run)
    optimizer = torch.optim.Adam(net.parameters(), run.rate)
    for epoch in range(count):
        for group in optimizer.param_groups:
            group["lr"] = run.rate * (1 - epoch / count)
        yield train(net, digits, optimizer), accuracy(net, digits)


def train(net, digits, optimizer):
    net.train()
    losses = []
    for batch in torch.randperm(len(digits.images)).split(64):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(Variable(digits.images[batch])), Variable(digits.labels[batch]))
        loss.backward()
        optimizer.step()
        # The sum of one element, because 0.3 has no loss.item().
        losses.append(float(loss.data.sum()))
    return sum(losses) / len(losses)


def accuracy(net, digits):
    net.eval()
    found = net(Variable(digits.test_images)).data.max(1)[1]
    return float((found == digits.test_labels).sum()) / len(digits.test_labels)


def learn(digits, count, watch=lambda steps, name: steps):
    """Train all runs. Returns their histories: {name: [(training loss, test accuracy), ...]}."""
    print("(c) a network learns {} digits; the test has {} others".format(len(digits.images), len(digits.test_images)))
    # The network is so small that threads would mostly wait for each other.
    torch.set_num_threads(1)
    histories, table = {}, []
    for run in RUNS:
        start = time.time()
        histories[run.name] = list(watch(epochs(run, digits, count), run.name))
        table.append((run, histories[run.name][-1][1], time.time() - start))
    print("    {:12}{:>14}{:>10}  {}".format("op", "test accuracy", "seconds", "engine of unfold"))
    engine = backend(Variable(digits.images))
    for run, right, seconds in table:
        print("    {:12}{:>12.1f} %{:>10.1f}  {}".format(run.name, 100 * right, seconds, engine))
    print("    All four layers have the op, except for xnor, whose first layer has the ordinary dot product.")
    print("    dot needs no columns: PyTorch's own F.conv2d and F.linear compute it.")
    return histories


def with_bar(count):
    from tqdm import tqdm

    def watch(steps, name):
        bar = tqdm(steps, "    {:12}".format(name), count, file=sys.stdout, ncols=100)
        for loss, right in bar:
            bar.set_postfix_str("loss {:.2f}, {:.1f} % right".format(loss, 100 * right), refresh=False)
            yield loss, right

    return watch


def plot_curves(histories, path):
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, history in histories.items():
        steps = range(1, len(history) + 1)
        left.plot(steps, [loss for loss, _ in history], marker=".", label=name)
        right.plot(steps, [100 * share for _, share in history], marker=".", label=name)
    left.set_title("training loss")
    right.set_title("test accuracy, %")
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    right.legend(loc="lower right", title="dot product")
    right.set_ylim(80, 100)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


# ---------------------------------------------------------------- all of it


def main():
    parser = argparse.ArgumentParser(description="im2col_compat's demo")
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("folder", nargs="?", default=os.path.join(here, "demo"), help="where pictures go")
    parser.add_argument("--core", action="store_true", help="shorter, and without pictures: also for old PyTorch")
    arguments = parser.parse_args()
    start = time.time()
    print("PyTorch {}, engines of im2col_compat: {}".format(torch.__version__, ", ".join(available_backends())))
    forum_example()
    if arguments.core:
        learn(load_digits(), 5)
    else:
        with_pictures(arguments.folder)
    print("{:.0f} seconds in all".format(time.time() - start))


def with_pictures(folder, count=12):
    import matplotlib

    matplotlib.use("Agg")
    if not os.path.isdir(folder):
        os.makedirs(folder)
    pictures, curves = (os.path.join(folder, name) for name in ("photographs.png", "learning.png"))
    photographs(pictures)
    plot_curves(learn(load_digits(), count, with_bar(count)), curves)
    print("pictures: {}, {}".format(os.path.relpath(pictures), os.path.relpath(curves)))


if __name__ == "__main__":
    main()
