"""How far the functions of ffi/dot_functions.h are from exact results, in units in the last place, by a program in C.

Floats are measured against the C library's functions of doubles, doubles against those of long doubles.
"""

import collections
import os
import subprocess

from im2col_compat import lowlevel
from im2col_compat.codegen import compile, functions, template

#: type: wider type, suffix of the wider functions, digits of the mantissa, exponent of the least unit
TYPES = {"float": ("double", "", 24, -149, "uint32_t"), "double": ("long double", "l", 53, -1074, "uint64_t")}
#: The inlined functions, with the exact value in terms of wider functions F(name).
EXACT = collections.OrderedDict((name, "F({})(x)".format(name)) for name in (
    "exp", "exp2", "expm1", "log", "log2", "log1p", "tanh", "erf", "sin", "cos"))  # fmt: skip
EXACT["sigmoid"] = "(x < 0 ? F(exp)(x) / (1 + F(exp)(x)) : 1 / (1 + F(exp)(-x)))"
EXACT["exp_below"] = "F(exp)(x)"
PAIRS = ("pow", "atan2", "hypot")
EXACT.update((name, "F({})(x, y)".format(name)) for name in PAIRS)
#: Absolute values up to which sin and cos are inlined.
NEAR = {"float": functions.sin.near["float32"], "double": functions.sin.near["float64"]}

_PROGRAM = r"""
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef TYPE T;
typedef WIDE W;
static uint64_t state = 88172645463325252u;
static uint64_t any(void) { return state ^= state << 13, state ^= state >> 7, state ^= state << 17; }
static T of(BITS bits) { T v; memcpy(&v, &bits, sizeof v); return v; }

static W exact(T x_, T y_) { const W x = x_, y = y_; (void)y; return EXACT; }

/* The error in units; -1 where the result isn't what it must be. */
static double error(T found, W true_)
{
    const T near = (T)true_;
    const W most = ldexp(1, sizeof(T) == 4 ? 128 : 1023) * (sizeof(T) == 4 ? 1 : (W)2);
    int exponent;

    if (near != near || found != found)
        return near != near && found != found ? 0 : -1;
    if (near == 0 && found == 0)
        return !signbit(near) == !signbit(found) ? 0 : -1;
    if (isinf(found))
        return (true_ < 0) == (found < 0) && fabs((double)(true_ / most)) > 1 - 4 * ldexp(1, -DIGITS) ? 0 : -1;
    if (isinf(true_))
        return -1;
    (void)frexp((double)near, &exponent);
    exponent = exponent - DIGITS < LEAST || near == 0 ? LEAST : exponent - DIGITS;
    return fabs((double)((found - true_) / ldexp(1, exponent)));
}

#define SIZE 1024
static T xs[SIZE], ys[SIZE], found[SIZE];
static void compute(void) { for (int i = 0; i < SIZE; i++) found[i] = CALL; }

static const T special[] = {0, -0.0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 1.5, -2.5, 10, -10, 100, -100, 1e5, -1e5, INFINITY,
    -INFINITY, NAN, LEAST_NORMAL, -LEAST_NORMAL, LEAST_NORMAL / 8, -LEAST_NORMAL / 8, GREATEST, -GREATEST, 1e-30, -1e30,
    16777215, -16777215, 16777216, -16777217, 1.0000001, 0.9999999, -0.75};

int main(int count, char **arguments)
{
    const uint64_t many = strtoull(arguments[1], 0, 10), step = strtoull(arguments[2], 0, 10);
    const uint64_t specials = sizeof special / sizeof *special;
    double worst = 0, bound = atof(arguments[3]), most = atof(arguments[4]);
    T x_at = 0, y_at = 0;
    uint64_t wrong = 0, n, next = 0;

    (void)count;
    for (n = 0; n < many;) {
        int i;
        for (i = 0; i < SIZE; i++, n++) {
            const uint64_t bits = any();
            const int kind = bits >> 40 & 3;
            if (n < specials * specials && (PAIR || n < specials))
                xs[i] = special[n % specials], ys[i] = special[n / specials];
            else if (step)
                xs[i] = of((BITS)next), next += step;
            else if (kind == 0)
                xs[i] = of((BITS)bits), ys[i] = of((BITS)any());
            else {
                /* Of moderate exponents; the second such that powers are finite. */
                xs[i] = (T)ldexp((double)(int64_t)any() * 0x1p-63, (int)(bits % 41) - 20);
                ys[i] = (T)ldexp((double)(int64_t)any() * 0x1p-63, (int)(bits / 64 % 21) - 10);
                if (kind == 1)
                    xs[i] = (T)(1 + (double)xs[i] * 0x1p-20), ys[i] = (T)(ys[i] * 0x1p10);
                if (kind == 2)
                    ys[i] = (T)((int)(bits >> 8 & 127) - 64);
            }
        }
        compute();
        for (i = 0; i < SIZE; i++) {
            double e;
            if (fabs((double)xs[i]) > bound || (double)xs[i] > most)
                continue;
            e = error(found[i], exact(xs[i], ys[i]));
            if (e < 0 && !wrong++)
                fprintf(stderr, "wrong at %a %a: %a, not %a\n", (double)xs[i], (double)ys[i], (double)found[i],
                        (double)exact(xs[i], ys[i]));
            if (e > worst)
                worst = e, x_at = xs[i], y_at = ys[i];
        }
    }
    printf("%.4f %llu %a %a\n", worst, (unsigned long long)wrong, (double)x_at, (double)y_at);
    return 0;
}
"""


