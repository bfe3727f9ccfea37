
alias Value = u32;

fn identity() -> Value {
    return 0xffffffffu;
}

fn combine(a: Value, b: Value) -> Value {
    return min(a, b);
}
