"""Which kernels an op gets, and what is said about it: explain, from_c, compilation and its failures."""

import functools
import os
import sys
import time
import types

import numpy as np
import pytest
from helpers.processes import run
from helpers.settings import needs_library, needs_torch
from helpers.tensors import KINDS, VARIABLES, make, some, torch, values
from helpers.threads import at_once

from im2col_compat import Op, available_backends, conv2d, linear, lowlevel, matmul, ops, use_backend
from im2col_compat.compat.arrays import NUMPY, TORCH
from im2col_compat.codegen import compile, fingerprint, kernels, template
from im2col_compat.paths import choose
from im2col_compat.terms import function as terms

ARRAYS = TORCH or NUMPY


def compiles():
    """Whether an op that no other test has can be compiled here."""
    found, _ = choose.kernels_for(Op(lambda w, x: w * x + w - x), "float64", ARRAYS)
    return found is not None


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.setenv("IM2COL_COMPAT_QUIET", "1")
    if lowlevel.missing or not compiles():
        pytest.skip("needs a C compiler")


# ---------------------------------------------------------------- explain


@needs_library
def test_explain_names_the_path_and_the_reason(compiler):
    """Built in, compiled, or tensor operations and why; with the C where there is some."""
    assert "built in" in ops.l1.explain() and "fabsf(" in ops.l1.explain() and "fabs(" in ops.l1.explain("float64")
    assert "compiled" in Op(lambda w, x: w * x * x + w).explain()
    assert torch is None or "PyTorch's own conv2d" in Op(lambda w, x: w * x * x).explain()
    assert "int32_t" in Op(lambda w, x: ~(w ^ x)).explain("int32")
    for function, reason in (
        (lambda w, x: w * x.sum(), "reduction"),
        (lambda w, x: w if w > x else x, "branch"),
        (lambda w, x: w[0], "index"),
        (lambda w, x: 1 / 0, "ZeroDivisionError"),
    ):
        text = Op(function).explain()
        assert "tensor operations" in text and reason in text, text
    assert "float16" in ops.l1.explain("float16")
    with use_backend("slices"):
        assert "slices" in ops.l1.explain()


@needs_torch
@needs_library
def test_explain_of_captured_tensors_and_dot():
    """A captured tensor is a reason; "dot" is PyTorch's."""
    slope = make("tensor", np.ones(1))
    text = Op(lambda w, x: slope * w * x).explain()
    # Old tensors refuse what stands for an operand before it is asked.
    assert "tensor operations" in text and ("captured tensor" in text or "Symbol" in text or VARIABLES)
    assert "PyTorch" in ops.dot.explain()


# ---------------------------------------------------------------- which kernels


@needs_library
def test_named_ops_are_built_in():
    """Every named op but "dot" has kernels for both floats at every instruction set; changes that don't matter keep them."""
    for name in ("l1", "adder", "l2", "xnor", "max_plus", "min_plus"):
        for dtype in ("float32", "float64"):
            found, reason = choose.kernels_for(getattr(ops, name), dtype, ARRAYS)
            assert reason is None and found.origin.startswith("built in") and found.dtype == dtype
    assert choose.kernels_for(ops.adder.replace(normalize_grad_w=0.2), "float32", ARRAYS)[0].origin.startswith(
        "built in"
    )


@needs_library
def test_instruction_sets(monkeypatch):
    """IM2COL_COMPAT_ISA lowers the instruction set, never raises it, and must be a known name."""
    monkeypatch.setenv(kernels.VARIABLE, "baseline")
    assert "baseline" in ops.l1.explain() and kernels.level() == 0
    monkeypatch.setenv(kernels.VARIABLE, "avx512")
    assert kernels.level() == lowlevel.level()
    monkeypatch.setenv(kernels.VARIABLE, "sse9")
    with pytest.raises(ValueError) as info:
        conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), op="l1")
    assert "sse9" in str(info.value) and "avx2" in str(info.value)