def measure(directory, name, kind, level, many, step=0, command=None):
    """(the greatest error in units, how many results are none, x, y) of a function of a type in an instruction set.

    many: of how many numbers; step: for one number, that between the bits of one and the next. By default they are
    random.
    """
    wide, end, digits, least, bits = TYPES[kind]
    pair = name in PAIRS
    defines = [
        ("SUM", kind), ("TYPE", kind), ("WIDE", wide), ("BITS", bits), ("DIGITS", digits), ("LEAST", least),
        ("F(name)", "name" + ("##" + end if end else "")), ("LEVEL", level), ("EXACT", EXACT[name]), ("PAIR", int(pair)),
        ("CALL", "{}_{}({})".format(name, kind, "xs[i], ys[i]" if pair else "xs[i]")),
        ("LEAST_NORMAL", "0x1p-126f" if kind == "float" else "0x1p-1022"),
        ("GREATEST", "__FLT_MAX__" if kind == "float" else "__DBL_MAX__"),
    ]  # fmt: skip
    lines = ["#include <math.h>", "#include <stdint.h>"] + ["#define {} {}".format(*define) for define in defines]
    path = os.path.join(str(directory), "{}_{}_{}".format(name, kind, level))
    with open(path + ".c", "w") as stream:
        stream.write("\n".join(lines + [lowlevel.template(0), _PROGRAM]))
    words = list(command or compile.command()) + [flag for flag in template.flags(level) if "visibility" not in flag]
    subprocess.check_call(words + ["-o", path, path + ".c", "-lm"])
    bound = NEAR[kind] if name in ("sin", "cos") else float("inf")
    words = [path, str(many), str(step), repr(bound), "0" if name == "exp_below" else "inf"]
    output = subprocess.check_output(words, universal_newlines=True).split()
    return float(output[0]), int(output[1]), output[2], output[3]


def most(name):
    """Units that a function may be wrong by."""
    return 4 if name == "pow" else 2


def assembly(directory, kind, level):
    """objdump's text of a loop over lanes for each of the functions, `loop_exp` and so on."""
    loops = [
        "void loop_{0}(const {1} *restrict x, const {1} *restrict y, {1} *restrict out);\n"
        "void loop_{0}(const {1} *restrict x, const {1} *restrict y, {1} *restrict out)\n"
        "{{ (void)y; for (int j = 0; j < 64; j++) out[j] = {0}_{1}({2}); }}\n".format(
            name, kind, "x[j], y[j]" if name in PAIRS else "x[j]"
        )
        for name in EXACT
    ]
    lines = ["#include <math.h>", "#include <stdint.h>", "#define SUM " + kind, "#define LEVEL {}".format(level)]
    return objects(directory, "\n".join(lines + [lowlevel.template(0)] + loops), level)


def objects(directory, source, level):
    """objdump's text of C source, for an instruction set."""
    path = os.path.join(str(directory), "source")
    with open(path + ".c", "w") as stream:
        stream.write(source)
    words = list(compile.command()) + [flag for flag in template.flags(level) if "visibility" not in flag]
    subprocess.check_call(words + ["-c", "-o", path + ".o", path + ".c"])
    return subprocess.check_output(["objdump", "-d", "--no-show-raw-insn", path + ".o"], universal_newlines=True)


def levels():
    """The instruction sets that this machine has."""
    return range(lowlevel.level() + 1) if lowlevel.missing is None else (0,)
