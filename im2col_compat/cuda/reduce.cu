// How the terms of one result become one. The text before this one defines
//   ADDS        ADD_SUM, ADD_MAX, ADD_MIN, ADD_PROD, ADD_LOGSUMEXP; ADD_FOLD, which calls op_add(acc, term);
//               ADD_OTHERS, what gradients of a product need, see shares.cu
//   SUM         the type of sums
//   START       what ADD_FOLD starts from: if STARTS, else from the first term
//   LEAST       what no maximum is less than, or what no minimum exceeds
//   EXP(v) LOG(v) FREXP(v, at)   for v <= 0; for v >= 1; frexp
//   LEFT_OUT    1: there may be no term
//   ARG         1: keep which term gave a maximum or minimum, the first of several; -1 if there was none. Of
//               ADD_OTHERS: 4 times the exponent of the product, plus how many terms were zero, 2 for more
#define ADD_SUM 0
#define ADD_MAX 1
#define ADD_MIN 2
#define ADD_PROD 3
#define ADD_LOGSUMEXP 4
#define ADD_FOLD 5
#define ADD_OTHERS 6

struct Acc {
    SUM sum;
#if ADDS == ADD_LOGSUMEXP
    SUM most; // sum is that of exp(term - most)
#endif
#if ARG
    int at;
#endif
};

OP_FUNCTION Acc acc_start()
{
    Acc acc;
#if ADDS == ADD_SUM
    acc.sum = 0;
#elif ADDS == ADD_PROD || ADDS == ADD_OTHERS
    acc.sum = 1;
#elif ADDS == ADD_LOGSUMEXP
    acc.sum = 0, acc.most = -INFINITY;
#elif ADDS == ADD_FOLD
    acc.sum = START;
#else
    acc.sum = LEAST;
#endif
#if ARG
    acc.at = ADDS == ADD_OTHERS ? 0 : -1;
#endif
    return acc;
}

// k: which of all terms it is.
OP_FUNCTION void acc_add(Acc &acc, const SUM term, const int k)
{
#if ADDS == ADD_OTHERS
    int exponent;
    const SUM fraction = FREXP(term, &exponent), product = acc.sum * fraction;
    const bool small = product < (SUM)0.5 && product > (SUM)-0.5;
    if (term == 0)
        acc.at += (acc.at & 3) < 2;
    else
        acc.sum = small ? product * 2 : product, acc.at += 4 * (exponent - small);
#elif ARG
    // A better one, or the first NaN; or the first of all: where no term is left out, acc_at() finds that.
    const bool better = ADDS == ADD_MAX ? !(term <= acc.sum) : !(term >= acc.sum);
    const bool taken = (better & (acc.sum == acc.sum)) | (LEFT_OUT && acc.at < 0);
    acc.sum = taken ? term : acc.sum, acc.at = taken ? k : acc.at;
#elif ADDS == ADD_SUM
    acc.sum += term;
#elif ADDS == ADD_MAX
    acc.sum = greater(acc.sum, term);
#elif ADDS == ADD_MIN
    acc.sum = lesser(acc.sum, term);
#elif ADDS == ADD_PROD
    acc.sum *= term;
#elif ADDS == ADD_FOLD
    acc.sum = STARTS || k ? op_add(acc.sum, term) : term;
#else
    // One exponential a term: of the lesser of the two, measured by the greater. Infinity less infinity would be NaN.
    const SUM above = term == acc.most ? 0 : term - acc.most;
    const SUM less = EXP(above > 0 ? -above : above);
    acc.sum = above > 0 ? acc.sum * less + 1 : acc.sum + less;
    acc.most = above > 0 ? term : acc.most;
#endif
}

#if ARG
// first: the first k.
OP_FUNCTION int acc_at(const Acc &acc, const int first)
{
    return ADDS != ADD_OTHERS && !LEFT_OUT && acc.at < 0 ? first : acc.at;
}
#endif

OP_FUNCTION SUM acc_result(const Acc &acc)
{
#if ADDS == ADD_LOGSUMEXP
    return acc.most + LOG(acc.sum);
#else
    return acc.sum;
#endif
}