@pytest.mark.parametrize("kind", KINDS)
def test_captured_numbers_may_change(monkeypatch, kind):
    """A function that captures a number computes with what it is at each call, after any number of calls."""
    monkeypatch.setattr(terms, "MOST_SOURCES", 4)
    x, w = some((2, 5), seed=1), some((3, 5), seed=2)
    state = {"scale": 0.0}
    op = Op(lambda w, x: state["scale"] * w * x)
    for scale in range(terms.MOST_SOURCES + 4):
        state["scale"] = float(scale)
        found = values(linear(make(kind, x), make(kind, w), op=op))
        np.testing.assert_array_equal(found, scale * np.matmul(x, w.T))


def test_changing_numbers_stop_being_compiled(compiler, monkeypatch):
    """A function that gives other C from call to call goes to tensor operations, and says so."""
    monkeypatch.setattr(terms, "MOST_SOURCES", 4)
    state = {"count": 0}
    op, texts = Op(lambda w, x: repeated(w * x, state["count"]) + 0.4321 * w), []
    for count in range(2 * terms.MOST_SOURCES + 1):
        state["count"] = count
        texts.append(op.explain())
    assert ["from call to call" in text for text in texts] == [False] * 2 * terms.MOST_SOURCES + [True]


def repeated(value, count):
    """value + value + ...: other operations for each count."""
    return functools.reduce(lambda total, _: total + value, range(count), value)


settings_module = types.ModuleType("settings_of_test")


def imports_the_module(w, x):
    import settings_of_test

    return settings_of_test.K * w * x


def imports_the_number(w, x):
    from settings_of_test import K

    return K * w * x


READERS = {
    "module": lambda w, x: settings_module.K * w * x,
    "import module": imports_the_module,
    "import number": imports_the_number,
    "globals": lambda w, x: globals()["settings_module"].K * w * x,
    "eval": lambda w, x: eval("settings_module.K") * w * x,
    "getattr": lambda w, x: getattr(settings_module, "K") * w * x,
    "attribute of torch": lambda w, x: torch.im2col_compat_K * w * x,
    "attribute of numpy": lambda w, x: np.im2col_compat_K * w * x,
    "time": lambda w, x: clock() * w * x,
    "random": lambda w, x: np.random.rand() * w * x,
    "threads": lambda w, x: torch.get_num_threads() * w * x,
}


def clock():
    return settings_module.K


@pytest.mark.parametrize("reader", sorted(READERS))
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_read_at_each_call(monkeypatch, reader, kind):
    """A number that a function finds for itself, through a module, by its name or from PyTorch, is today's at each call."""
    if "torch" in reader + READERS[reader].__code__.co_names[0] and torch is None:
        pytest.skip("needs torch")
    monkeypatch.setitem(sys.modules, "settings_of_test", settings_module)
    x, w = some((2, 5), seed=1), some((3, 5), seed=2)
    for number in (2.0, 3.0, 5.0):
        settings_module.K = number
        monkeypatch.setattr(np, "im2col_compat_K", number, raising=False)
        monkeypatch.setattr(np.random, "rand", lambda number=number: number)
        if torch is not None:
            monkeypatch.setattr(torch, "im2col_compat_K", number, raising=False)
            monkeypatch.setattr(torch, "get_num_threads", lambda number=number: number)
        found = values(linear(make(kind, x), make(kind, w), op=Op(READERS[reader])))
        np.testing.assert_allclose(found, number * np.matmul(x, w.T), rtol=1e-5)


def draws(w, x):
    return w * x * torch.rand(1).item()


def asks_for_gradients(w, x):
    return w * x if torch.is_grad_enabled() else w + x


def test_what_is_known_to_be_arithmetic():
    """Functions of which each name is known to be arithmetic are traced once, those that use another at each call."""
    numpy = [
        lambda w, x: np.exp(-abs(w - x)) * np.pi,
        lambda w, x: np.where(w > x, helper(w, x), max(1, 2)),
        np.minimum,
    ]
    of_torch = [lambda w, x: torch.exp(-abs(w - x)), lambda w, x: torch.nn.functional.relu(w * x).clamp(min=0.5)]
    for function in numpy + (of_torch if torch is not None else []):
        assert fingerprint.of(Op(function)) is not None
    for function in (draws, asks_for_gradients, time.time, lambda w, x: np.random.power(2, 1.0) * w, READERS["time"]):
        assert fingerprint.of(Op(function)) is None


