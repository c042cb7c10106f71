// Where positions and taps are. The text before this one defines DEEP, 1: images have three dimensions.
// The row of a position that is outside of all images.
#define NOWHERE (-(1 << 30))

// A tap's plane, row and column: of 10, 11 and 11 bits, or of two dimensions 16 and 16.
OP_FUNCTION int tap_plane(int tap) { return tap >> 22; }
OP_FUNCTION int tap_row(int tap) { return DEEP ? tap << 10 >> 21 : tap >> 16; }
OP_FUNCTION int tap_column(int tap) { return DEEP ? tap << 21 >> 21 : (short)tap; }
