"""The same tensors through several toolkits and through this suite: where the answers differ, and why.

Each toolkit takes the range of a tensor by its own rule, for four settings: made tensors in all of them, weights in
those about zero, inputs in the one with a zero point. Scale, zero point and grid are compared with the suite's. Then
both round the tensor in the toolkit's own range, and in half of it, so that about the outer half of the range is
clipped: codes, clipped share and gradients are compared. So a difference in the range is counted once, and not again
in every code.

Every difference has to belong to one of these classes, and the rule that explains it is tried: it is computed here and
has to give the toolkit's answer.

range rule    the scale or the zero point comes from another formula: other steps, a smallest scale, moved ends
narrow grid   the grid has another lowest or highest integer, such as -128 beside -127
last bit      the same formula, computed in another order: at most two units in the last place
tie rounding  codes differ by one, and only where the value lies halfway between two steps up to float rounding
masks         the gradient passes for other values, by a rule that is named
defect        an error, a value that is not finite, or an output that is not on the toolkit's own grid
unexplained   none of these; a correct comparison has none
"""