def square(value):
    return value * value


def cube(value):
    return value * value * value


def fourth_power(value):
    return value * value * value * value


def squared_distance(w, x):
    return square(w - x)


def test_calls_like_one_before(compiler, monkeypatch):
    """What a call found serves calls of the same shapes, but not once a function, a global that it asks for, the engine or
    the instruction set is another; nor for other operands."""
    kind = KINDS[-1]
    random = np.random.RandomState(3)
    x, w = random.randn(2, 3, 6, 5), random.randn(4, 3, 2, 2)
    columns = np.stack([x[:, :, i : i + 5, j : j + 4] for i in range(2) for j in range(2)], 2).reshape(2, 1, 12, 5, 4)
    differences = w.reshape(1, 4, 12, 1, 1) - columns
    op = Op(squared_distance)

    def check(op, expected, x=make(kind, x), w=make(kind, w)):
        for _ in range(3):
            np.testing.assert_allclose(values(conv2d(x, w, op=op)), expected, 1e-12)

    check(op, (differences**2).sum(2))
    for name in available_backends():
        with use_backend(name):
            check(op, (differences**2).sum(2))
    monkeypatch.setenv("IM2COL_COMPAT_ISA", "baseline")
    check(op, (differences**2).sum(2))
    monkeypatch.setitem(globals(), "square", cube)
    check(op, (differences**3).sum(2))
    monkeypatch.setattr(cube, "__code__", fourth_power.__code__)
    check(op, (differences**4).sum(2))
    check("l1", abs(differences).sum(2))
    check("max_plus", (w.reshape(1, 4, 12, 1, 1) + columns).max(2))
    spread = np.zeros((2, 3, 12, 10))
    spread[:, :, ::2, ::2] = x
    check("l1", abs(differences).sum(2), make(kind, spread)[:, :, ::2, ::2])
    if torch is not None and not VARIABLES:
        found = conv2d(make(kind, x, requires_grad=True), make(kind, w), op="l1")
        assert found.requires_grad
        np.testing.assert_allclose(values(found), abs(differences).sum(2), 1e-12)
        found = conv2d(make(kind, x, "float32"), make(kind, w, "float32"), op="l1")
        np.testing.assert_allclose(values(found), abs(differences).sum(2), 1e-5)
        with pytest.raises(RuntimeError):
            conv2d(make(kind, x), make(kind, w, "float32"), op="l1")


class Scaled(object):
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, w, x):
        return repeated(w * x, self.factor) + w

    def method(self, w, x):
        return repeated(w * x, self.factor) - w


def test_many_ops_do_not_count_as_one_that_changes(compiler, monkeypatch):
    """Functions in functools.partial, objects of one class and functions of one piece of code are ops of their own, as
    long as they live and stay what they are; one that changes, or is made anew with another number, is found as before.
    """
    monkeypatch.setattr(terms, "MOST_SOURCES", 4)
    monkeypatch.setattr(
        template, "source", lambda texts, dtype, level, part: "error: {}".format(level)
    )  # nothing to compile

    def changes(op):
        return choose.kernels_for(op, "float64", ARRAYS)[1] == "it gives other C from call to call"

    count = range(2 * terms.MOST_SOURCES + 3)
    apart = [eval("lambda scale, w, x: w * x * scale + w" + " + x" * i) for i in count]  # of code that differs
    objects = [Scaled(i + 2) for i in count]
    for kept in (
        [functools.partial(function, 2) for function in apart],
        [functools.partial(scaled, i + 2) for i in count],
        objects,
        [each.method for each in objects],
        [lambda w, x, count=i + 2: repeated(w * x, count) - 3 for i in count],
    ):
        assert not any(changes(Op(function)) for function in kept)
        del kept
    assert [changes(Op(functools.partial(scaled, i + 20))) for i in count][-1]
    assert [changes(Op(Scaled(i + 20))) for i in count][-1]
    for i in count:
        objects[0].factor = i + 35
        changed = changes(Op(objects[0]))
    assert changed


def scaled(scale, w, x):
    return repeated(w * x, scale) + x


def helper(w, x):
    return w * x


