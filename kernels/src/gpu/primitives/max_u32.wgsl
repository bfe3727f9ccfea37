
alias Value = u32;

fn identity() -> Value {
    return 0u;
}

fn combine(a: Value, b: Value) -> Value {
    return max(a, b);
}
