
// A piece of work over a range of integers, of 64 bits.
struct Piece {
    first_low: u32,
    first_high: u32,
    count: u32,
    // Whatever the program wants to know besides, such as where the piece's results go.
    place: u32,
}

// Low and high word of the piece's integer at this place.
fn integer_of(piece: Piece, index: u32) -> vec2<u32> {
    let low = piece.first_low + index;
    return vec2<u32>(low, piece.first_high + select(0u, 1u, low < index));
}