def test_functions_that_cannot_change_are_traced_once(compiler, monkeypatch):
    """Lambdas of one piece of code share their kernels without being traced again, unless they capture something."""
    calls = []
    trace = terms.symbols.trace
    monkeypatch.setattr(terms.symbols, "trace", lambda *args: calls.append(args) or trace(*args))
    for make_op, expected in (
        (lambda: Op(lambda w, x: abs(w - x) + w), 1),
        (lambda: Op(lambda w, x: helper(w, x) + w), 1),
        (lambda factor=2: Op(lambda w, x: factor * w * x), 3),
    ):
        del calls[:]
        found = [choose.kernels_for(make_op(), "float64", ARRAYS) for _ in range(3)]
        assert [reason for _, reason in found] == [None] * 3
        found = [kernels_.address for kernels_, _ in found]
        assert len(calls) == expected and len(set(found)) == 1


@needs_library
def test_threads_survive_a_full_cache(monkeypatch):
    """Threads that ask for more ops than are remembered get an answer each time, while others make the cache forget."""
    # What remembers is full at once: a bounded memo, or a dictionary of at most MOST_TRACES.
    monkeypatch.setattr(kernels, "MOST_TRACES", 2, raising=False)
    for memo in vars(kernels).values():
        if hasattr(memo, "most") and hasattr(memo, "get"):
            monkeypatch.setattr(memo, "most", 2)
    # They compile nowhere, and so at once.
    monkeypatch.setenv("CC", "/nonexistent/cc")
    chosen = [Op.from_c("w * x + 5023 * w", pad_value=i) for i in range(7)]
    # Threads take turns wherever a key is looked up.
    monkeypatch.setattr(type(chosen[0].multiply), "__hash__", lambda text: time.sleep(0) or hash(text.text))

    def work(start):
        for i in range(400):
            found, reason = choose.kernels_for(chosen[(start + 3 * i) % len(chosen)], "float64", ARRAYS)
            assert found is None and "compiler" in reason

    at_once([lambda start=start: work(start) for start in range(4)])


# ---------------------------------------------------------------- Op.from_c


