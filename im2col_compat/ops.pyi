from im2col_compat import Op

dot: Op
l1: Op
adder: Op
l2: Op
xnor: Op
max_plus: Op
min_plus: Op
