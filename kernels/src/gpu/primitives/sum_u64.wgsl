
// Low word, high word.
alias Value = vec2<u32>;

fn identity() -> Value {
    return vec2<u32>(0u, 0u);
}

fn combine(a: Value, b: Value) -> Value {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}
