/* The functions of the named ops, for one type. Expects ELEMENT, TYPED(name), and MATH(name), which is fabs or fabsf.
 * im2col_compat/ops.py has their meaning. */

#define MODE const int fused, const ELEMENT one, const ELEMENT w, const ELEMENT x
#define PARTIAL const ELEMENT g, const ELEMENT w, const ELEMENT x
#define IGNORE_MODE (void)fused, (void)one
/* Both gradients begin with the same difference: where both are wanted, it is computed once. */

INLINE ELEMENT TYPED(l1_term)(MODE) { return MATH(fabs)(DIFFERENCE(w, x)); }
/* A choice among three gradients would be made by branches. */
INLINE ELEMENT TYPED(times_sign)(const ELEMENT g, const ELEMENT d) { return g * (d > 0 ? 1 : d < 0 ? -1 : 0); }
INLINE ELEMENT TYPED(times_finite_sign)(const ELEMENT g, const ELEMENT d)
{
    return d != 0 ? MATH(copysign)(1, d) * g : 0;
}
INLINE ELEMENT TYPED(l1_grad_w)(PARTIAL) { return TYPED(times_sign)(g, w - x); }
INLINE ELEMENT TYPED(l1_grad_x)(PARTIAL) { return -TYPED(times_sign)(g, w - x); }
INLINE ELEMENT TYPED(l1_grad_w_finite)(PARTIAL) { return TYPED(times_finite_sign)(g, w - x); }
INLINE ELEMENT TYPED(l1_grad_x_finite)(PARTIAL) { return -TYPED(times_finite_sign)(g, w - x); }

INLINE ELEMENT TYPED(adder_term)(MODE) { return -MATH(fabs)(DIFFERENCE(w, x)); }
INLINE ELEMENT TYPED(adder_grad_w)(PARTIAL) { return -(g * (w - x)); }
INLINE ELEMENT TYPED(adder_grad_x)(PARTIAL)
{
    const ELEMENT d = w - x, low = d < -1 ? -1 : d;
    return g * (low > 1 ? 1 : low);
}

INLINE ELEMENT TYPED(l2_left)(MODE) { IGNORE_MODE; return w - x; }
INLINE ELEMENT TYPED(l2_right)(MODE) { IGNORE_MODE; return w - x; }
INLINE ELEMENT TYPED(l2_grad_w)(PARTIAL) { return g * (w - x) + g * (w - x); }
INLINE ELEMENT TYPED(l2_grad_x)(PARTIAL) { return -(g * (w - x) + g * (w - x)); }

INLINE ELEMENT TYPED(sign)(const ELEMENT v) { return v >= 0 ? 1 : -1; }
INLINE ELEMENT TYPED(xnor_term)(MODE) { IGNORE_MODE; return TYPED(sign)(w) * TYPED(sign)(x); }
INLINE ELEMENT TYPED(xnor_grad_w)(PARTIAL) { return g * ((MATH(fabs)(w) <= 1 ? (ELEMENT)1 : 0) * TYPED(sign)(x)); }
INLINE ELEMENT TYPED(xnor_grad_x)(PARTIAL) { return g * ((MATH(fabs)(x) <= 1 ? (ELEMENT)1 : 0) * TYPED(sign)(w)); }

INLINE ELEMENT TYPED(plus_term)(MODE) { return PLUS(w, x); }
INLINE ELEMENT TYPED(plus_grad_w)(PARTIAL) { (void)w, (void)x; return g; }
INLINE ELEMENT TYPED(plus_grad_x)(PARTIAL) { (void)w, (void)x; return g; }

#undef MODE
#undef PARTIAL
#undef IGNORE_MODE
