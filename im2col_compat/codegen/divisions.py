"""C expressions in which no division of integers ends the process: each goes through a function that looks first."""

import re

_TOKEN = re.compile(
    r"\s+|/\*.*?\*/|(?P<token>(?:0[xX][\da-fA-F]+|\.?\d(?:[eEpP][+-]|[\w.])*)\w*|[A-Za-z_]\w*|<%|%>|<:|:>|%:"
    r"|<<=?|>>=?|[-+*/%&|^!=<>]=|\+\+|--|->|&&|\|\||.)",
    re.DOTALL,
)
_TYPES = re.compile(
    r"(?:const|volatile|signed|unsigned|_Bool|bool|char|short|int|long|float|double|size_t|u?int\w*_t|\*)+$"
)
_ZERO = re.compile(r"(?:0[xX]0+|0[bB]0+|0+)[uUlL]*$")
_LITERAL = re.compile(r"(?:0[xX][\da-fA-F]+|0[bB][01]+|\d+)[uUlL]*$")
_CLOSING = {"(": ")", "[": "]"}

#: What guarded() needs around its functions. A type is known by what it makes of 0.5 and of -1. A quotient by 0 is 0 and
#: counted; that of the least integer and -1 wraps.
SUPPORT = """static uint32_t divided_by_zero;
#define WHOLE(name, type, none)                                                          \\
    static inline __attribute__((always_inline)) type name##quotient(type a, type b)     \\
    {                                                                                    \\
        if (b == 0)                                                                      \\
            __atomic_fetch_add(&divided_by_zero, 1, __ATOMIC_RELAXED);                   \\
        return b == 0 ? 0 : b == (none) ? (type)(0 - (uint64_t)a) : a / b;               \\
    }                                                                                    \\
    static inline __attribute__((always_inline)) type name##rest(type a, type b)         \\
    {                                                                                    \\
        if (b == 0)                                                                      \\
            __atomic_fetch_add(&divided_by_zero, 1, __ATOMIC_RELAXED);                   \\
        return b == 0 || b == (none) ? 0 : a % b;                                        \\
    }
WHOLE(signed_, int64_t, -1)
WHOLE(narrow_, int32_t, -1)
#undef WHOLE
static inline uint64_t unsigned_quotient(uint64_t a, uint64_t b)
{
    if (b == 0)
        __atomic_fetch_add(&divided_by_zero, 1, __ATOMIC_RELAXED);
    return b == 0 ? 0 : a / b;
}
static inline uint64_t unsigned_rest(uint64_t a, uint64_t b)
{
    if (b == 0)
        __atomic_fetch_add(&divided_by_zero, 1, __ATOMIC_RELAXED);
    return b == 0 ? 0 : a % b;
}
#define OF(type, function, a, b)                                                         \\
    ((type)-1 > 0 ? (type)unsigned_##function((uint64_t)(a), (uint64_t)(b))              \\
     : sizeof(type) > 4 ? (type)signed_##function((int64_t)(a), (int64_t)(b))            \\
                        : (type)narrow_##function((int32_t)(a), (int32_t)(b)))
#define TYPE(a, b) __typeof__((a) + (b))
#define QUOTIENT(a, b) ((TYPE(a, b))((TYPE(a, b))0.5 != 0 ? (a) / (b) : OF(TYPE(a, b), quotient, a, b)))
#define REST(a, b) OF(TYPE(a, b), rest, a, b)
__attribute__((visibility("default"))) uint32_t im2col_compat_divided_by_zero(void);
uint32_t im2col_compat_divided_by_zero(void) { return __atomic_load_n(&divided_by_zero, __ATOMIC_RELAXED); }
"""


def guarded(text):
    """The text of a C expression with QUOTIENT(a, b) and REST(a, b) in place of divisions, except by literals.

    ValueError, the reason, for a division by a literal 0, and for what isn't an expression.
    """
    if "/" not in text and "%" not in text:
        return text
    tokens = [match.group("token") for match in _TOKEN.finditer(text) if match.group("token")]
    for token in tokens:
        if token in ("/=", "%=", "<%", "%>", "%:", "<:", ":>"):
            raise ValueError("it has {}".format(token))
    found, rest = _group(tokens, None)
    if rest:
        raise ValueError("its brackets don't match")
    return found


def _group(tokens, closing):
    """(text, tokens that are left) of operands and operators up to a closing bracket."""
    parts = []
    while tokens and tokens[0] != closing:
        if tokens[0] in (")", "]"):
            raise ValueError("its brackets don't match")
        product, tokens = _operand(tokens)
        while tokens and tokens[0] in ("*", "/", "%"):
            sign = tokens[0]
            operand, tokens = _operand(tokens[1:])
            product = _product(product, sign, operand)
        parts.append(product)
        if tokens and tokens[0] != closing:
            parts.append(tokens[0])
            if tokens[0] in (")", "]"):
                raise ValueError("its brackets don't match")
            tokens = tokens[1:]
    if closing is not None:
        if not tokens:
            raise ValueError("its brackets don't match")
        tokens = tokens[1:]
    return " ".join(part for part in parts if part), tokens


def _product(a, sign, b):
    plain = b
    while plain.startswith("(") and plain.endswith(")"):
        plain = plain[1:-1].strip()
    if sign != "*" and _ZERO.match(plain):
        raise ValueError("it divides by 0")
    if sign == "*" or _LITERAL.match(plain):
        return "{} {} {}".format(a, sign, b)
    return "{}({}, {})".format("QUOTIENT" if sign == "/" else "REST", _one_argument(a), _one_argument(b))


def _one_argument(text):
    """A macro's argument: in brackets where it has a comma outside of round ones."""
    return "({})".format(text) if "," in text else text


def _operand(tokens):
    """(text, tokens that are left) of an operand with the signs, casts, calls and indices around it."""
    parts = []
    while tokens:
        token = tokens[0]
        if token in ("+", "-", "!", "~", "*", "&", "++", "--", "sizeof", "_Alignof"):
            parts.append(token)
            tokens = tokens[1:]
            continue
        if token == "(":
            inner, tokens = _group(tokens[1:], ")")
            parts.append("({})".format(inner))
            if _TYPES.match(inner.replace(" ", "")) and (tokens and re.match(r"[\w.(+~!&*-]", tokens[0])):
                continue  # a cast
        elif re.match(r"[\w.]", token):
            parts.append(token)
            tokens = tokens[1:]
        break
    while tokens and tokens[0] in ("(", "[", ".", "->", "++", "--"):
        token = tokens[0]
        if token in _CLOSING:
            inner, tokens = _group(tokens[1:], _CLOSING[token])
            parts.append("{}{}{}".format(token, inner, _CLOSING[token]))
        else:
            parts.append("".join(tokens[: 1 if token in ("++", "--") else 2]))
            tokens = tokens[1 if token in ("++", "--") else 2 :]
    return " ".join(parts), tokens
