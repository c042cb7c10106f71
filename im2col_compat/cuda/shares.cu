// A term's part in the gradient of its operands. The text before this one defines
//   SHARES    the reduction: ADD_SUM and so on
//   op_grad   g times the derivative of op_term by one operand, of (g, the arguments of op_term)
//   EXACT_EXP, FREXP, LDEXP
// PARTIAL adds it to sum. g: the gradient of a result. saved, told: of that result: the result itself for
// ADD_LOGSUMEXP; which term it is for ADD_MAX and ADD_MIN; for ADD_PROD the fraction, and what reduce.cu's ADD_OTHERS
// says, of the product of all terms but zeros. number: which term this is.
#define SAVED (SHARES == ADD_LOGSUMEXP || SHARES == ADD_PROD)
#define TOLD (SHARES == ADD_MAX || SHARES == ADD_MIN || SHARES == ADD_PROD)

#if SHARES == ADD_LOGSUMEXP
// exp(term - y). It is 1 at most, whatever was rounded.
OP_FUNCTION VALUE share(const VALUE term, const VALUE y, const int)
{
    return EXACT_EXP((term > y ? y : term) - y);
}
#elif SHARES == ADD_PROD
// The product of all others: no division by zero, and nothing that vanishes on the way.
OP_FUNCTION VALUE share(const VALUE term, const VALUE fraction, const int told)
{
    int exponent;
    const VALUE part = FREXP(term, &exponent);
    const int zeros = told & 3, power = told >> 2;
    if (term == 0)
        return zeros == 1 ? LDEXP(fraction, power) : fraction * 0;
    return zeros ? fraction / part * 0 : LDEXP(fraction / part, power - exponent);
}
#endif

#if SAVED
#define PARTIAL(sum, g, saved, told, number, ...)                                                                      \
    sum += op_grad((g) * share(op_term(__VA_ARGS__), saved, told), __VA_ARGS__)
#elif TOLD
#define PARTIAL(sum, g, saved, told, number, ...)                                                                      \
    if ((told) == (number))                                                                                            \
    sum += op_grad(g, __VA_ARGS__)
#else
#define PARTIAL(sum, g, saved, told, number, ...) sum += op_grad(g, __VA_ARGS__)
#endif