@pytest.mark.parametrize(
    "arguments,error,message",
    [
        (dict(multiply=3), TypeError, "multiply.*3"),
        (dict(multiply="w * x; return 0"), ValueError, "multiply.*single C expression"),
        (dict(multiply=""), ValueError, "multiply"),
        (dict(multiply="w", add=3), TypeError, "add.*3"),
        (dict(multiply="w", add="acc * term", identity="one"), ValueError, "identity.*one"),
        (dict(multiply="w", grad_w="x"), ValueError, "grad_w.*grad_x"),
        (dict(multiply="w", identity="0"), ValueError, "identity"),
        (dict(multiply="w / (0)"), ValueError, "multiply.*divides by 0"),
        (dict(multiply="w", add="acc % 0x0L + term"), ValueError, "add.*divides by 0"),
        (dict(multiply="w %: x"), ValueError, "multiply.*%:"),
        (dict(multiply="w / x)"), ValueError, "multiply.*brackets"),
    ],
)
def test_wrong_c(arguments, error, message):
    """from_c checks its arguments and names the wrong one."""
    import re

    with pytest.raises(error) as info:
        Op.from_c(**arguments)
    assert re.search(message, str(info.value)), str(info.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_from_c_is_what_it_says(kind, dtype, compiler):
    """C expressions compute what the same functions in Python do, sums, maxima and own adds, in every dtype."""
    x, w = (make(kind, some(shape, dtype, seed=i), dtype) for i, shape in enumerate([(2, 3, 6, 5), (4, 3, 2, 3)]))
    for of_c, of_python in (
        (Op.from_c("w * x + w"), Op(lambda w, x: w * x + w)),
        (Op.from_c("w * x", add="acc + term", identity="0"), Op(lambda w, x: w * x)),
        (Op.from_c("w - x", add="max", pad_value=3), Op(lambda w, x: w - x, "max", pad_value=3)),
        (
            Op.from_c("w * x", add="2 * acc + term", identity="1"),
            Op(lambda w, x: w * x, lambda acc, term: 2 * acc + term, identity=1),
        ),
        (Op.from_c("w - x", add="term - acc"), Op(lambda w, x: w - x, lambda acc, term: term - acc)),
    ):
        found = conv2d(x, w, padding=1, op=of_c)
        with use_backend("slices"):
            expected = conv2d(x, w, padding=1, op=of_python)
        np.testing.assert_array_equal(values(found), values(expected))


def test_a_compiler_of_old_c(tmpdir, compiler):
    """C that is wrong leaves a compiler that takes C89 as it is: later ops are compiled."""
    if compile.executable("gcc") is None:
        pytest.skip("needs gcc")
    code = """
from im2col_compat import Op
assert "tensor operations" in Op.from_c("w * (x").explain("float32")
assert "C kernels" in Op.from_c("w * x + w").explain("float32")
"""
    run(code, CC="gcc -std=gnu89", IM2COL_COMPAT_CACHE=str(tmpdir), IM2COL_COMPAT_QUIET="1")


DIVIDING = """
import numpy as np
from im2col_compat import Op, conv2d, linear, matmul

for dtype in ("int8", "int16", "int32", "int64", "uint8"):
    w, x = (np.array(numbers, dtype) for numbers in ([[9, 7, 100], [5, 1, 8]], [[2, 3, 7]] * 5))
    if dtype != "uint8":
        w[0], x[0] = -w[0], -x[0]
    a, b = np.float64(w)[None], np.float64(x)[:, None]
    for text, expected in (
        ("w / x", np.trunc(a / b)),
        ("w % (x)", np.fmod(a, b)),
        ("x + w / -(x) * 3 - (int) w % x", b + np.trunc(a / -b) * 3 - np.fmod(a, b)),
        ("x > 2 ? w / (x - 2) : 0", np.where(b > 2, np.trunc(a / np.where(b > 2, b - 2, 1)), 0)),
    ):
        expected = expected.astype("int64").astype(dtype).sum(-1, dtype="int64")
        assert (linear(x, w, op=Op.from_c(text)) == expected).all(), text
        assert (matmul(w, x.T, op=Op.from_c(text)) == expected.T).all(), text
    image = np.ones((1, 1, 3, 3), dtype)
    for add in ("sum", "max"):
        left_out = conv2d(image, image, padding=1, op=Op.from_c("w / x", add, pad_value=None))
        assert left_out.max() == (9 if add == "sum" else 1)
    for text in ("w / x", "w % x"):
        try:
            conv2d(image, image, padding=1, op=Op.from_c(text))
        except RuntimeError as error:
            assert "ZeroDivisionError" in str(error)
        else:
            raise AssertionError(text)
    if dtype in ("int32", "int64"):
        least, one = np.array([[np.iinfo(dtype).min]], dtype), np.array([[-1]], dtype)
        assert matmul(least, one, op=Op.from_c("w / x", "max")) == least
        assert matmul(least, one, op=Op.from_c("w % x", "max")) == 0
floats = np.float32([[1, -2, 0]])
assert (matmul(floats.T, floats, op=Op.from_c("w / (x * x + 1)")) == floats.T / (floats**2 + 1)).all()
assert matmul(floats[:, :1], floats[:, 2:], op=Op.from_c("w / x"))[0, 0] == np.inf
"""


def test_integers_are_divided(compiler):
    """Quotients of integers are C's. One by zero is an error, as in PyTorch, and the least integer by -1 wraps; neither
    ends the process, and operands that aren't there divide nothing."""
    run(DIVIDING)


@needs_torch
def test_gradients_of_c(compiler):
    """grad_w and grad_x are the gradients; without them, and in the second derivative, there is an error that says so."""
    x, w = (
        make("tensor", some(shape, seed=i), requires_grad=True) for i, shape in enumerate([(2, 3, 6, 5), (4, 3, 2, 3)])
    )
    op = Op.from_c("fabs(w - x)", grad_w="(w > x) - (w < x)", grad_x="(w < x) - (w > x)")
    found = torch.autograd.grad([conv2d(x, w, op=op).sum()], [x, w])
    expected = torch.autograd.grad([conv2d(x, w, op="l1").sum()], [x, w])
    for ours, theirs in zip(found, expected):
        np.testing.assert_array_equal(values(ours), values(theirs))
    with pytest.raises(RuntimeError) as info:
        conv2d(x, w, op=Op.from_c("w * x")).sum().backward()
    assert "grad_w" in str(info.value)


def test_c_that_cannot_run(compiler):
    """What doesn't compile gives the compiler's message; where no kernels serve, the error says what they need."""
    x = np.ones((1, 1, 3, 3))
    with pytest.raises(RuntimeError) as info:
        conv2d(x, x, op=Op.from_c("nonesuch(w)"))
    assert "nonesuch" in str(info.value) and "error" in str(info.value)
    with pytest.raises(RuntimeError) as info:
        conv2d(x.astype("complex128"), x.astype("complex128"), op=Op.from_c("w * x"))
    assert "complex128" in str(info.value)
    with use_backend("slices"):
        with pytest.raises(RuntimeError) as info:
            matmul(x[0, 0], x[0, 0], op=Op.from_c("w * x"))
        assert "engine" in str(info.value)


# ---------------------------------------------------------------- where compiling fails, and where it has been done

CALL = """
import warnings
import numpy as np
from im2col_compat import conv2d
x = np.arange(32.0).reshape(1, 2, 4, 4)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        y = conv2d(x, x[:, :, :2, :2], op=lambda w, x: w * x - 17 * w)
print(float(y.sum()))
print([str(warning.message) for warning in caught])
"""


@needs_library
def test_without_a_compiler(tmpdir):
    """No compiler: the same result by tensor operations, and one warning that says why."""
    expected = run(CALL, IM2COL_COMPAT_BACKEND="slices")[0].splitlines()[0]
    value, caught = run(CALL, CC="/nonexistent/cc", IM2COL_COMPAT_CACHE=str(tmpdir))[0].splitlines()
    assert value == expected
    assert caught.count("im2col_compat") == 1 and "no C compiler" in caught


@pytest.fixture
def compiler_that(compiler, tmpdir, monkeypatch):
    """Puts a program before the compiler that does something first. Returns a function that lists its calls."""
    if os.name != "posix":
        pytest.skip("needs a shell")
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", str(tmpdir.join("cache")))
    real, script, log = compile.command()[0], tmpdir.join("cc"), tmpdir.join("log")

    def put(first):
        script.write("#!/bin/sh\necho \"$*\" >> '{}'\n{}\nexec '{}' \"$@\"\n".format(log, first, real))
        os.chmod(str(script), 0o755)
        log.write("")
        monkeypatch.setenv("CC", str(script))
        return lambda: log.read().splitlines()

    return put


def reason_for(text):
    return choose.kernels_for(Op.from_c(text), "float64", ARRAYS)[1]


def test_a_compiler_that_fails_is_left_alone(compiler_that):
    """One that compiles nothing isn't tried for lower instruction sets, nor for other ops."""
    calls = compiler_that("echo no licence; exit 1")
    assert reason_for("w * x + 5413 * w") == reason_for("w * x + 5417 * w") == "cc failed: no licence"
    assert len(calls()) == 3  # for the op, and for next to nothing, here and in another directory


def test_a_compiler_that_hangs_is_left_alone(compiler_that, monkeypatch):
    """One that doesn't end blocks as long as it may once, and not for each instruction set, nor for other ops."""
    monkeypatch.setattr(compile, "LIMIT", 1)
    calls, started = compiler_that("sleep 60"), time.time()
    assert reason_for("w * x + 5419 * w") == reason_for("w * x + 5431 * w") == "cc was cut off after 1 s"
    assert len(calls()) == 1 and time.time() - started < 3


def test_a_text_that_does_not_compile_is_tried_once(compiler_that):
    """No instruction set helps an op whose C is wrong; other ops are compiled."""
    calls = compiler_that("")
    assert "nonesuch" in reason_for("w * x + nonesuch(x)")
    assert len(calls()) == 3  # for the op, and for next to nothing, without flags and with them
    assert "nonesuch" in reason_for("w * x - nonesuch(x)")
    assert len(calls()) == 5  # with next to nothing without flags, each time
    assert reason_for("w * x + 5437 * w") is None


def test_an_instruction_set_that_the_compiler_does_not_know(compiler_that, monkeypatch):
    """The next lower one is used, and the compiler isn't asked again."""
    if lowlevel.level() < 1:
        pytest.skip("needs AVX2")
    monkeypatch.setenv("IM2COL_COMPAT_ISA", "avx2")
    calls = compiler_that("case \"$*\" in *-mavx2*) echo 'error: unknown'; exit 1;; esac")
    for text, unknown in (("w * x + 5441 * w", 2), ("w * x + 5443 * w", 2)):
        found, reason = choose.kernels_for(Op.from_c(text), "float64", ARRAYS)
        assert reason is None and found.origin == "compiled, baseline"
        assert sum("-mavx2" in call for call in calls()) == unknown


def test_a_library_that_was_just_removed(compiler_that, monkeypatch):
    """Where another process removes a library between the check and the load, it is compiled again."""
    library, removed = compile.library, []

    def removes(*arguments):
        path = library(*arguments)
        if not removed:
            os.remove(path)
            removed.append(path)
        return path

    compiler_that("")
    monkeypatch.setattr(compile, "library", removes)
    assert reason_for("w * x + 5449 * w") is None and os.path.exists(removed[0])


def test_a_second_process_compiles_nothing(compiler, tmpdir):
    """Compiling is announced, once; another process takes the result from the cache, in silence."""
    cache = dict(IM2COL_COMPAT_CACHE=str(tmpdir), IM2COL_COMPAT_QUIET="0")
    first, announced = run(CALL, **cache)
    assert announced.count("compiled") == 1
    second, silence = run(CALL, **cache)
    assert second == first and "compiled" not in silence and first.splitlines()[1] == "[]"


FEW = {
    "l1": (lambda w, x: abs(w - x).sum(-1), lambda w, x: np.sign(w - x)),
    "adder": (lambda w, x: -abs(w - x).sum(-1), lambda w, x: x - w),
    "max_plus": (lambda w, x: (w + x).max(-1), None),
    "min_plus": (lambda w, x: (w + x).min(-1), None),
}


@pytest.mark.parametrize("rows, taps, filters", [(1, 8, 3), (1, 515, 70), (2, 100, 5), (7, 65, 21), (13, 250, 66)])
@pytest.mark.parametrize("op", sorted(FEW))
def test_linear_of_few_rows(op, rows, taps, filters):
    """Whole vectors of taps or not, whole tiles of filters or not, weights that lie along taps or along filters."""
    pick = np.random.RandomState(rows)
    for dtype, tolerance in (("float32", 2e-6), ("float64", 1e-14)):
        x, w = pick.randn(rows, taps).astype(dtype), pick.randn(filters, taps).astype(dtype)
        expected = FEW[op][0](w[None].astype("float64"), x[:, None].astype("float64"))
        found = linear(x, w, op=op)
        assert abs(found - expected).max() <= tolerance * abs(expected).max()
        rtol = 0 if lowlevel.missing is None else 1e-5  # NumPy sums in the order in which elements lie
        np.testing.assert_allclose(linear(np.asfortranarray(x), np.asfortranarray(w), op=op), found, rtol=rtol)
        w[0, -1] = np.nan
        assert np.isnan(linear(x, w, op=op)[:, 0]).all() and not np.isnan(linear(x, w, op=op)[:, 1:]).any()


@needs_torch
@pytest.mark.parametrize("rows, taps, filters", [(1, 8, 3), (1, 515, 300), (7, 65, 21), (13, 250, 66)])
def test_gradients_of_few_rows(rows, taps, filters):
    pick = np.random.RandomState(taps)
    x, w, g = (pick.randn(*shape).astype("float32") for shape in ((rows, taps), (filters, taps), (rows, filters)))
    differences = np.sign(w[None].astype("float64") - x[:, None])
    for transposes in (False, True):
        x_, w_ = (make("torch", np.asfortranarray(a) if transposes else a) for a in (x, w))
        x_.requires_grad, w_.requires_grad = True, True
        linear(x_, w_, op="l1").backward(torch.from_numpy(g))
        for found, sums in (
            (w_.grad, (g[:, :, None] * differences).sum(0)),
            (x_.grad, -(g[:, :, None] * differences).sum(1)),
        ):
            assert abs(values(found) - sums).max() <= 2e-6 * abs(sums).max()
